use dibs_common::{
    db::assignments::AssignmentsFilter,
    domain::assignment::{AssignmentState, AssignmentStatus},
    identifiers::{AssignmentId, CouponId},
};

use crate::routes::prelude::*;

/// Which assignments.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct AssignmentsQuery {
    /// Only those of this status, such as `AWAITING_APPROVAL`.
    status: Option<AssignmentStatus>,
}

problems! { AdminProblems: 400 "VALIDATION_FAILED", 404 "COUPON_NOT_FOUND" }

/// List the assignments of a coupon
#[utoipa::path(
    get, path = "/admin/coupons/{couponId}/assignments", operation_id = "listAssignments", tag = "assignments",
    params(AssignmentsQuery, Page::<AssignmentId>),
    responses((status = 200, description = "the newest first", body = List<AssignmentState, AssignmentId>), Problems),
)]
pub async fn assignments(
    app: SharedApp,
    _: Administrator,
    PathParams(coupon): PathParams<CouponId>,
    ListParams { filter, page }: ListParams<AssignmentsQuery, AssignmentId>,
) -> JsonResult<List<AssignmentState, AssignmentId>> {
    let pool = app.database.pool();
    db::found(db::campaigns::find(&pool, coupon), Error::CouponNotFound(coupon)).await?;
    let wanted = AssignmentsFilter { coupon, status: filter.status, before: page.cursor, limit: page.rows() };
    let found = db::within(db::assignments::list(&pool, &wanted)).await?;
    Ok(page.list(found, |state| state.assignment.id))
}
