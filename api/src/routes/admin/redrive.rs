use axum::{Json, extract::State, http::StatusCode};
use dibs_common::{
    clock, db,
    domain::dead_letter::{DeadLetter, DeadLetterStatus},
    error::Error,
    identifiers::DeadLetterId,
};

use crate::{
    app::SharedApp,
    extract::{Administrator, PathOf},
    problem::{ApiError, Problem},
};

/// Ask for a dead letter to be sent again
///
/// Asking twice is asking once, and one that was sent stays so. The worker that serves the source sends it; the list
/// tells what became of it.
#[utoipa::path(
    post, path = "/admin/dead-letters/{deadLetterId}/redrive", tag = "administration",
    params(("deadLetterId" = DeadLetterId, Path)),
    responses(
        (status = 202, description = "accepted; the letter as it is now", body = DeadLetter),
        (status = 400, description = "VALIDATION_FAILED", body = Problem),
        (status = 401, description = "UNAUTHENTICATED", body = Problem),
        (status = 403, description = "FORBIDDEN", body = Problem),
        (status = 404, description = "DEAD_LETTER_NOT_FOUND", body = Problem),
        (status = 409, description = "DEAD_LETTER_NOT_REDRIVABLE: it is not whole", body = Problem),
        (status = 503, description = "DEPENDENCY_UNAVAILABLE", body = Problem),
    ),
)]
pub async fn redrive(
    State(app): State<SharedApp>,
    _: Administrator,
    PathOf(id): PathOf<DeadLetterId>,
) -> Result<(StatusCode, Json<DeadLetter>), ApiError> {
    let letter = db::within(db::dead_letters::request_redrive(app.database.pool(), id, clock::now())).await?;
    let letter = letter.ok_or(Error::DeadLetterNotFound(id))?;
    if letter.status == DeadLetterStatus::Dead {
        return Err(ApiError(Error::DeadLetterNotRedrivable(id)));
    }
    Ok((StatusCode::ACCEPTED, Json(letter)))
}
