use axum::{Json, extract::State};
use dibs_common::{
    db,
    domain::assignment::AssignmentState,
    error::Error,
    identifiers::{AssignmentId, CouponId},
};

use crate::{
    app::SharedApp,
    extract::{Administrator, PathParameters},
    problem::{ApiError, Problem},
    routes::responses::AdminProblems,
};

/// Look at an assignment
#[utoipa::path(
    get, path = "/admin/coupons/{couponId}/assignments/{assignmentId}", tag = "administration",
    params(("couponId" = CouponId, Path), ("assignmentId" = AssignmentId, Path)),
    responses(
        (status = 200, description = "the assignment now", body = AssignmentState),
        (status = 400, description = "VALIDATION_FAILED", body = Problem),
        (status = 404, description = "ASSIGNMENT_NOT_FOUND", body = Problem),
        AdminProblems,
    ),
)]
pub async fn assignment(
    State(app): State<SharedApp>,
    _: Administrator,
    PathParameters((coupon, assignment)): PathParameters<(CouponId, AssignmentId)>,
) -> Result<Json<AssignmentState>, ApiError> {
    let pool = &app.database.pool();
    let assignment =
        db::found(db::assignments::find_state(pool, coupon, assignment), Error::AssignmentNotFound(assignment));
    Ok(Json(assignment.await?))
}
