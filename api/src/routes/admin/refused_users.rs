use axum::{Json, extract::State};
use dibs_common::{
    db,
    domain::{
        assignment::{AssignmentKey, RefusedUser},
        claim::ClaimRejectReason,
    },
    error::Error,
    identifiers::{ClaimId, CouponId},
};
use serde::Deserialize;
use utoipa::IntoParams;

use crate::{
    app::SharedApp,
    extract::{Administrator, List, ListParams, Page, PathParams},
    problem::ApiError,
    routes::responses::problems,
};

/// Which users.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct RefusedUsersQuery {
    /// Only those who were refused for this reason.
    code: Option<ClaimRejectReason>,
}

problems! { AdminProblems: 400 "VALIDATION_FAILED", 404 "ASSIGNMENT_NOT_FOUND" }

/// List the users whom an assignment does not give the coupon
#[utoipa::path(
    get, path = "/admin/coupons/{couponId}/assignments/{key}/refused", tag = "administration",
    params(("couponId" = CouponId, Path), ("key" = AssignmentKey, Path), RefusedUsersQuery, Page::<ClaimId>),
    responses(
        (status = 200, description = "by code, then in the order of the list", body = List<RefusedUser, ClaimId>),
        Problems,
    ),
)]
pub async fn refused_users(
    State(app): State<SharedApp>,
    _: Administrator,
    PathParams((coupon, key)): PathParams<(CouponId, AssignmentKey)>,
    ListParams { filter, page }: ListParams<RefusedUsersQuery, ClaimId>,
) -> Result<Json<List<RefusedUser, ClaimId>>, ApiError> {
    let pool = app.database.pool();
    let missing = Error::AssignmentNotFound(key.clone());
    let found = Box::pin(db::found(db::assignments::find_state(&pool, coupon, &key), missing)).await?;
    let code = filter.code.map(<&str>::from);
    let refused = db::assignments::users::list_refused(&pool, found.assignment.id, code, page.cursor, page.rows());
    Ok(page.list(db::within(refused).await?, |user| user.claim_id))
}
