use axum::{Json, extract::State};
use dibs_common::{
    db::{self, points::LedgerEntry},
    error::Error,
    identifiers::UserId,
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{
    app::SharedApp,
    extract::QueryOf,
    problem::{ApiError, Problem},
};

/// Whose ledger, and which page of it.
#[derive(Clone, Copy, Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct HistoryQuery {
    user_id: UserId,
    /// `nextCursor` of the page before.
    cursor: Option<u64>,
    /// At most so many, 1 to 100.
    #[serde(default = "twenty")]
    #[param(minimum = 1, maximum = 100)]
    limit: u32,
}

const fn twenty() -> u32 {
    20
}

/// A page of a user's ledger, the newest first.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct HistoryPage {
    items: Vec<LedgerEntry>,
    /// Asks for the next page; null on the last.
    next_cursor: Option<u64>,
}

/// List what moved a user's points
#[utoipa::path(
    get, path = "/points/history", tag = "points", params(HistoryQuery),
    responses(
        (status = 200, description = "the newest first, each with the balance after it", body = HistoryPage),
        (status = 400, description = "VALIDATION_FAILED", body = Problem),
        (status = 503, description = "DEPENDENCY_UNAVAILABLE", body = Problem),
    ),
)]
pub async fn history(
    State(app): State<SharedApp>,
    QueryOf(query): QueryOf<HistoryQuery>,
) -> Result<Json<HistoryPage>, ApiError> {
    let limit = query.limit;
    if !(1..=100).contains(&limit) {
        return Err(ApiError(Error::field("limit", format!("expected 1 to 100, got {limit}"))));
    }
    // One more than asked for tells whether there is a next page.
    let rows = db::points::list_history(app.database.pool(), query.user_id, query.cursor, limit + 1);
    let mut items = db::within(rows).await?;
    let more = items.len() > limit as usize;
    items.truncate(limit as usize);
    let next_cursor = items.last().filter(|_| more).map(|entry| entry.point_history_id);
    Ok(Json(HistoryPage { items, next_cursor }))
}
