use axum::{Json, extract::State};
use dibs_common::{
    db,
    domain::assignment::AssignmentState,
    error::Error,
    identifiers::{AssignmentId, CouponId},
};

use crate::{
    app::SharedApp,
    extract::{Administrator, PathParams},
    problem::ApiError,
    routes::responses::problems,
};

problems! { AdminProblems: 400 "VALIDATION_FAILED", 404 "ASSIGNMENT_NOT_FOUND" }

/// Look at an assignment
#[utoipa::path(
    get, path = "/admin/coupons/{couponId}/assignments/{assignmentId}", tag = "administration",
    params(("couponId" = CouponId, Path), ("assignmentId" = AssignmentId, Path)),
    responses((status = 200, description = "the assignment now", body = AssignmentState), Problems),
)]
pub async fn assignment(
    State(app): State<SharedApp>,
    _: Administrator,
    PathParams((coupon, assignment)): PathParams<(CouponId, AssignmentId)>,
) -> Result<Json<AssignmentState>, ApiError> {
    let pool = &app.database.pool();
    let assignment =
        db::found(db::assignments::find_state(pool, coupon, assignment), Error::AssignmentNotFound(assignment));
    Ok(Json(assignment.await?))
}
