use axum::{extract::State, http::StatusCode};
use dibs_common::{clock, dead_letters, error::Error, identifiers::DeadLetterId};

use crate::{
    app::SharedApp,
    extract::{Administrator, PathParameters},
    problem::{ApiError, Problem},
};

/// Drop a dead letter
///
/// It is listed as DROPPED for 30 days. Claims of it that have no outcome are rejected with `CLAIM_FAILED`, and their
/// quantity is free again. Dropping it twice has no further effect, and one that was sent stays so.
#[utoipa::path(
    delete, path = "/admin/dead-letters/{deadLetterId}", tag = "administration",
    params(("deadLetterId" = DeadLetterId, Path)),
    responses(
        (status = 204, description = "dropped"),
        (status = 400, description = "VALIDATION_FAILED", body = Problem),
        (status = 401, description = "UNAUTHENTICATED", body = Problem),
        (status = 403, description = "FORBIDDEN", body = Problem),
        (status = 404, description = "DEAD_LETTER_NOT_FOUND", body = Problem),
        (status = 409, description = "DEAD_LETTER_NOT_REDRIVABLE: a redrive of it is requested and not done", body = Problem),
        (status = 503, description = "DEPENDENCY_UNAVAILABLE, CAMPAIGN_UNAVAILABLE", body = Problem),
    ),
)]
pub async fn drop_dead_letter(
    State(app): State<SharedApp>,
    _: Administrator,
    PathParameters(id): PathParameters<DeadLetterId>,
) -> Result<StatusCode, ApiError> {
    let (database, redis) = (app.database.clone(), app.redis.clone());
    // Several steps: they go on when the caller disconnects.
    let dropping = app.tasks.spawn(async move { dead_letters::drop_letter(&database, &redis, id, clock::now()).await });
    dropping.await.map_err(Error::internal)??;
    Ok(StatusCode::NO_CONTENT)
}
