use dibs_common::{
    db::points::LedgerEntry,
    identifiers::{PointHistoryId, UserId},
};

use crate::routes::prelude::*;

/// Whose ledger, and which page of it.
#[derive(Clone, Copy, Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct HistoryQuery {
    user_id: UserId,
}

/// List what moved a user's points
#[utoipa::path(
    get, path = "/points/history", operation_id = "listPointHistory",
    tag = "points", params(HistoryQuery, Page::<PointHistoryId>),
    responses(
        (status = 200, description = "the newest first, each with the balance after it", body = List<LedgerEntry, PointHistoryId>),
        ReadProblems,
    ),
)]
pub async fn history(
    app: SharedApp,
    ListParams { filter, page }: ListParams<HistoryQuery, PointHistoryId>,
) -> JsonResult<List<LedgerEntry, PointHistoryId>> {
    let pool = &app.database.pool();
    let rows = db::points::list_history(pool, filter.user_id, page.cursor, page.rows());
    Ok(page.list(db::within(rows).await?, |entry| entry.point_history_id))
}
