use axum::http::header;
use dibs_common::{
    clock,
    domain::campaign::{Campaign, CampaignState},
    identifiers::CouponId,
    redis::{
        Redis,
        campaign_state::{self, HeldCampaign},
        streams::{self, ClaimEntry, ClaimStream},
    },
};

use crate::{
    extract::entity_tag,
    routes::{coupons::show::CampaignView, prelude::*},
};

/// A campaign as administrators see it.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AdminCampaign {
    #[serde(flatten)]
    campaign: CampaignView,
    /// What an administrator set; `status` follows from it, the window and the counts.
    state: CampaignState,
    /// Raised by each change; in quotes it is the entity tag.
    revision: u32,
    /// Issued coupons, as MySQL counts them.
    issued: u32,
    /// Of the issued coupons, those that are revoked. Each freed a place.
    revoked: u32,
    /// Accepted claims that MySQL rejected.
    rejected: u32,
    /// Accepted claims, as Redis counts them; left out while Redis does not hold the campaign or cannot be reached.
    #[serde(skip_serializing_if = "Option::is_none")]
    claimed: Option<u32>,
}

impl AdminCampaign {
    pub fn new(campaign: Campaign, claimed: Option<u32>) -> Self {
        let Campaign { state, revision, issued, revoked, rejected, .. } = campaign;
        // Without Redis, the issued quantity is the best count there is.
        let campaign = CampaignView::new(campaign, claimed.unwrap_or(issued));
        Self { campaign, state, revision, issued, revoked, rejected, claimed }
    }

    /// The campaign with its count in Redis.
    pub async fn read(redis: &Redis, campaign: Campaign) -> Self {
        let counts = campaign_state::counts(redis, campaign.partition, campaign.id).await.ok().flatten();
        Self::new(campaign, counts.map(|counts| counts.claimed))
    }

    pub const fn view(&self) -> &CampaignView {
        &self.campaign
    }
}

/// A campaign with everything that is known of it.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CampaignDetail {
    #[serde(flatten)]
    campaign: AdminCampaign,
    /// Since when Redis decides claims by these terms; left out until it does.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "dibs_common::clock::serialize")]
    enforced_since: Option<DateTime<Utc>>,
    /// What Redis holds; left out while Redis does not hold the campaign or cannot be reached.
    #[serde(skip_serializing_if = "Option::is_none")]
    redis: Option<RedisCampaign>,
    /// The claim stream of the campaign's partition; left out while Redis cannot be reached.
    #[serde(skip_serializing_if = "Option::is_none")]
    backlog: Option<ClaimBacklog>,
}

/// What Redis holds of a campaign.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct RedisCampaign {
    /// Accepted claims.
    claimed: u32,
    /// The highest sequence of an accepted claim.
    sequence: u32,
    /// Accepted claims that are not issued: those on the way, unless something is lost.
    unconfirmed: u32,
    /// Terms in which Redis differs from MySQL. A worker restores them within seconds.
    different_terms: Vec<&'static str>,
}

/// Accepted claims that wait to be confirmed.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct ClaimBacklog {
    /// Entries on the stream, of up to 250 claims each, also of other campaigns of the partition.
    entries: u64,
    /// How long the oldest entry waits, in milliseconds; 0 when there is none.
    confirm_lag_millis: u64,
}

problems! { AdminProblems: 400 "VALIDATION_FAILED", 404 "COUPON_NOT_FOUND" }

/// Look at a campaign, with its counts
///
/// `ETag` is its revision, for `If-Match` of a change.
#[utoipa::path(
    get, path = "/admin/coupons/{couponId}", operation_id = "getCampaign", tag = "campaigns",
    responses((status = 200, description = "the campaign now", body = CampaignDetail, headers(("ETag"))), Problems),
)]
pub async fn campaign(app: SharedApp, _: Administrator, PathParams(coupon): PathParams<CouponId>) -> ApiResult {
    let campaign = db::found(db::campaigns::find(&app.database.pool(), coupon), Error::CouponNotFound(coupon)).await?;
    let held = campaign_state::compare(&app.redis, &campaign).await.ok().and_then(|held| shown(held, &campaign));
    let tag = entity_tag(campaign.revision);
    let detail = CampaignDetail {
        enforced_since: campaign.enforced_since,
        backlog: backlog(&app, &campaign).await.ok(),
        campaign: AdminCampaign::new(campaign, held.as_ref().map(|held| held.claimed)),
        redis: held,
    };
    Ok(([(header::ETAG, tag)], Json(detail)).into_response())
}

fn shown(held: HeldCampaign, campaign: &Campaign) -> Option<RedisCampaign> {
    let (claimed, sequence) = held.counts?;
    let unconfirmed = claimed.saturating_sub(campaign.issued);
    Some(RedisCampaign { claimed, sequence, unconfirmed, different_terms: held.different })
}

async fn backlog(app: &SharedApp, campaign: &Campaign) -> Result<ClaimBacklog> {
    let entries = streams::len::<ClaimEntry>(&app.redis, campaign.partition).await?;
    let oldest = ClaimStream::oldest(&app.redis, campaign.partition).await?;
    let lag = oldest.map_or(0, |oldest| (clock::now() - oldest).num_milliseconds());
    Ok(ClaimBacklog { entries, confirm_lag_millis: u64::try_from(lag).unwrap_or(0) })
}
