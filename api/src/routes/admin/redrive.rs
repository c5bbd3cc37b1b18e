use dibs_common::{dead_letters, domain::dead_letter::DeadLetter, identifiers::DeadLetterId};

use crate::routes::prelude::*;

problems! {
    AdminProblems: 400 "VALIDATION_FAILED", 404 "DEAD_LETTER_NOT_FOUND",
    409 "DEAD_LETTER_NOT_REDRIVABLE: never decodable, cut, dropped, or its outcome is its failure"
}

/// Request the redrive of a dead letter
///
/// Requesting it twice has no further effect, and one that was sent stays so. The worker that serves the source
/// redrives it; the list has the outcome.
#[utoipa::path(
    post, path = "/admin/dead-letters/{deadLetterId}/redrive", operation_id = "redriveDeadLetter",
    tag = "dead-letters", params(ActionQuery),
    responses((status = 202, description = "accepted; the letter as it is now", body = DeadLetter), Problems),
)]
pub async fn redrive(
    app: SharedApp,
    Action(context): Action,
    PathParams(id): PathParams<DeadLetterId>,
) -> Result<(StatusCode, Json<DeadLetter>), ApiError> {
    let database = app.database.clone();
    let requesting = async move { dead_letters::request_redrive(&database, id, &context).await };
    let letter = app.run_to_end(requesting).await?;
    Ok((StatusCode::ACCEPTED, Json(letter)))
}
