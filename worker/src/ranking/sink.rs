use chrono_tz::Tz;
use dibs_common::{
    clock,
    db::{Database, Lease},
    domain::{
        event::OutboxEvent,
        ranking::{EVENTS, SalesChange, SoldOrder, sales_changes},
    },
    error::Result,
    redis::{MAX_CHANGES_PER_CALL, Redis, SalesBatch, SalesCounted, SalesCounter},
};

use super::rebuild_under_lease;
use crate::relay::{Batch, Sink};

/// Changes of one delivery, and those of one order more.
const MAX_CHANGES: usize = 5_000;
pub const RANKING: &str = "ranking";

/// Counts sales in Redis.
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
        // A new counter for each batch: for the outbox the position in Redis says all, and nothing is remembered here.
        let mut counter = SalesCounter::new(&self.redis, self.zone);
        counter.epoch = batch.epoch;
        let mut first = batch.first;
        for (changes, last) in self.parts(batch) {
            let sales = SalesBatch::Outbox { sequences: first..=last, changes: &changes };
            if let SalesCounted::Gap { applied } = counter.count(sales).await? {
                tracing::warn!(applied, next = first, "rebuilding sales counters");
                return rebuild_under_lease(&self.redis, lease, self.zone, clock::now()).await;
            }
            first = last + 1;
        }
        Ok(first - 1)
    }
}

impl RankingSink {
    /// The changes of events in parts for one call each, up to [`MAX_CHANGES`] in all, and the sequence up to which
    /// each part is complete. At least one part: an empty one shows that Redis has lost what it counted.
    fn parts(&self, batch: &Batch) -> Vec<(Vec<(u64, SalesChange)>, u64)> {
        let (mut parts, mut part, mut changes) = (Vec::new(), Vec::new(), 0);
        for event in &batch.events {
            let of_event = self.changes_of(event);
            changes += of_event.len();
            part.extend(of_event);
            let is_full = changes >= MAX_CHANGES;
            // Cut after a whole event: the script moves its position by events, and must have all changes of each.
            if is_full || part.len() >= MAX_CHANGES_PER_CALL {
                parts.push((std::mem::take(&mut part), event.sequence));
            }
            if is_full {
                return parts;
            }
        }
        parts.push((part, batch.last));
        parts
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
