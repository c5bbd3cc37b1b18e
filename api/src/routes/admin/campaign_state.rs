//! Pause, resume and close. Each takes effect on all processes before it is answered, as Redis decides claims.

use axum::{extract::State, response::Response};
use dibs_common::{domain::campaign_change::CampaignChange, identifiers::CouponId};

use super::change_campaign::{ChangedCampaign, change};
use crate::{
    app::SharedApp,
    extract::{Change, ChangeQuery, IfMatch, PathParams},
    problem::{ApiError, Problem},
    routes::responses::AdminProblems,
};

/// Pause a campaign
///
/// Claims are refused with `CAMPAIGN_PAUSED`; those that are accepted are issued. Pausing it twice has no further
/// effect.
#[utoipa::path(
    post, path = "/admin/coupons/{couponId}/pause", tag = "administration",
    params(("couponId" = CouponId, Path), ChangeQuery),
    responses(
        (status = 200, description = "it is paused", body = ChangedCampaign),
        (status = 404, description = "COUPON_NOT_FOUND", body = Problem),
        (status = 412, description = "PRECONDITION_FAILED, with If-Match", body = Problem),
        (status = 422, description = "CAMPAIGN_CLOSED", body = Problem),
        AdminProblems,
    ),
)]
pub async fn pause(
    State(app): State<SharedApp>,
    action: Change,
    PathParams(coupon): PathParams<CouponId>,
    precondition: IfMatch,
) -> Result<Response, ApiError> {
    change(&app, action, coupon, CampaignChange::Pause, precondition.optional()).await
}

/// Resume a campaign
///
/// Claims are accepted again, within the window. Resuming it twice has no further effect.
#[utoipa::path(
    post, path = "/admin/coupons/{couponId}/resume", tag = "administration",
    params(("couponId" = CouponId, Path), ChangeQuery),
    responses(
        (status = 200, description = "it takes claims within its window", body = ChangedCampaign),
        (status = 404, description = "COUPON_NOT_FOUND", body = Problem),
        (status = 412, description = "PRECONDITION_FAILED, with If-Match", body = Problem),
        (status = 422, description = "CAMPAIGN_CLOSED", body = Problem),
        AdminProblems,
    ),
)]
pub async fn resume(
    State(app): State<SharedApp>,
    action: Change,
    PathParams(coupon): PathParams<CouponId>,
    precondition: IfMatch,
) -> Result<Response, ApiError> {
    change(&app, action, coupon, CampaignChange::Resume, precondition.optional()).await
}

/// Close a campaign
///
/// For good. Claims are refused with `CAMPAIGN_CLOSED`; those that are accepted are issued. Closing it twice has no
/// further effect.
#[utoipa::path(
    post, path = "/admin/coupons/{couponId}/close", tag = "administration",
    params(("couponId" = CouponId, Path), ChangeQuery),
    responses(
        (status = 200, description = "it is closed", body = ChangedCampaign),
        (status = 404, description = "COUPON_NOT_FOUND", body = Problem),
        (status = 412, description = "PRECONDITION_FAILED, with If-Match", body = Problem),
        AdminProblems,
    ),
)]
pub async fn close(
    State(app): State<SharedApp>,
    action: Change,
    PathParams(coupon): PathParams<CouponId>,
    precondition: IfMatch,
) -> Result<Response, ApiError> {
    change(&app, action, coupon, CampaignChange::Close, precondition.optional()).await
}
