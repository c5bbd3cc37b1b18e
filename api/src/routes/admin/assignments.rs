use axum::{Json, extract::State};
use dibs_common::{
    db::{self, assignments::AssignmentsFilter},
    domain::assignment::{AssignmentState, AssignmentStatus},
    error::Error,
    identifiers::{AssignmentId, CouponId},
};
use serde::Deserialize;
use utoipa::IntoParams;

use crate::{
    app::SharedApp,
    extract::{Administrator, List, ListParams, Page, PathParams},
    problem::ApiError,
    routes::responses::problems,
};

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
    get, path = "/admin/coupons/{couponId}/assignments", tag = "administration",
    params(("couponId" = CouponId, Path), AssignmentsQuery, Page::<AssignmentId>),
    responses((status = 200, description = "the newest first", body = List<AssignmentState, AssignmentId>), Problems),
)]
pub async fn assignments(
    State(app): State<SharedApp>,
    _: Administrator,
    PathParams(coupon): PathParams<CouponId>,
    ListParams { filter, page }: ListParams<AssignmentsQuery, AssignmentId>,
) -> Result<Json<List<AssignmentState, AssignmentId>>, ApiError> {
    let pool = app.database.pool();
    db::found(db::campaigns::find(&pool, coupon), Error::CouponNotFound(coupon)).await?;
    let wanted = AssignmentsFilter { coupon, status: filter.status, before: page.cursor, limit: page.rows() };
    let found = db::within(db::assignments::list(&pool, &wanted)).await?;
    Ok(page.list(found, |state| state.assignment.id))
}
