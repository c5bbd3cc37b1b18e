use axum::{Json, extract::State, http::StatusCode};
use dibs_common::{clock, dead_letters, domain::dead_letter::DeadLetter, identifiers::DeadLetterId};

use crate::{
    app::SharedApp,
    extract::{Administrator, PathParameters},
    problem::{ApiError, Problem},
};

/// Request the redrive of a dead letter
///
/// Requesting it twice has no further effect, and one that was sent stays so. The worker that serves the source redrives
/// it; the list has the outcome.
#[utoipa::path(
    post, path = "/admin/dead-letters/{deadLetterId}/redrive", tag = "administration",
    params(("deadLetterId" = DeadLetterId, Path)),
    responses(
        (status = 202, description = "accepted; the letter as it is now", body = DeadLetter),
        (status = 400, description = "VALIDATION_FAILED", body = Problem),
        (status = 401, description = "UNAUTHENTICATED", body = Problem),
        (status = 403, description = "FORBIDDEN", body = Problem),
        (status = 404, description = "DEAD_LETTER_NOT_FOUND", body = Problem),
        (status = 409, description = "DEAD_LETTER_NOT_REDRIVABLE: never decodable, cut, dropped, or its outcome is its failure", body = Problem),
        (status = 503, description = "DEPENDENCY_UNAVAILABLE", body = Problem),
    ),
)]
pub async fn redrive(
    State(app): State<SharedApp>,
    _: Administrator,
    PathParameters(id): PathParameters<DeadLetterId>,
) -> Result<(StatusCode, Json<DeadLetter>), ApiError> {
    let letter = dead_letters::request_redrive(&app.database, id, clock::now()).await?;
    Ok((StatusCode::ACCEPTED, Json(letter)))
}
