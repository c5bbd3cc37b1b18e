use dibs_common::{
    clock,
    db::owned_coupons::OwnedCouponsFilter,
    domain::owned_coupon::{OwnedCoupon, OwnedStatus},
    identifiers::{ClaimId, UserId},
};

use crate::routes::prelude::*;

/// Which of the user's coupons.
#[derive(Clone, Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct CouponsQuery {
    /// Only those of this status; all when it is left out.
    status: Option<OwnedStatus>,
}

/// List a user's coupons
#[utoipa::path(
    get, path = "/users/{userId}/coupons", operation_id = "listUserCoupons",
    tag = "coupons", params(CouponsQuery, Page::<ClaimId>),
    responses((status = 200, description = "the newest first", body = List<OwnedCoupon, ClaimId>), ReadProblems),
)]
pub async fn coupons(
    app: SharedApp,
    PathParams(user): PathParams<UserId>,
    ListParams { filter, page }: ListParams<CouponsQuery, ClaimId>,
) -> JsonResult<List<OwnedCoupon, ClaimId>> {
    let wanted = OwnedCouponsFilter { user, status: filter.status, before: page.cursor, limit: page.rows() };
    let coupons = db::within(db::owned_coupons::list(&app.database.pool(), wanted, clock::now())).await?;
    Ok(page.list(coupons, |coupon| coupon.user_coupon_id))
}
