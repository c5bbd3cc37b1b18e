//! One campaign: its terms, its counts in Redis and MySQL side by side, its claims, and who changed it.

use askama::Template;
use axum::response::Response;
use chrono::{DateTime, TimeDelta, Utc};
use dibs_common::{
    clock,
    db::{self, console::LatestClaim},
    error::{Error, Result},
    identifiers::CouponId,
    live::Series,
};
use serde::Deserialize;

use super::{
    actions::ActionItem,
    calls::Problem,
    campaigns::{CampaignFields, Listed},
    charts,
    forms::QueryFields,
    guard::{At, Visit},
    now::sparkline,
    page::{Failure, PageResult, Shell, render, render_with},
    snapshot::{LiveCampaign, read_campaign},
    words::Words,
};

/// Points of the curve of claims.
const CURVE_POINTS: usize = 48;
const LATEST_CLAIMS: u32 = 20;
const SHOWN_ACTIONS: u32 = 20;

/// What is asked before a change is made.
#[derive(Clone, Debug)]
pub struct DryRun {
    pub quantity: String,
    pub before: u64,
    pub after: u64,
    pub remaining_after: u64,
    /// The revision that the change is for: another change in between refuses it.
    pub revision: u32,
    pub reason: String,
}

#[derive(Template)]
#[template(path = "campaign.html")]
struct CampaignPage<'p> {
    s: &'p Shell,
    id: CouponId,
    live: String,
    terms: &'p CampaignFields,
    l: &'p LiveCampaign,
    curve: Option<Curve>,
    claims: &'p [LatestClaim],
    actions: &'p Listed<ActionItem>,
    dry_run: Option<DryRun>,
    rebuild: Option<String>,
}

/// The part that moves.
#[derive(Template)]
#[template(path = "campaign_live.html")]
struct CampaignLive<'p> {
    s: &'p Words,
    l: &'p LiveCampaign,
}

impl CampaignLive<'_> {
    fn bar(&self) -> String {
        charts::bar(self.l.remaining, self.l.capacity, "remaining")
    }

    fn sparkline(&self) -> String {
        sparkline(self.l)
    }
}

/// Accepted claims from the opening on.
struct Curve {
    svg: String,
    from: DateTime<Utc>,
    to: DateTime<Utc>,
    top: u64,
}

/// What a page shows beside the campaign itself.
#[derive(Default)]
pub struct Extra {
    pub problem: Option<Problem>,
    pub dry_run: Option<DryRun>,
    pub rebuild: Option<String>,
}

pub async fn show(visit: Visit, At(id): At<CouponId>, QueryFields(query): QueryFields) -> PageResult {
    let rebuild = query.given("rebuild").filter(|id| dibs_common::identifiers::parse_uuid(id).is_some());
    let extra = Extra { rebuild: rebuild.map(str::to_owned), ..Extra::default() };
    page(&visit, id, query.text("done"), extra).await
}

pub async fn page(visit: &Visit, id: CouponId, done: &str, extra: Extra) -> PageResult {
    let Extra { problem, dry_run, rebuild } = extra;
    let shell = visit.shell("campaigns").with_notice(done);
    let status = problem.as_ref().map_or(axum::http::StatusCode::OK, Problem::status);
    let fail = |problem: Problem| Failure(shell.clone(), problem);
    let live = read(visit, id).await.map_err(|error| fail(error.into()))?;
    let calls = visit.calls().map_err(fail)?;
    let actions = format!("/admin/actions?targetId={id}&limit={SHOWN_ACTIONS}");
    let actions: Listed<ActionItem> = calls.get(&actions).await.map_err(fail)?;
    let pool = &visit.console.app.database.pool();
    let before = live.campaign.terms.closes_at.min(visit.words.now) + TimeDelta::minutes(1);
    let claims = db::within(db::console::list_latest_claims(pool, id, before, LATEST_CLAIMS)).await;
    let claims = claims.unwrap_or_default();
    let curve = curve(visit, &live).await.unwrap_or_default();
    let moving = CampaignLive { s: &visit.words, l: &live }.render();
    let moving = moving.map_err(|error| fail(Error::internal(error).into()))?;
    let terms = live.campaign.terms.clone().into();
    let shell = shell.clone().with_problem(problem);
    Ok(render_with(
        status,
        &CampaignPage {
            s: &shell,
            id,
            live: moving,
            terms: &terms,
            l: &live,
            curve,
            claims: &claims,
            // Actions on what has the same number, such as a dead letter, are not of the campaign.
            actions: &actions.only(|action| action.action.starts_with("campaign.")),
            dry_run,
            rebuild,
        },
    ))
}

async fn read(visit: &Visit, id: CouponId) -> Result<LiveCampaign> {
    let app = &visit.console.app;
    let campaign = db::found(db::campaigns::find(&app.database.pool(), id), Error::CouponNotFound(id)).await?;
    let (live, _) = read_campaign(app.redis.clone(), campaign, Series::default(), clock::now()).await;
    Ok(live)
}

pub async fn live(visit: Visit, At(id): At<CouponId>) -> PageResult {
    match read(&visit, id).await {
        Ok(live) => Ok(render(&CampaignLive { s: &visit.words, l: &live })),
        Err(error) => Err(Failure(visit.shell("campaigns"), error.into())),
    }
}

/// None before the campaign opens.
async fn curve(visit: &Visit, live: &LiveCampaign) -> Result<Option<Curve>> {
    let (from, to) = (live.campaign.terms.opens_at, live.campaign.terms.closes_at.min(visit.words.now));
    if to <= from {
        return Ok(None);
    }
    let last = i32::try_from(CURVE_POINTS).unwrap_or(1) - 1;
    let moments: Vec<DateTime<Utc>> = (0..=last).map(|place| from + (to - from) * place / last).collect();
    let pool = &visit.console.app.database.pool();
    let read = db::within(db::console::list_curve(pool, live.campaign.id, &moments)).await?;
    let total = u64::from(live.claimed.unwrap_or(live.campaign.issued)) + u64::from(live.campaign.rejected);
    let values = cumulative(&read, total);
    let top = values.last().copied().unwrap_or_default();
    Ok(Some(Curve { svg: charts::lines(&[("accepted", values)]), from, to, top }))
}

/// The sequence of the first claim after a moment is one more than the claims before it. Where no claim follows, all were
/// before.
fn cumulative(read: &[Option<u64>], total: u64) -> Vec<u64> {
    let mut next = total;
    let mut values: Vec<u64> = read
        .iter()
        .rev()
        .map(|sequence| {
            next = sequence.map_or(next, |sequence| sequence.saturating_sub(1).min(next));
            next
        })
        .collect();
    values.reverse();
    if let Some(last) = values.last_mut() {
        *last = total;
    }
    values
}

/// A page of the comparison of Redis with MySQL.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Audit {
    summary: Option<Summary>,
    compared: u64,
    on_their_way: u64,
    #[serde(flatten)]
    listed: Listed<ClaimItem>,
}

#[derive(Clone, Debug, Deserialize)]
struct Summary {
    #[serde(default)]
    differences: Vec<FieldItem>,
}

#[derive(Clone, Debug, Deserialize)]
struct FieldItem {
    kind: String,
    field: String,
    found: Option<String>,
    expected: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ClaimItem {
    kind: String,
    user_id: u64,
    claim_id: Option<String>,
}

#[derive(Template)]
#[template(path = "audit.html")]
struct AuditPart<'p> {
    s: &'p Words,
    id: CouponId,
    audit: &'p Audit,
    next: Option<String>,
}

/// The next half second of the comparison, as a part of the page.
pub async fn audit(visit: Visit, At(id): At<CouponId>, QueryFields(query): QueryFields) -> Response {
    let path = format!("/admin/coupons/{id}/audit?{}", query.query(&["cursor"]));
    let read = match visit.calls() {
        Ok(calls) => calls.get::<Audit>(&path).await,
        Err(problem) => Err(problem),
    };
    match read {
        Ok(audit) => render(&AuditPart { s: &visit.words, id, next: audit.listed.next(""), audit: &audit }),
        Err(problem) => super::page::problem_part(&visit.words, &problem),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_never_falls_and_ends_with_all_claims() {
        assert_eq!(cumulative(&[Some(1), Some(11), None, Some(51), None], 60), [0, 10, 50, 50, 60]);
        assert_eq!(cumulative(&[None, None], 0), [0, 0]);
        // A claim that is read out of order does not raise what was before it.
        assert_eq!(cumulative(&[Some(30), Some(11), None], 20), [10, 10, 20]);
    }
}
