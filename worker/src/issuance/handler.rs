use std::sync::Arc;

use dibs_common::{
    clock::{self, Timestamp},
    db::Database,
    domain::claim::{Claim, ClaimOutcome},
    error::Result,
    identifiers::{CouponId, Partition},
    live::{self, CampaignCounters},
    redis::{
        Redis,
        streams::{ClaimEntry, ClaimOutcomeMessage},
    },
    rejections::return_slots,
};
use metrics::{counter, histogram};

use super::confirm::{confirm, find_locked};
use crate::streams::{Handler, Limits, OutcomeMeters, publish_outcomes};

/// Confirms the claims of one partition.
pub struct ClaimHandler {
    database: Database,
    redis: Redis,
    partition: Partition,
    meters: OutcomeMeters,
}

impl ClaimHandler {
    pub fn new(database: &Database, redis: &Redis, partition: Partition) -> Self {
        let meters = OutcomeMeters {
            done: counter!("dibs_claims_confirmed_total", "outcome" => "issued"),
            rejected: counter!("dibs_claims_confirmed_total", "outcome" => "rejected"),
            batch_size: histogram!("dibs_confirm_batch_size"),
            lag: histogram!("dibs_confirm_lag_seconds"),
        };
        Self { database: database.clone(), redis: redis.clone(), partition, meters }
    }
}

impl Handler for ClaimHandler {
    type Entry = ClaimEntry;
    /// Of each claim of the entry, in order.
    type Outcome = Vec<ClaimOutcome>;

    // Two batches in flight: while one waits for its commit or leaves the stream, the next is in its transaction. A
    // thousand claims are 130 kB of text, and some 15 ms of MySQL.
    const LIMITS: Limits =
        Limits { read: 500, queued_reads: 1, entries: 500, load: 1_000, processing: 2, in_flight: 2 };

    // An entry has one campaign, and its claims need no other row that is shared.
    const KEYS_SHARE_ROWS: bool = false;

    /// The campaign: its row is what an entry waits for.
    fn key(entry: &ClaimEntry) -> u64 {
        entry.claims.first().map_or(0, |claim| claim.coupon.get())
    }

    async fn find_locked(&self, entries: &[&ClaimEntry]) -> Result<Vec<bool>> {
        let coupons = entries.iter().flat_map(|entry| &entry.claims).map(|claim| claim.coupon).collect();
        let locked = find_locked(&self.database, &coupons).await?;
        Ok(entries.iter().map(|entry| entry.claims.iter().any(|claim| locked.contains(&claim.coupon))).collect())
    }

    fn load(entry: &ClaimEntry) -> usize {
        entry.claims.len()
    }

    /// The rows come first. A quantity that went back to Redis for a claim without a durable rejection could be issued
    /// twice.
    async fn process(&self, entries: &[&ClaimEntry]) -> Result<Vec<Vec<ClaimOutcome>>> {
        let claims: Vec<Claim> = entries.iter().flat_map(|entry| entry.claims.iter().cloned()).collect();
        let outcomes = confirm(&self.database, &claims, clock::now()).await?.outcomes;
        return_slots(&self.database, &self.redis, self.partition, &claims, &outcomes).await?;
        let mut outcomes = outcomes.into_iter();
        Ok(entries.iter().map(|entry| outcomes.by_ref().take(entry.claims.len()).collect()).collect())
    }

    async fn publish(&self, entries: &[&ClaimEntry], outcomes: &[Vec<ClaimOutcome>]) {
        let mut messages = Vec::new();
        // Without a channel nothing waits: nearly all callers take 202 for an answer.
        for (entry, outcomes) in entries.iter().zip(outcomes).filter(|(entry, _)| !entry.reply_channel.is_empty()) {
            for (claim, outcome) in entry.claims.iter().zip(outcomes) {
                let message = ClaimOutcomeMessage { claim: claim.record.claim_id, outcome: *outcome };
                messages.push((entry.reply_channel.as_str(), message));
            }
        }
        publish_outcomes(&self.redis, messages, usize::MAX, |batch| Ok(ClaimOutcomeMessage::write_all(batch))).await;
    }

    fn measure(&self, entries: &[&ClaimEntry], outcomes: &[Vec<ClaimOutcome>], durable_at: Timestamp) {
        let (mut claims, mut issued) = (0_u32, 0_u32);
        // Entries of a campaign follow one another.
        let mut last: Option<(CouponId, Arc<CampaignCounters>)> = None;
        for (claim, outcome) in entries.iter().flat_map(|entry| &entry.claims).zip(outcomes.iter().flatten()) {
            self.meters.record_lag(claim.record.accepted_at, durable_at);
            claims += 1;
            if matches!(outcome, ClaimOutcome::Issued { .. }) {
                issued += 1;
                let known = last.take().filter(|(coupon, _)| *coupon == claim.coupon);
                let (_, counters) = last.insert(known.unwrap_or_else(|| (claim.coupon, live::campaign(claim.coupon))));
                counters.confirm(durable_at - claim.record.accepted_at);
            }
            trace(claim, *outcome);
        }
        self.meters.record_batch(claims, issued);
    }
}

/// The end of a request's trace, under its request id.
fn trace(claim: &Claim, outcome: ClaimOutcome) {
    // Hundreds of claims a batch: the id is formatted only when a log takes it.
    if tracing::enabled!(tracing::Level::DEBUG) {
        let claim_id = claim.record.claim_id.to_string();
        let request_id = if claim.request.is_empty() { &claim_id } else { &claim.request };
        let span = tracing::debug_span!("confirm", request_id, coupon = %claim.coupon, user = %claim.user);
        span.in_scope(|| tracing::debug!(?outcome, "claim has its outcome"));
    }
}
