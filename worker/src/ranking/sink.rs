use chrono_tz::Tz;
use dibs_common::{
    clock,
    db::{Database, Lease},
    domain::{
        event::OutboxEvent,
        ranking::{EVENTS, SalesChange, SoldOrder, sales_changes},
    },
    error::Result,
    redis::{Redis, SalesBatch, SalesCounted, SalesCounter},
};

use super::{rebuild_under_lease, warm};
use crate::relay::{Batch, Sink};

/// Changes of one script call, and those of one order more: Redis serves no other client meanwhile.
const MAX_CHANGES: usize = 5_000;
pub const RANKING: &str = "ranking";

/// Counts the sales of each day in Redis.
#[derive(Clone)]
pub struct RankingSink {
    pub database: Database,
    pub redis: Redis,
    /// Where a business day begins.
    pub zone: Tz,
}

impl Sink for RankingSink {
    fn name(&self) -> &'static str {
        RANKING
    }

    fn kinds(&self) -> &'static [&'static str] {
        &EVENTS
    }

    async fn deliver(&mut self, batch: &Batch, lease: &mut Lease) -> Result<u64> {
        let (changes, last) = self.changes(batch);
        let sales = SalesBatch::Outbox { sequences: batch.first..=last, changes: &changes };
        // A new counter for each batch: for the outbox the position in Redis says all, and nothing is remembered here.
        let mut counter = SalesCounter::new(&self.redis, self.zone);
        counter.epoch = batch.epoch;
        match counter.count(sales).await? {
            SalesCounted::Counted => Ok(last),
            SalesCounted::Gap { applied } => {
                tracing::warn!(applied, next = batch.first, "rebuilding sales counters");
                let now = clock::now();
                let sequence = rebuild_under_lease(&self.redis, lease, self.zone, now).await?;
                warm(&self.redis, self.zone, now).await?;
                Ok(sequence)
            }
        }
    }
}

impl RankingSink {
    /// The changes of events, up to [`MAX_CHANGES`], and the sequence up to which they are complete.
    fn changes(&self, batch: &Batch) -> (Vec<(u64, SalesChange)>, u64) {
        let mut changes = Vec::new();
        for event in &batch.events {
            changes.extend(self.changes_of(event));
            // Cut after a whole event: the script moves its position by events, and must have all changes of each.
            if changes.len() >= MAX_CHANGES {
                return (changes, event.sequence);
            }
        }
        (changes, batch.last)
    }

    fn changes_of(&self, event: &OutboxEvent) -> Vec<(u64, SalesChange)> {
        match serde_json::from_str::<SoldOrder>(&event.payload) {
            Ok(order) => {
                sales_changes(&event.kind, &order, self.zone).into_iter().map(|e| (event.sequence, e)).collect()
            }
            Err(error) => {
                // Dibs writes the payload itself, so this is a defect, which must not hold up the events behind it.
                tracing::error!(sink = RANKING, sequence = event.sequence, %error, "event cannot be decoded; skipped");
                metrics::counter!("dibs_relay_undecodable_events_total", "sink" => RANKING).increment(1);
                Vec::new()
            }
        }
    }
}
