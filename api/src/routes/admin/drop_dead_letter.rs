use dibs_common::{dead_letters, identifiers::DeadLetterId};

use crate::routes::prelude::*;

problems! {
    400 "VALIDATION_FAILED", 401 "UNAUTHENTICATED", 403 "FORBIDDEN", 404 "DEAD_LETTER_NOT_FOUND",
    409 "DEAD_LETTER_NOT_REDRIVABLE: a redrive of it is requested and not done",
    503 "DEPENDENCY_UNAVAILABLE, CAMPAIGN_UNAVAILABLE"
}

/// Drop a dead letter
///
/// It is listed as DROPPED for 30 days. Claims of it that have no outcome are rejected with `CLAIM_FAILED`, and their
/// quantity is free again. Dropping it twice has no further effect, and one that was sent stays so.
#[utoipa::path(
    delete, path = "/admin/dead-letters/{deadLetterId}", operation_id = "dropDeadLetter",
    tag = "dead-letters", params(ActionQuery),
    responses((status = 204, description = "dropped"), Problems),
)]
pub async fn drop_dead_letter(
    app: SharedApp,
    Action(context): Action,
    PathParams(id): PathParams<DeadLetterId>,
) -> Result<StatusCode, ApiError> {
    let (database, redis) = (app.database.clone(), app.redis.clone());
    // Several steps: they go on when the caller disconnects.
    app.run_to_end(async move { dead_letters::drop_letter(&database, &redis, id, &context).await }).await?;
    Ok(StatusCode::NO_CONTENT)
}
