use axum::{extract::State, http::StatusCode, response::Response};
use dibs_common::{
    clock, db,
    domain::{
        assignment::{Assignment, Recipients},
        campaign::CampaignState,
    },
    error::{Error, Result},
    identifiers::{AssignmentId, CouponId, UserId},
};

use crate::{
    app::SharedApp,
    extract::{Administrator, JsonBody, OperationId, PathParams},
    problem::ApiError,
    routes::responses::{located, problems, validate},
};

problems! {
    AdminProblems: 400 "VALIDATION_FAILED, MALFORMED_JSON", 404 "COUPON_NOT_FOUND", 413 "PAYLOAD_TOO_LARGE",
    422 "CAMPAIGN_CLOSED: by an administrator"
}

/// Give a coupon to many users
///
/// It counts against the total quantity and each user's limit, but the claim window and a pause do not matter. The
/// worker executes it; `Location` shows its progress.
#[utoipa::path(
    post, path = "/admin/coupons/{couponId}/assignments", tag = "administration", params(("couponId" = CouponId, Path)),
    request_body = Recipients,
    responses((status = 202, description = "accepted; the users get it shortly", body = Assignment), Problems),
)]
pub async fn assign(
    State(app): State<SharedApp>,
    _: Administrator,
    PathParams(coupon): PathParams<CouponId>,
    OperationId(operation): OperationId,
    JsonBody(recipients): JsonBody<Recipients>,
) -> Result<Response, ApiError> {
    validate(recipients.errors())?;
    let creating = create(app.clone(), AssignmentId(operation), coupon, recipients.user_ids);
    let assignment = app.run_to_end(creating).await?;
    let location = format!("/admin/coupons/{coupon}/assignments/{}", assignment.id);
    Ok(located(StatusCode::ACCEPTED, location, assignment))
}

async fn create(app: SharedApp, id: AssignmentId, coupon: CouponId, users: Vec<UserId>) -> Result<Assignment> {
    let pool = &app.database.pool();
    if let Some(existing) = db::within(db::assignments::find(pool, coupon, id)).await? {
        // Created by an attempt before this one. The campaign may have been closed since, which does not undo it.
        return Ok(existing);
    }
    let campaign = db::within(db::campaigns::find(pool, coupon)).await?.ok_or(Error::CouponNotFound(coupon))?;
    if campaign.state == CampaignState::Closed {
        return Err(Error::CampaignClosed);
    }
    // Issued now, it would be expired at once, and still count against the quantity and each user's limit.
    let now = clock::now();
    let valid_until = campaign.terms.validity.end(now);
    if valid_until <= now {
        let message = format!("expected a coupon whose validity is not over; it ended at {}", clock::text(valid_until));
        return Err(Error::field("couponId", message));
    }
    db::assignments::create(&app.database, id, coupon, &users, now).await
}
