use dibs_common::{
    clock::TimeRange, db::campaigns::CampaignsFilter, domain::campaign::CampaignStatus, identifiers::CouponId, json,
};
use futures::future::join_all;

use super::campaign::AdminCampaign;
use crate::routes::prelude::*;

/// Pages of campaigns that are read for one page of a status. A longer search goes on at `nextCursor`.
const MAX_PAGES_READ: usize = 10;

/// Which campaigns.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct CampaignsQuery {
    /// Only those of this status now. A page may then have fewer items than `limit` and still a `nextCursor`.
    status: Option<CampaignStatus>,
    /// Only those whose name contains it.
    #[param(max_length = 100)]
    name: Option<String>,
    /// Only those that open at that time or later.
    #[serde(default, deserialize_with = "json::optional_time")]
    opens_from: Option<DateTime<Utc>>,
    /// Only those that open before that time.
    #[serde(default, deserialize_with = "json::optional_time")]
    opens_until: Option<DateTime<Utc>>,
    /// Only those that close at that time or later.
    #[serde(default, deserialize_with = "json::optional_time")]
    closes_from: Option<DateTime<Utc>>,
    /// Only those that close before that time.
    #[serde(default, deserialize_with = "json::optional_time")]
    closes_until: Option<DateTime<Utc>>,
}

problems! { AdminProblems: 400 "VALIDATION_FAILED" }

/// List campaigns
#[utoipa::path(
    get, path = "/admin/coupons", operation_id = "listCampaigns",
    tag = "campaigns", params(CampaignsQuery, Page::<CouponId>),
    responses((status = 200, description = "the newest first", body = List<AdminCampaign, CouponId>), Problems),
)]
pub async fn campaigns(
    app: SharedApp,
    _: Administrator,
    ListParams { filter, page }: ListParams<CampaignsQuery, CouponId>,
) -> JsonResult<List<AdminCampaign, CouponId>> {
    let status = filter.status;
    let mut wanted = CampaignsFilter {
        name: filter.name,
        opens: TimeRange { from: filter.opens_from, until: filter.opens_until },
        closes: TimeRange { from: filter.closes_from, until: filter.closes_until },
        before: page.cursor,
        limit: page.rows(),
    };
    let mut found = Vec::new();
    // The status follows from the clock and from Redis, so MySQL cannot filter by it. Without a bound a rare status
    // would read every campaign for one page.
    for _ in 0..MAX_PAGES_READ {
        let campaigns = db::within(db::campaigns::list(&app.database.pool(), &wanted)).await?;
        let is_last = campaigns.len() < wanted.limit as usize;
        wanted.before = campaigns.last().map(|campaign| campaign.id);
        // One round trip: the calls are pipelined.
        let read = campaigns.into_iter().map(|campaign| AdminCampaign::read(&app.redis, campaign));
        let read = join_all(read).await;
        found
            .extend(read.into_iter().filter(|campaign| status.is_none_or(|status| campaign.view().status() == status)));
        if is_last || found.len() >= wanted.limit as usize {
            return Ok(page.list(found, |campaign| campaign.view().id()));
        }
    }
    Ok(page.list_until(found, wanted.before))
}
