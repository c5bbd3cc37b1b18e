use axum::{Json, extract::State};
use dibs_common::{db, domain::api_key::ApiKey, identifiers::ApiKeyId};
use serde::Deserialize;

use crate::{
    app::SharedApp,
    extract::{Administrator, List, ListParams, Page},
    problem::ApiError,
    routes::responses::problems,
};

/// All keys.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeysQuery {}

problems! { AdminProblems: 400 "VALIDATION_FAILED" }

/// List API keys
///
/// Also those that are revoked or have expired. No secret is shown.
#[utoipa::path(
    get, path = "/admin/keys", tag = "administration", params(Page::<ApiKeyId>),
    responses((status = 200, description = "the newest first", body = List<ApiKey, ApiKeyId>), Problems),
)]
pub async fn keys(
    State(app): State<SharedApp>,
    _: Administrator,
    ListParams { filter: KeysQuery {}, page }: ListParams<KeysQuery, ApiKeyId>,
) -> Result<Json<List<ApiKey, ApiKeyId>>, ApiError> {
    let keys = db::within(db::api_keys::list(&app.database.pool(), page.cursor, page.rows())).await?;
    Ok(page.list(keys, |key| key.api_key_id))
}
