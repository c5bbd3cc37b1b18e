use axum::http::{HeaderValue, header};
use dibs_common::{
    domain::api_key::{ApiKey, NewApiKey},
    secret::ApiKeySecret,
};

use crate::routes::prelude::*;

/// A new key, with its secret.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CreatedApiKey {
    #[serde(flatten)]
    key: ApiKey,
    /// The credential itself. It is not stored, and not shown again.
    #[schema(example = "dibs_4s2vN0m8m4jYwq0bQvX1mJtB0yJ9l8Jm3cQm0yF2b5U")]
    secret: String,
}

problems! {
    AdminProblems: 400 "VALIDATION_FAILED, MALFORMED_JSON", 409 "API_KEY_NAME_TAKEN", 422 "API_KEY_LIMIT_EXCEEDED"
}

/// Create an API key
///
/// `secret` is shown in this answer only, and a repeat with the same `Idempotency-Key` does not show it. Other API
/// processes know the key within 2 s.
#[utoipa::path(
    post, path = "/admin/keys", operation_id = "createApiKey",
    tag = "keys", request_body = NewApiKey, params(ActionQuery),
    responses(
        (status = 201, description = "created; the secret is shown once", body = CreatedApiKey,
            headers(("Location"), ("Cache-Control"))),
        Problems,
    ),
)]
pub async fn create_key(app: SharedApp, Action(context): Action, JsonBody(new): JsonBody<NewApiKey>) -> ApiResult {
    validate(new.errors_at(context.at))?;
    let secret = ApiKeySecret::generate()?;
    let text = secret.expose().to_owned();
    let (database, keys) = (app.database.clone(), app.credentials.keys.clone());
    let creating = async move {
        let key = db::api_keys::create(&database, &new, &secret, &context).await?;
        // Here at once; a failure leaves it to the next round.
        let _later = keys.refresh(&database).await;
        Ok(key)
    };
    let key = app.run_to_end(creating).await?;
    let location = format!("/admin/keys/{}", key.api_key_id);
    let mut response = located(StatusCode::CREATED, location, CreatedApiKey { key, secret: text });
    // Neither a cache nor the response of an idempotency key may hold the secret.
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}
