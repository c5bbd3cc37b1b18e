use axum::{Json, extract::State};
use dibs_common::{
    db,
    domain::assignment::AssignmentState,
    error::Error,
    identifiers::{AssignmentId, CouponId},
};

use crate::{
    app::SharedApp,
    extract::{Administrator, PathOf},
    problem::{ApiError, Problem},
};

/// What became of an assignment
#[utoipa::path(
    get, path = "/admin/coupons/{couponId}/assignments/{assignmentId}", tag = "administration",
    params(("couponId" = u64, Path), ("assignmentId" = AssignmentId, Path)),
    responses(
        (status = 200, description = "the assignment now", body = AssignmentState),
        (status = 400, description = "VALIDATION_FAILED", body = Problem),
        (status = 401, description = "UNAUTHENTICATED", body = Problem),
        (status = 403, description = "FORBIDDEN", body = Problem),
        (status = 404, description = "ASSIGNMENT_NOT_FOUND", body = Problem),
        (status = 503, description = "DEPENDENCY_UNAVAILABLE", body = Problem),
    ),
)]
pub async fn assignment(
    State(app): State<SharedApp>,
    _: Administrator,
    PathOf((coupon, assignment)): PathOf<(CouponId, AssignmentId)>,
) -> Result<Json<AssignmentState>, ApiError> {
    let found = db::within(db::assignments::find_state(app.database.pool(), coupon, assignment)).await?;
    Ok(Json(found.ok_or(Error::AssignmentNotFound(assignment))?))
}
