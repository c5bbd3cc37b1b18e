use dibs_common::{
    domain::owned_coupon::OwnedCoupon,
    identifiers::{ClaimId, UserId},
    revocations::{self, RevocationRequest},
};

use crate::routes::prelude::*;

problems! { AdminProblems: 400 "VALIDATION_FAILED", 404 "COUPON_NOT_FOUND", 422 "COUPON_NOT_USABLE: it is used or over" }

/// Revoke a user's coupon
///
/// By an administrator, while no order uses it. Its place in the campaign's quantity is free again; the user cannot
/// claim a second time. Revoking it twice has no further effect.
#[utoipa::path(
    delete, path = "/users/{userId}/coupons/{userCouponId}", operation_id = "revokeCoupon",
    tag = "support", params(ChangeQuery),
    responses((status = 200, description = "the coupon, REVOKED", body = OwnedCoupon), Problems),
)]
pub async fn revoke(
    app: SharedApp,
    Change { context, is_dry_run }: Change,
    PathParams((user, user_coupon)): PathParams<(UserId, ClaimId)>,
) -> JsonResult<OwnedCoupon> {
    let request = RevocationRequest { user, user_coupon, is_dry_run };
    let revoking = app.clone();
    let revoked = app
        .run_to_end(async move { revocations::revoke(&revoking.database, &revoking.redis, request, &context).await });
    Ok(Json(revoked.await?))
}
