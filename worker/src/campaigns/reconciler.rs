use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use dibs_common::{
    audit::{self, MAX_CHECKED_ENTRIES},
    campaigns, clock,
    db::{self, Database},
    domain::{
        audit::{DifferenceKind, FieldDifference},
        campaign::Campaign,
        event::{Epoch, Position},
    },
    error::{Error, Result},
    identifiers::{CouponId, Partition},
    redis::{
        Redis,
        campaign_state::{self, HeldCampaign, RECONCILED_AFTER_END},
        streams::{self, ClaimEntry},
    },
};
use futures::future::join_all;
use metrics::counter;

use super::rebuild::{list_unanswered, rebuild, rebuild_missing};
use crate::{epoch, settings::Retention};

const PAGE_SIZE: u32 = 500;
/// Campaigns that are read from Redis at once, pipelined.
const PIPELINED: usize = 50;
/// Counts that have not changed for so long belong to a campaign whose claims are all confirmed, unless a worker is
/// late.
const UNCHANGED_FOR: Duration = Duration::from_secs(2);
/// After that a campaign is checked again whose claims without an outcome explained its count.
const RECHECK_AFTER: Duration = Duration::from_mins(1);
/// Campaigns whose claims without an outcome are counted in one round.
const CHECKS_PER_ROUND: usize = 10;

/// Compares campaigns with Redis, round after round. MySQL is right.
pub struct Reconciler {
    database: Database,
    redis: Redis,
    retention: Retention,
    unconfirmed: HashMap<CouponId, Unconfirmed>,
    /// The epoch in which campaigns that are long over were compared.
    compared_all: Option<Epoch>,
}

/// A campaign of which Redis has accepted more claims than are issued.
#[derive(Clone, Copy)]
struct Unconfirmed {
    counts: Counts,
    /// When the claims without an outcome are counted, unless the counts change.
    check_at: Instant,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Counts {
    claimed: u32,
    sequence: u32,
    issued: u32,
}

/// One round of a new [`Reconciler`].
pub async fn reconcile_all(database: &Database, redis: &Redis) -> Result<Vec<Partition>> {
    Reconciler::new(database.clone(), redis.clone(), Retention::DEFAULT).round().await
}

impl Reconciler {
    pub fn new(database: Database, redis: Redis, retention: Retention) -> Self {
        Self { database, redis, retention, unconfirmed: HashMap::new(), compared_all: None }
    }

    /// Compares every campaign that is not long over with Redis: restores its terms, and rebuilds it when its counts
    /// are wrong, or as of an epoch that is over. In the first round of an epoch, also campaigns that are long over:
    /// MySQL may have lost the outcome of their claims. Returns the partitions of the campaigns.
    pub async fn round(&mut self) -> Result<Vec<Partition>> {
        let Position { epoch, .. } = epoch::check(&self.database, &self.redis, Position::default()).await?;
        let now = clock::now();
        let (recent, mut is_complete) = (now - RECONCILED_AFTER_END, true);
        let since = if self.compared_all == Some(epoch) { recent } else { now - self.retention.ended_campaigns() };
        let (mut partitions, mut after, mut unconfirmed) = (Vec::new(), None, Vec::new());
        loop {
            let pool = &self.database.pool();
            let campaigns = db::within(db::campaigns::list_not_ended(pool, since, after, PAGE_SIZE)).await?;
            let Some(last) = campaigns.last() else { break };
            after = Some(last.id);
            for page in campaigns.chunks(PIPELINED) {
                let held = join_all(page.iter().map(|campaign| campaign_state::compare(&self.redis, campaign))).await;
                for (campaign, held) in page.iter().zip(held) {
                    let is_over = campaign.terms.closes_at <= recent;
                    let reconciled = match held {
                        // Redis need not hold it. What it holds must be of this epoch.
                        Ok(held) if is_over && (!held.exists || held.epoch >= campaign.epoch) => Ok(None),
                        Ok(held) => Box::pin(self.reconcile(campaign, &held)).await,
                        Err(error) => Err(error),
                    };
                    if !is_over {
                        partitions.push(campaign.partition);
                    }
                    match reconciled {
                        Ok(Some(counts)) => unconfirmed.push((campaign.clone(), counts)),
                        Ok(None) => {}
                        // It must not hold up the others.
                        Err(error) => {
                            is_complete = false;
                            reconciliation_failed(campaign, &error);
                        }
                    }
                }
            }
        }
        // After a failure the next round compares them all once more.
        self.compared_all = is_complete.then_some(epoch);
        Box::pin(self.check_unconfirmed(unconfirmed)).await;
        partitions.sort_unstable();
        partitions.dedup();
        Ok(partitions)
    }

    /// Restores the terms of a campaign, or rebuilds it when Redis has lost claims. Returns its counts when not all of
    /// its claims are issued.
    async fn reconcile(&self, campaign: &Campaign, held: &HeldCampaign) -> Result<Option<Counts>> {
        let (database, redis, issued) = (&self.database, &self.redis, campaign.issued);
        let Some((claimed, sequence)) = held.counts else {
            if issued > 0 || held.exists {
                report(campaign, "claimed");
            }
            // A part of it must go first, or the script would keep it.
            let rebuilt = if held.exists {
                rebuild(database, redis, campaign).await?
            } else {
                rebuild_missing(database, redis, campaign).await?
            };
            if rebuilt.is_some() && issued > 0 {
                self.name(campaign, vec![difference(DifferenceKind::CampaignMissing, "claimed", None, &issued)]).await;
            }
            return Ok(None);
        };
        if held.epoch > campaign.epoch {
            // The row was read before the epoch began.
            return Ok(None);
        }
        if held.epoch < campaign.epoch {
            report(campaign, "epoch");
            return rebuild(database, redis, campaign).await.map(|_| None);
        }
        // Redis counts a claim before it is issued, and MySQL was read first: lower numbers in Redis mean a loss.
        let lost = [("claimed", claimed, issued), ("sequence", sequence, issued + campaign.rejected)];
        if let Some((field, found, least)) = lost.into_iter().find(|(_, found, least)| found < least) {
            report(campaign, field);
            if rebuild(database, redis, campaign).await?.is_some() {
                let lost = difference(DifferenceKind::CountDiffers, field, Some(found), &least);
                self.name(campaign, vec![lost]).await;
            }
            return Ok(None);
        }
        for field in &held.different {
            report(campaign, field);
        }
        if !held.different.is_empty() || campaign.enforced_since.is_none() {
            // Before they are restored, while Redis still has the others.
            let terms = campaign_state::list_different_terms(redis, campaign).await?;
            campaigns::enforce(database, redis, campaign.id).await?;
            let terms = terms.into_iter().map(|term| FieldDifference {
                kind: DifferenceKind::TermDiffers,
                field: term.field.into(),
                found: term.found,
                expected: term.expected,
            });
            self.name(campaign, terms.collect()).await;
        }
        Ok((claimed > issued).then_some(Counts { claimed, sequence, issued }))
    }

    /// Reports what was restored, as an event. It is restored also when the event cannot be inserted.
    async fn name(&self, campaign: &Campaign, fields: Vec<FieldDifference>) {
        if fields.is_empty() {
            return;
        }
        if let Err(error) = audit::report_drift(&self.database, campaign.id, &fields, &[], clock::now()).await {
            tracing::warn!(coupon = %campaign.id, cause = error.chain(), "drift event not inserted");
        }
    }

    /// Rebuilds campaigns that count more claims than are issued and unconfirmed. In a burst some are always
    /// unconfirmed, so a campaign is checked when its counts no longer change.
    async fn check_unconfirmed(&mut self, campaigns: Vec<(Campaign, Counts)>) {
        let (before, now, mut checks) = (std::mem::take(&mut self.unconfirmed), Instant::now(), 0);
        for (campaign, counts) in campaigns {
            let unchanged = before.get(&campaign.id).copied().filter(|before| before.counts == counts);
            let mut state = unchanged.unwrap_or(Unconfirmed { counts, check_at: now + UNCHANGED_FOR });
            if state.check_at <= now && checks < CHECKS_PER_ROUND {
                checks += 1;
                state.check_at = now + RECHECK_AFTER;
                if let Err(error) = self.check_surplus(&campaign, counts).await {
                    reconciliation_failed(&campaign, &error);
                }
            }
            self.unconfirmed.insert(campaign.id, state);
        }
    }

    /// Rebuilds a campaign when Redis counts claims that are neither issued nor without an outcome.
    ///
    /// Each counted claim was on the stream when the counts were read, or had left it with an outcome, which MySQL
    /// shows when it is read after the stream. Only the slot of a rejected claim could be counted and return meanwhile:
    /// so the counts must be the same before and after.
    async fn check_surplus(&self, campaign: &Campaign, counts: Counts) -> Result<()> {
        let (database, redis) = (&self.database, &self.redis);
        if streams::len::<ClaimEntry>(redis, campaign.partition).await? > MAX_CHECKED_ENTRIES {
            return Ok(());
        }
        let unanswered = list_unanswered(database, redis, campaign).await?.len() as u64;
        let Some(now) = db::within(db::campaigns::find(&database.pool(), campaign.id)).await? else { return Ok(()) };
        let held = campaign_state::compare(redis, campaign).await?;
        // Otherwise the slot of a rejected claim may have returned meanwhile.
        let is_unchanged = held.counts == Some((counts.claimed, counts.sequence));
        if is_unchanged && u64::from(counts.claimed) > u64::from(now.issued) + unanswered {
            report(campaign, "claimed");
            if rebuild(database, redis, campaign).await?.is_some() {
                let most = u64::from(now.issued) + unanswered;
                let surplus = difference(DifferenceKind::CountDiffers, "claimed", Some(counts.claimed), &most);
                self.name(campaign, vec![surplus]).await;
            }
        }
        Ok(())
    }
}

fn difference(kind: DifferenceKind, field: &str, found: Option<u32>, expected: &impl ToString) -> FieldDifference {
    let found = found.map(|found| found.to_string());
    FieldDifference { kind, field: field.into(), found, expected: expected.to_string() }
}

fn reconciliation_failed(campaign: &Campaign, error: &Error) {
    tracing::warn!(coupon = %campaign.id, cause = error.chain(), "campaign reconciliation failed");
}

/// Reports a field of a campaign in which Redis differs from MySQL.
fn report(campaign: &Campaign, field: &'static str) {
    counter!("dibs_campaign_differences_total", "field" => field).increment(1);
    tracing::warn!(coupon = %campaign.id, field, issued = campaign.issued, "redis differs from mysql; restoring campaign");
}
