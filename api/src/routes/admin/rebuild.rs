use dibs_common::{domain::rebuild::Rebuild, identifiers::CouponId};

use crate::routes::prelude::*;

problems! { AdminProblems: 400 "VALIDATION_FAILED", 404 "COUPON_NOT_FOUND" }

/// Rebuild a campaign in Redis from MySQL
///
/// A worker does so, within about a second. While another process rebuilds the campaign it waits for that, and then
/// rebuilds it once more. Claims are answered `CAMPAIGN_UNAVAILABLE` meanwhile: about 10 s for a million coupons.
/// `Location` shows when it is done.
#[utoipa::path(
    post, path = "/admin/coupons/{couponId}/rebuild", operation_id = "rebuildCampaign",
    tag = "campaigns", params(ActionQuery),
    responses(
        (status = 202, description = "accepted; a worker rebuilds it", body = Rebuild, headers(("Location"))),
        Problems,
    ),
)]
pub async fn rebuild(app: SharedApp, Action(context): Action, PathParams(coupon): PathParams<CouponId>) -> ApiResult {
    let database = app.database.clone();
    let requesting = async move { db::rebuilds::request(&database, coupon, &context).await };
    let rebuild = app.run_to_end(requesting).await?;
    let location = format!("/admin/coupons/{coupon}/rebuilds/{}", rebuild.rebuild_id);
    Ok(located(StatusCode::ACCEPTED, location, rebuild))
}
