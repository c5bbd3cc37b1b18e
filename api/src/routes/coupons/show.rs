use dibs_common::{
    clock,
    domain::campaign::{Campaign, CampaignStatus, CampaignTerms},
    identifiers::CouponId,
};

use crate::routes::prelude::*;

/// A campaign as the public sees it.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CampaignView {
    coupon_id: CouponId,
    #[serde(flatten)]
    terms: CampaignTerms,
    /// The remaining quantity now.
    remaining: u32,
    status: CampaignStatus,
}

impl CampaignView {
    /// The campaign now, when `claimed` claims are accepted.
    pub fn new(campaign: Campaign, claimed: u32) -> Self {
        Self {
            coupon_id: campaign.id,
            remaining: campaign.capacity().saturating_sub(claimed),
            status: campaign.status(claimed, clock::now()),
            terms: campaign.terms,
        }
    }

    pub const fn id(&self) -> CouponId {
        self.coupon_id
    }

    pub const fn status(&self) -> CampaignStatus {
        self.status
    }
}

problems! { ReadProblems: 404 "COUPON_NOT_FOUND" }

/// Look at a campaign
#[utoipa::path(
    get, path = "/coupons/{couponId}", operation_id = "getCoupon", tag = "coupons",
    responses((status = 200, description = "the campaign now", body = CampaignView), Problems),
)]
pub async fn show(app: SharedApp, PathParams(coupon): PathParams<CouponId>) -> JsonResult<CampaignView> {
    let campaign = db::found(db::campaigns::find(&app.database.pool(), coupon), Error::CouponNotFound(coupon)).await?;
    let batcher = app.claims.batcher(coupon).await?;
    // Without Redis, the issued quantity is the best count there is.
    let claimed = batcher.claimed(&app.redis).await.ok().flatten().unwrap_or(campaign.issued);
    Ok(Json(CampaignView::new(campaign, claimed)))
}
