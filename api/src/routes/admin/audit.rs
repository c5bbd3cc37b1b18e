use std::time::Duration;

use dibs_common::{
    audit::{self, AuditPage, AuditSummary, Comparison},
    clock,
    domain::audit::{AuditPosition, ClaimDifference},
    identifiers::CouponId,
};
use tokio::time::Instant;

use crate::{app::App, routes::prelude::*};

/// How long one call compares. A page goes on where the time was over.
const COMPARED_FOR: Duration = Duration::from_millis(500);

/// A page of the comparison of a campaign in Redis with MySQL.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CampaignAudit {
    coupon_id: CouponId,
    #[serde(serialize_with = "clock::serialize")]
    audited_at: DateTime<Utc>,
    /// Terms and counts; only of the first page.
    #[serde(skip_serializing_if = "Option::is_none")]
    summary: Option<AuditSummary>,
    /// Claims of Redis and coupons of MySQL that this page compared.
    compared: u64,
    /// Claims of this page that are accepted and not issued yet. They are no differences.
    on_their_way: u64,
    /// Claims that differ, in the order of the comparison.
    items: Vec<ClaimDifference>,
    /// Asks for the next page; null on the last. A page may be empty and have a next one.
    #[schema(value_type = Option<String>, required)]
    next_cursor: Option<AuditPosition>,
}

problems! {
    AdminProblems: 400 "VALIDATION_FAILED", 404 "COUPON_NOT_FOUND",
    503 "DEPENDENCY_UNAVAILABLE, CAMPAIGN_UNAVAILABLE: Redis stopped holding the campaign between two pages"
}

/// Compare a campaign in Redis with MySQL
///
/// Terms, counts, and every claim: the issued coupons first, then what Redis holds. A call compares for up to half a
/// second, or until `limit` differences. `nextCursor` goes on.
#[utoipa::path(
    get, path = "/admin/coupons/{couponId}/audit", operation_id = "auditCampaign",
    tag = "campaigns", params(Page::<AuditPosition>),
    responses((status = 200, description = "the next page of differences", body = CampaignAudit), Problems),
)]
pub async fn audit(
    app: SharedApp,
    _: Administrator,
    PathParams(coupon): PathParams<CouponId>,
    ListParams { page, .. }: ListParams<NoFilter, AuditPosition>,
) -> JsonResult<CampaignAudit> {
    Ok(Json(compare(&app, coupon, page).await?))
}

async fn compare(app: &App, coupon: CouponId, page: Page<AuditPosition>) -> Result<CampaignAudit> {
    let (database, redis, audited_at) = (&app.database, &app.redis, clock::now());
    let campaign = db::found(db::campaigns::find(&database.pool(), coupon), Error::CouponNotFound(coupon)).await?;
    let comparison = Comparison::complete(database, redis, &campaign);
    let summary = match page.cursor {
        None => Some(Box::pin(audit::summarize(comparison)).await?),
        Some(_) => None,
    };
    let limit = page.limit() as usize;
    let is_held = match &summary {
        Some(summary) => summary.redis.is_some(),
        None => audit::is_held_now(redis, &campaign).await?,
    };
    if !is_held && summary.is_none() {
        // The rest of an audit would be of another state.
        return Err(Error::CampaignUnavailable(coupon));
    }
    // Where Redis does not hold the campaign there are no claims to compare: the summary says so.
    let start = is_held.then(|| page.cursor.unwrap_or(AuditPosition::START));
    let mut pages = AuditPage { next: start, ..AuditPage::default() };
    let until = Instant::now() + COMPARED_FOR;
    while let Some(position) = pages.next {
        let left = limit - pages.differences.len();
        pages.append(Box::pin(audit::compare_page(comparison, position, left)).await?);
        if pages.differences.len() >= limit || Instant::now() >= until {
            break;
        }
    }
    let AuditPage { differences: items, compared, on_their_way, next: next_cursor } = pages;
    Ok(CampaignAudit { coupon_id: coupon, audited_at, summary, compared, on_their_way, items, next_cursor })
}
