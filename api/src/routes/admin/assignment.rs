use dibs_common::{
    domain::assignment::{AssignmentKey, AssignmentState},
    identifiers::CouponId,
};

use crate::routes::prelude::*;

problems! { AdminProblems: 400 "VALIDATION_FAILED", 404 "ASSIGNMENT_NOT_FOUND" }

/// Look at an assignment
///
/// Its key is the one that it was uploaded with, or its id.
#[utoipa::path(
    get, path = "/admin/coupons/{couponId}/assignments/{key}", operation_id = "getAssignment", tag = "assignments",
    responses((status = 200, description = "the assignment now", body = AssignmentState), Problems),
)]
pub async fn assignment(
    app: SharedApp,
    _: Administrator,
    PathParams((coupon, key)): PathParams<(CouponId, AssignmentKey)>,
) -> JsonResult<AssignmentState> {
    let pool = app.database.pool();
    let missing = Error::AssignmentNotFound(key.clone());
    let finding = Box::pin(db::found(db::assignments::find_state(&pool, coupon, &key), missing));
    finding.await.map(Json).map_err(ApiError::from)
}
