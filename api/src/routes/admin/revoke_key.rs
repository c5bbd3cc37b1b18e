use dibs_common::{domain::api_key::ApiKey, identifiers::ApiKeyId};

use crate::routes::prelude::*;

problems! { AdminProblems: 400 "VALIDATION_FAILED", 404 "API_KEY_NOT_FOUND" }

/// Revoke an API key
///
/// It stays in the list, and its name stays taken. Other API processes refuse it within 2 s. Revoking it twice has no
/// further effect.
#[utoipa::path(
    delete, path = "/admin/keys/{apiKeyId}", operation_id = "revokeApiKey", tag = "keys", params(ActionQuery),
    responses((status = 200, description = "the key, revoked", body = ApiKey), Problems),
)]
pub async fn revoke_key(
    app: SharedApp,
    Action(context): Action,
    PathParams(id): PathParams<ApiKeyId>,
) -> JsonResult<ApiKey> {
    let (database, keys) = (app.database.clone(), app.credentials.keys.clone());
    let revoking = async move {
        let key = db::api_keys::revoke(&database, id, &context).await?;
        let _later = keys.refresh(&database).await;
        Ok(key)
    };
    Ok(Json(app.run_to_end(revoking).await?))
}
