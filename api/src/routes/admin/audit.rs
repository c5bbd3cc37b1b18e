use std::time::Duration;

use axum::{Json, extract::State};
use chrono::{DateTime, Utc};
use dibs_common::{
    audit::{self, AuditSummary, Comparison},
    clock, db,
    domain::audit::{AuditPosition, ClaimDifference},
    error::{Error, Result},
    identifiers::CouponId,
};
use serde::Serialize;
use tokio::time::Instant;
use utoipa::ToSchema;

use crate::{
    app::{App, SharedApp},
    extract::{Administrator, ListParams, NoFilter, Page, PathParams},
    problem::ApiError,
    routes::responses::problems,
};

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
    #[schema(value_type = Option<String>)]
    next_cursor: Option<AuditPosition>,
}

problems! {
    AdminProblems: 400 "VALIDATION_FAILED", 404 "COUPON_NOT_FOUND",
    503 "DEPENDENCY_UNAVAILABLE, CAMPAIGN_UNAVAILABLE: Redis stopped holding the campaign between two pages"
}

/// Compare a campaign in Redis with MySQL
///
/// Terms, counts, and every claim: the issued coupons first, then what Redis holds. A call compares for up to half a
/// second, or until `limit` differences; those of one user stay together. `nextCursor` goes on.
#[utoipa::path(
    get, path = "/admin/coupons/{couponId}/audit", tag = "administration",
    params(("couponId" = CouponId, Path), Page::<AuditPosition>),
    responses((status = 200, description = "the next page of differences", body = CampaignAudit), Problems),
)]
pub async fn audit(
    State(app): State<SharedApp>,
    _: Administrator,
    PathParams(coupon): PathParams<CouponId>,
    ListParams { page, .. }: ListParams<NoFilter, AuditPosition>,
) -> Result<Json<CampaignAudit>, ApiError> {
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
    let mut audit = CampaignAudit {
        coupon_id: coupon,
        audited_at,
        summary,
        compared: 0,
        on_their_way: 0,
        items: Vec::new(),
        next_cursor: Some(page.cursor.unwrap_or(AuditPosition::START)),
    };
    if !is_held {
        // The summary says so. In the middle, the rest of an audit would be of another state.
        audit.next_cursor = None;
        return if audit.summary.is_some() { Ok(audit) } else { Err(Error::CampaignUnavailable(coupon)) };
    }
    let until = Instant::now() + COMPARED_FOR;
    while let Some(position) = audit.next_cursor.take() {
        let left = limit - audit.items.len();
        let compared = Box::pin(audit::compare_page(comparison, position, left)).await?;
        audit.compared += compared.compared;
        audit.on_their_way += compared.on_their_way;
        audit.items.extend(compared.differences);
        audit.next_cursor = compared.next;
        if audit.items.len() >= limit || Instant::now() >= until {
            break;
        }
    }
    Ok(audit)
}
