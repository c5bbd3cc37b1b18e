use dibs_common::{domain::api_key::ApiKey, identifiers::ApiKeyId};

use crate::routes::prelude::*;

problems! { AdminProblems: 400 "VALIDATION_FAILED" }

/// List API keys
///
/// Also those that are revoked or have expired. No secret is shown.
#[utoipa::path(
    get, path = "/admin/keys", operation_id = "listApiKeys", tag = "keys", params(Page::<ApiKeyId>),
    responses((status = 200, description = "the newest first", body = List<ApiKey, ApiKeyId>), Problems),
)]
pub async fn keys(
    app: SharedApp,
    _: Administrator,
    ListParams { page, .. }: ListParams<NoFilter, ApiKeyId>,
) -> JsonResult<List<ApiKey, ApiKeyId>> {
    let keys = db::within(db::api_keys::list(&app.database.pool(), page.cursor, page.rows())).await?;
    Ok(page.list(keys, |key| key.api_key_id))
}
