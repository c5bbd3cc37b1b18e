use axum::{Json, extract::State};
use dibs_common::{
    db::{self, points::LedgerEntry},
    identifiers::UserId,
};
use serde::Deserialize;
use utoipa::IntoParams;

use crate::{
    app::SharedApp,
    extract::{List, ListParameters, Page},
    problem::ApiError,
    routes::responses::ReadProblems,
};

/// Whose ledger, and which page of it.
#[derive(Clone, Copy, Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct HistoryQuery {
    user_id: UserId,
}

/// List what moved a user's points
#[utoipa::path(
    get, path = "/points/history", tag = "points", params(HistoryQuery, Page::<u64>),
    responses(
        (status = 200, description = "the newest first, each with the balance after it", body = List<LedgerEntry, u64>),
        ReadProblems,
    ),
)]
pub async fn history(
    State(app): State<SharedApp>,
    ListParameters { filter, page }: ListParameters<HistoryQuery, u64>,
) -> Result<Json<List<LedgerEntry, u64>>, ApiError> {
    let pool = &app.database.pool();
    let rows = db::points::list_history(pool, filter.user_id, page.cursor, page.rows());
    Ok(page.list(db::within(rows).await?, |entry| entry.point_history_id))
}
