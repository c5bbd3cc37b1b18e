use std::process::ExitCode;

use chrono::{DateTime, Utc};
use dibs_common::{
    audit::{self as campaigns_audit, AuditPage, AuditSummary, Comparison},
    clock, db,
    domain::audit::{AuditPosition, ClaimDifference, FieldDifference},
    error::{Error, Result},
    identifiers::CouponId,
};
use serde::Serialize;

use super::{say, say_json};
use crate::{
    campaigns::{Drift, check_drift},
    settings::{Audit, DriftOptions, WorkerSettings},
};

/// The exit code of a comparison that found differences. 2 is that of wrong arguments.
const DIFFERENT: u8 = 3;

fn exit_code(differs: bool) -> ExitCode {
    if differs { ExitCode::from(DIFFERENT) } else { ExitCode::SUCCESS }
}

/// The result of `dibs-worker audit --json`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct AuditResult {
    coupon_id: CouponId,
    #[serde(serialize_with = "clock::serialize")]
    audited_at: DateTime<Utc>,
    summary: AuditSummary,
    compared: u64,
    on_their_way: u64,
    items: Vec<ClaimDifference>,
    /// Whether every claim was compared: `--limit` was not reached.
    is_complete: bool,
}

/// `dibs-worker audit`.
pub async fn audit(settings: &WorkerSettings, Audit { coupon, limit, json }: Audit) -> Result<ExitCode> {
    let (database, redis) = (settings.shared.database(1)?, settings.shared.redis(1).await?);
    let campaign = db::found(db::campaigns::find(&database.pool(), coupon), Error::CouponNotFound(coupon)).await?;
    let comparison = Comparison::complete(&database, &redis, &campaign);
    let summary = campaigns_audit::summarize(comparison).await?;
    let (limit, audited_at) = (limit as usize, clock::now());
    let start = summary.redis.as_ref().map(|_| AuditPosition::START);
    let mut pages = AuditPage { next: start, ..AuditPage::default() };
    while let Some(position) = pages.next.filter(|_| pages.differences.len() < limit) {
        let left = limit - pages.differences.len();
        pages.append(campaigns_audit::compare_page(comparison, position, left).await?);
    }
    let AuditPage { differences: items, compared, on_their_way, next } = pages;
    let is_complete = next.is_none();
    let audited = AuditResult { coupon_id: coupon, audited_at, summary, compared, on_their_way, items, is_complete };
    if json {
        say_json(&audited)?;
    } else {
        print(&audited.summary.differences, &audited.items);
        let AuditResult { compared, on_their_way, items, summary, is_complete, .. } = &audited;
        let differences = items.len() + summary.differences.len();
        let end = if *is_complete { "" } else { "; the limit was reached" };
        say(&format!(
            "coupon {coupon}: {compared} claims compared, {on_their_way} on their way, {differences} differences{end}"
        ));
    }
    Ok(exit_code(!audited.items.is_empty() || !audited.summary.differences.is_empty()))
}

/// A line of `dibs-worker drift --json`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CampaignDrift<'d> {
    coupon_id: CouponId,
    #[serde(flatten)]
    drift: &'d Drift,
}

/// `dibs-worker drift`.
pub async fn drift(settings: &WorkerSettings, DriftOptions { json }: DriftOptions) -> Result<ExitCode> {
    let (database, redis) = (settings.shared.database(1)?, settings.shared.redis(1).await?);
    let drifts = check_drift(&database, &redis).await?;
    for (coupon, drift) in &drifts {
        if json {
            say_json(&CampaignDrift { coupon_id: *coupon, drift })?;
        } else {
            say(&format!("coupon {coupon}"));
            print(&drift.fields, &drift.claims);
        }
    }
    if !json {
        say(&format!("{} campaigns differ", drifts.len()));
    }
    Ok(exit_code(!drifts.is_empty()))
}

/// A difference on each line, its fields between tabs.
fn print(fields: &[FieldDifference], claims: &[ClaimDifference]) {
    for FieldDifference { kind, field, found, expected } in fields {
        let found = found.as_deref().unwrap_or("nothing");
        say(&format!("{}\t{field}\tfound {found}\texpected {expected}", kind.into_str()));
    }
    for ClaimDifference { kind, user_id, claim_id, .. } in claims {
        let claim = claim_id.map_or_else(|| "-".into(), |claim| claim.to_string());
        say(&format!("{}\tuser {user_id}\tclaim {claim}", kind.into_str()));
    }
}
