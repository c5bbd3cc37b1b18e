use dibs_common::{
    domain::{
        assignment::{AssignmentKey, RefusedUser},
        claim::ClaimRejectReason,
    },
    identifiers::{ClaimId, CouponId},
};

use crate::routes::prelude::*;

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
    get, path = "/admin/coupons/{couponId}/assignments/{key}/refused", operation_id = "listRefusedUsers",
    tag = "assignments",
    params(RefusedUsersQuery, Page::<ClaimId>),
    responses(
        (status = 200, description = "by code, then in the order of the list", body = List<RefusedUser, ClaimId>),
        Problems,
    ),
)]
pub async fn refused_users(
    app: SharedApp,
    _: Administrator,
    PathParams((coupon, key)): PathParams<(CouponId, AssignmentKey)>,
    ListParams { filter, page }: ListParams<RefusedUsersQuery, ClaimId>,
) -> JsonResult<List<RefusedUser, ClaimId>> {
    let pool = app.database.pool();
    let missing = Error::AssignmentNotFound(key.clone());
    let found = Box::pin(db::found(db::assignments::find_state(&pool, coupon, &key), missing)).await?;
    let code = filter.code.map(<&str>::from);
    let refused = db::assignments::users::list_refused(&pool, found.assignment.id, code, page.cursor, page.rows());
    Ok(page.list(db::within(refused).await?, |user| user.claim_id))
}
