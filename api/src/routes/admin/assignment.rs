use axum::{Json, extract::State};
use dibs_common::{
    db,
    domain::assignment::{AssignmentKey, AssignmentState},
    error::Error,
    identifiers::CouponId,
};

use crate::{
    app::SharedApp,
    extract::{Administrator, PathParams},
    problem::ApiError,
    routes::responses::problems,
};

problems! { AdminProblems: 400 "VALIDATION_FAILED", 404 "ASSIGNMENT_NOT_FOUND" }

/// Look at an assignment
///
/// Its key is the one that it was uploaded with, or its id.
#[utoipa::path(
    get, path = "/admin/coupons/{couponId}/assignments/{key}", tag = "administration",
    params(("couponId" = CouponId, Path), ("key" = AssignmentKey, Path)),
    responses((status = 200, description = "the assignment now", body = AssignmentState), Problems),
)]
pub async fn assignment(
    State(app): State<SharedApp>,
    _: Administrator,
    PathParams((coupon, key)): PathParams<(CouponId, AssignmentKey)>,
) -> Result<Json<AssignmentState>, ApiError> {
    let pool = app.database.pool();
    let missing = Error::AssignmentNotFound(key.clone());
    let finding = Box::pin(db::found(db::assignments::find_state(&pool, coupon, &key), missing));
    finding.await.map(Json).map_err(ApiError::from)
}
