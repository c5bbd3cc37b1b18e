use axum::{Json, extract::State};
use dibs_common::{
    db::{self, dead_letters::DeadLettersPage},
    domain::dead_letter::{DeadLetter, DeadLetterStatus},
    identifiers::DeadLetterId,
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{
    app::SharedApp,
    extract::{Administrator, QueryOf, page_limit},
    problem::{ApiError, Problem},
};

/// Which dead letters.
#[derive(Clone, Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct DeadLettersQuery {
    /// Only those of this source, such as `data-platform`.
    source: Option<String>,
    /// Only those of this status.
    status: Option<DeadLetterStatus>,
    /// `nextCursor` of the page before.
    cursor: Option<DeadLetterId>,
    /// At most so many, 1 to 100; 20 when it is left out.
    #[param(minimum = 1, maximum = 100)]
    limit: Option<u32>,
}

/// A page of dead letters, the newest first.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeadLetterList {
    items: Vec<DeadLetter>,
    /// Asks for the next page; null on the last.
    next_cursor: Option<DeadLetterId>,
}

/// List what was given up on
#[utoipa::path(
    get, path = "/admin/dead-letters", tag = "administration", params(DeadLettersQuery),
    responses(
        (status = 200, description = "the newest first", body = DeadLetterList),
        (status = 400, description = "VALIDATION_FAILED", body = Problem),
        (status = 401, description = "UNAUTHENTICATED", body = Problem),
        (status = 403, description = "FORBIDDEN", body = Problem),
        (status = 503, description = "DEPENDENCY_UNAVAILABLE", body = Problem),
    ),
)]
pub async fn dead_letters(
    State(app): State<SharedApp>,
    _: Administrator,
    QueryOf(query): QueryOf<DeadLettersQuery>,
) -> Result<Json<DeadLetterList>, ApiError> {
    let limit = page_limit(query.limit)?;
    // One more than asked for tells whether there is a next page.
    let DeadLettersQuery { source, status, cursor, .. } = query;
    let wanted = DeadLettersPage { source, status, before: cursor, limit: limit + 1, is_short: false };
    let mut items = db::within(db::dead_letters::list(&app.database.pool(), &wanted)).await?;
    let more = items.len() > limit as usize;
    items.truncate(limit as usize);
    let next_cursor = items.last().filter(|_| more).map(|letter| letter.id);
    Ok(Json(DeadLetterList { items, next_cursor }))
}
