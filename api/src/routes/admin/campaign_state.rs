//! Pause, resume and close. Each takes effect on all processes before it is answered, as Redis decides claims.

use dibs_common::{domain::campaign_change::CampaignChange, identifiers::CouponId};

use super::change_campaign::{ChangedCampaign, change};
use crate::{extract::IfMatch, routes::prelude::*};

problems! { AdminProblems: 404 "COUPON_NOT_FOUND", 412 "PRECONDITION_FAILED, with If-Match" }

/// Pause a campaign
///
/// Claims are refused with `CAMPAIGN_PAUSED`; those that are accepted are issued. Pausing it twice has no further
/// effect.
#[utoipa::path(
    post, path = "/admin/coupons/{couponId}/pause", operation_id = "pauseCampaign",
    tag = "campaigns",
    params(ChangeQuery, ("If-Match" = Option<String>, Header, description = "`ETag` of the expected version, or `*`")),
    responses(
        (status = 200, description = "it is paused", body = ChangedCampaign, headers(("ETag"))),
        (status = 422, description = "CAMPAIGN_CLOSED", body = Problem), Problems,
    ),
)]
pub async fn pause(app: SharedApp, action: Change, coupon: PathParams<CouponId>, if_match: IfMatch) -> ApiResult {
    change(&app, action, coupon.0, CampaignChange::Pause, if_match.optional()).await
}

/// Resume a campaign
///
/// Claims are accepted again, within the window. Resuming it twice has no further effect.
#[utoipa::path(
    post, path = "/admin/coupons/{couponId}/resume", operation_id = "resumeCampaign",
    tag = "campaigns",
    params(ChangeQuery, ("If-Match" = Option<String>, Header, description = "`ETag` of the expected version, or `*`")),
    responses(
        (status = 200, description = "it takes claims within its window", body = ChangedCampaign, headers(("ETag"))),
        (status = 422, description = "CAMPAIGN_CLOSED", body = Problem), Problems,
    ),
)]
pub async fn resume(app: SharedApp, action: Change, coupon: PathParams<CouponId>, if_match: IfMatch) -> ApiResult {
    change(&app, action, coupon.0, CampaignChange::Resume, if_match.optional()).await
}

/// Close a campaign
///
/// For good. Claims are refused with `CAMPAIGN_CLOSED`; those that are accepted are issued. Closing it twice has no
/// further effect.
#[utoipa::path(
    post, path = "/admin/coupons/{couponId}/close", operation_id = "closeCampaign",
    tag = "campaigns",
    params(ChangeQuery, ("If-Match" = Option<String>, Header, description = "`ETag` of the expected version, or `*`")),
    responses((status = 200, description = "it is closed", body = ChangedCampaign, headers(("ETag"))), Problems),
)]
pub async fn close(app: SharedApp, action: Change, coupon: PathParams<CouponId>, if_match: IfMatch) -> ApiResult {
    change(&app, action, coupon.0, CampaignChange::Close, if_match.optional()).await
}
