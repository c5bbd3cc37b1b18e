mod named;

use std::{
    collections::{HashSet, VecDeque},
    time::Duration,
};

use chrono::TimeDelta;
use dibs_common::{
    audit::{self, AuditPage, Comparison},
    clock::{self, Timestamp},
    db::{self, Database, HeldLease, Lease},
    domain::{
        audit::{AuditPosition, ClaimDifference, FieldDifference},
        campaign::Campaign,
    },
    error::{Error, Result},
    identifiers::CouponId,
    live,
    redis::{Redis, campaign_state::RECONCILED_AFTER_END, claim_records},
    retry,
};
use metrics::gauge;
pub use named::Drift;
use named::NamedDrifts;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

const LEASE: &str = "drift check";
const ROUND_INTERVAL: Duration = Duration::from_secs(5);
const CAMPAIGNS_PER_PAGE: u32 = 500;
/// Suspects are read once more so much later: a change of terms leaves MySQL before Redis.
const CONFIRMED_AFTER: Duration = Duration::from_secs(2);
/// Differences of a campaign that one round keeps.
const MAX_DIFFERENCES: usize = 1_000;
/// How long after its acceptance a claim counts as on its way to its coupon.
const SETTLED_AFTER: TimeDelta = TimeDelta::seconds(10);
/// With more entries on the stream of a partition, the check waits for the workers.
const MAX_ENTRIES: u64 = 500;
/// Campaigns that wait to be confirmed at once.
const MAX_SUSPECTED: usize = 100;

/// Compares the campaigns that are not long over with Redis, round after round, and names each difference once. One
/// process does so at a time.
///
/// It compares at most `claims_per_second`, so a round takes as many seconds as there are claims for each of that
/// rate, and at least 5.
pub(crate) async fn run(database: Database, redis: Redis, claims_per_second: u32, stopping: CancellationToken) {
    let mut named = NamedDrifts::new(database.clone());
    let check = DriftCheck { database: database.clone(), redis, claims_per_second };
    let mut lease = HeldLease::new(&database, LEASE);
    let mut rounds = retry::every(ROUND_INTERVAL, &stopping);
    while rounds.next().await {
        let checked = tokio::select! {
            // A round takes as long as there are claims, and a stop does not wait for it.
            checked = check.round_under(&mut lease, &mut named) => checked,
            () = stopping.cancelled() => break,
        };
        match checked {
            Ok(true) => {}
            // Only the holder exports: a sum over all workers is then the truth.
            Ok(false) => forget(&mut named),
            Err(error) => tracing::warn!(cause = error.chain(), "drift check failed; retrying"),
        }
    }
    forget(&mut named);
    lease.release().await;
}

fn forget(named: &mut NamedDrifts) {
    named.forget();
    gauge!("dibs_drift_check_duration_seconds").set(0.0);
}

/// Compares every campaign that is not long over once, as fast as it can, and changes nothing. Returns those that
/// differ.
pub async fn check_drift(database: &Database, redis: &Redis) -> Result<Vec<(CouponId, Drift)>> {
    let check = DriftCheck { database: database.clone(), redis: redis.clone(), claims_per_second: u32::MAX };
    let (mut round, mut drifts) = (Round::begin(), Vec::new());
    while let Some((coupon, drift)) = Box::pin(check.next(&mut round, None)).await? {
        if !drift.is_none() {
            drifts.push((coupon, drift));
        }
    }
    match round.failed {
        Some(error) => Err(error),
        None => Ok(drifts),
    }
}

struct DriftCheck {
    database: Database,
    redis: Redis,
    claims_per_second: u32,
}

/// How far a comparison of all campaigns is.
struct Round {
    /// Campaigns whose window ended later.
    since: Timestamp,
    last: Option<CouponId>,
    listed: VecDeque<Campaign>,
    suspected: VecDeque<Suspected>,
    /// Why a campaign could not be compared. It does not hold up the others.
    failed: Option<Error>,
}

impl Round {
    fn begin() -> Self {
        Self {
            since: clock::now() - RECONCILED_AFTER_END,
            last: None,
            listed: VecDeque::new(),
            suspected: VecDeque::new(),
            failed: None,
        }
    }

    fn is_due(&self) -> bool {
        let is_due = |first: &Suspected| first.confirmed_at <= Instant::now();
        self.suspected.len() >= MAX_SUSPECTED || self.suspected.front().is_some_and(is_due)
    }

    fn fail(&mut self, error: Error) {
        tracing::warn!(cause = error.chain(), "campaign not compared; the next round does");
        self.failed = Some(error);
    }
}

/// A campaign that seems to differ.
struct Suspected {
    campaign: Campaign,
    fields: Vec<FieldDifference>,
    claims: Vec<ClaimDifference>,
    confirmed_at: Instant,
}

impl Suspected {
    fn is_none(&self) -> bool {
        self.fields.is_empty() && self.claims.is_empty()
    }
}

impl DriftCheck {
    /// False when another process holds the lease.
    async fn round_under(&self, held: &mut HeldLease, named: &mut NamedDrifts) -> Result<bool> {
        let checked = held.round(async |lease| self.round(lease, named).await).await?;
        Ok(checked.is_some())
    }

    async fn round(&self, lease: &Lease, named: &mut NamedDrifts) -> Result<()> {
        let (began, mut round) = (Instant::now(), Round::begin());
        let mut compared: HashSet<CouponId> = HashSet::new();
        while let Some((coupon, drift)) = Box::pin(self.next(&mut round, Some(lease))).await? {
            compared.insert(coupon);
            // For the console only: the check itself does not need it.
            let noted = live::note_drift(&self.redis, coupon, (&drift.fields, &drift.claims), clock::now()).await;
            if let Err(error) = noted {
                tracing::debug!(cause = error.chain(), "drift not noted");
            }
            named.name(coupon, drift).await?;
            named.export();
        }
        // A campaign that was not compared may still differ.
        if round.failed.is_none() {
            named.retain(&compared);
        }
        named.export();
        gauge!("dibs_drift_check_duration_seconds").set(began.elapsed().as_secs_f64());
        Ok(())
    }

    /// The next campaign of a round, and how it differs; none at the end.
    async fn next(&self, round: &mut Round, lease: Option<&Lease>) -> Result<Option<(CouponId, Drift)>> {
        loop {
            if let Some(lease) = lease {
                lease.ensure_held()?;
            }
            // Suspects wait while other campaigns are compared.
            if !round.is_due()
                && let Some(campaign) = self.next_campaign(round).await?
            {
                match Box::pin(self.suspect(campaign, lease)).await {
                    Ok(same) if same.is_none() => return Ok(Some((same.campaign.id, Drift::default()))),
                    Ok(suspected) => round.suspected.push_back(suspected),
                    Err(error) => round.fail(error),
                }
            } else if let Some(suspected) = round.suspected.pop_front() {
                sleep_until(suspected.confirmed_at).await;
                match Box::pin(self.confirm(suspected)).await {
                    Ok(confirmed) => return Ok(Some(confirmed)),
                    Err(error) => round.fail(error),
                }
            } else {
                return Ok(None);
            }
        }
    }

    async fn next_campaign(&self, round: &mut Round) -> Result<Option<Campaign>> {
        if round.listed.is_empty() {
            let pool = &self.database.pool();
            let listing = db::campaigns::list_not_ended(pool, round.since, round.last, CAMPAIGNS_PER_PAGE);
            round.listed = db::within(listing).await?.into();
            round.last = round.listed.back().map(|campaign| campaign.id).or(round.last);
        }
        Ok(round.listed.pop_front())
    }

    /// In a burst the stream is long: it is not read for each page, and what was just accepted is on its way.
    fn comparison<'c>(&'c self, campaign: &'c Campaign) -> Comparison<'c> {
        let settled_before = Some(clock::now() - SETTLED_AFTER);
        let max_entries = MAX_ENTRIES;
        Comparison { database: &self.database, redis: &self.redis, campaign, settled_before, max_entries }
    }

    /// Compares a campaign, once.
    async fn suspect(&self, campaign: Campaign, lease: Option<&Lease>) -> Result<Suspected> {
        let comparison = self.comparison(&campaign);
        let summary = audit::summarize(comparison).await?;
        let (fields, mut claims) = (summary.differences, Vec::new());
        // Otherwise the reconciliation rebuilds it. Meanwhile it has no claims to compare.
        let mut position = summary.redis.map(|_| AuditPosition::START);
        let mut found = 0;
        while let Some(at) = position.filter(|_| claims.len() < MAX_DIFFERENCES) {
            let began = Instant::now();
            if let Some(lease) = lease {
                lease.ensure_held()?;
            }
            let left = MAX_DIFFERENCES - claims.len();
            let AuditPage { differences, compared, next, .. } = audit::compare_page(comparison, at, left).await?;
            if matches!(at, AuditPosition::Issued(_)) {
                found += compared - differences.len() as u64;
            }
            claims.extend(differences);
            let is_turn = matches!((at, next), (AuditPosition::Issued(_), Some(AuditPosition::Held { .. })));
            position = if is_turn && self.holds_only(&campaign, found).await? { None } else { next };
            self.throttle(began, compared).await;
        }
        Ok(Suspected { campaign, fields, claims, confirmed_at: Instant::now() + CONFIRMED_AFTER })
    }

    /// Compares again what differed.
    async fn confirm(&self, suspected: Suspected) -> Result<(CouponId, Drift)> {
        let Suspected { campaign, mut fields, claims, .. } = suspected;
        let Some(campaign) = db::within(db::campaigns::find(&self.database.pool(), campaign.id)).await? else {
            return Ok((campaign.id, Drift::default()));
        };
        if !fields.is_empty() {
            let again = audit::summarize(self.comparison(&campaign)).await?.differences;
            let before = std::mem::replace(&mut fields, again);
            // Counts move while claims come in: only a field that differs both times counts.
            fields.retain(|field| before.iter().any(|before| before.field == field.field));
        }
        let (claims, _) = audit::confirm(self.comparison(&campaign), claims).await?;
        Ok((campaign.id, Drift { fields, claims }))
    }

    /// Whether Redis has nothing but the coupons that were just found in it: then the second pass is not needed.
    async fn holds_only(&self, campaign: &Campaign, found: u64) -> Result<bool> {
        let holders = claim_records::count_holders(&self.redis, campaign.partition, campaign.id).await?;
        // A user of several coupons is one holder.
        Ok(campaign.terms.per_user_limit == 1 && holders == found)
    }

    async fn throttle(&self, began: Instant, compared: u64) {
        #[expect(clippy::cast_precision_loss, reason = "a page has some thousand claims")]
        let takes = Duration::from_secs_f64(compared as f64 / f64::from(self.claims_per_second));
        sleep_until(began + takes).await;
    }
}
