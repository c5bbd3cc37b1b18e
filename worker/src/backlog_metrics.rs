//! The gauges of what waits in MySQL and on the streams.
//!
//! Every worker could read these numbers, and `sum()` over all workers would be a multiple of the truth. So the holder
//! of a lease exports them, and all others export 0. Not NaN, which makes a sum NaN; and not nothing, as the recorder
//! cannot remove the gauge of a process that loses the lease. They do not depend on who serves a sink: a sink that no
//! process serves is just the one to be seen.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use chrono::TimeDelta;
use dibs_common::{
    clock::{self, Timestamp},
    db::{self, Database, HeldLease, Lease, outbox::SinkBacklog},
    domain::dead_letter::{CLAIMS, COMMANDS},
    error::Result,
    identifiers::Partition,
    integrations::messages::Receiver,
    metric_table::label,
    redis::{
        Redis,
        streams::{self, ClaimEntry, OrderEntry},
    },
    retry,
};
use metrics::{Gauge, gauge};
use tokio_util::sync::CancellationToken;

const EXPORT_INTERVAL: Duration = Duration::from_secs(5);
/// Assignments are few; more than this are not counted.
const MAX_ASSIGNMENTS: u32 = 1_000;

/// Exports the gauges while this process holds the lease, until it stops. Streams are those of partitions 0 to
/// `partitions`
/// - 1, and of any other that a campaign lives in.
pub(crate) async fn export_backlog(database: Database, redis: Redis, partitions: u16, stopping: CancellationToken) {
    let mut exporter = Exporter { redis, partitions, exported: Vec::new(), streams: Vec::new() };
    let mut lease = HeldLease::new(&database, "backlog metrics");
    let mut rounds = retry::every(EXPORT_INTERVAL, &stopping);
    while rounds.next().await {
        let is_exported = exporter.step(&database, &mut lease).await.unwrap_or_else(|error| {
            tracing::debug!(cause = error.chain(), "backlog not exported");
            false
        });
        if !is_exported {
            exporter.clear();
        }
    }
    exporter.clear();
    lease.release().await;
}

struct Exporter {
    redis: Redis,
    partitions: u16,
    /// The gauges that this process has exported from MySQL.
    exported: Vec<Gauge>,
    /// Those from Redis.
    streams: Vec<Gauge>,
}

impl Exporter {
    /// Exports all gauges under the lease; false when another process holds it.
    async fn step(&mut self, database: &Database, held: &mut HeldLease) -> Result<bool> {
        let exported = held.round(async |lease| self.export(database, lease).await).await?;
        Ok(exported.is_some())
    }

    async fn export(&mut self, database: &Database, lease: &Lease) -> Result<()> {
        let (pool, now) = (&database.pool(), clock::now());
        self.exported.clear();
        let mut reader = lease.reader().await?;
        let mut sources = db::within(db::dead_letters::list_sources(&mut reader)).await?;
        // Exported from the beginning, so that an alert sees the first letter as a change.
        sources.extend([CLAIMS, COMMANDS].map(str::to_owned));
        sources.sort_unstable();
        sources.dedup();
        for source in sources {
            let count = db::within(db::dead_letters::count(&mut reader, &source)).await?;
            self.set(gauge!("dibs_dead_letters", "source" => label(&source)), count);
        }
        let pending = db::within(db::charges::count_pending(pool)).await?;
        self.set(gauge!("dibs_charges_pending"), pending.unsigned_abs());
        let pending = db::within(db::assignments::list_pending(pool, MAX_ASSIGNMENTS)).await?;
        self.set(gauge!("dibs_assignments_pending"), pending.len() as u64);
        let queued: HashMap<String, i64> =
            db::within(db::retry_queue::count_by_sink(pool)).await?.into_iter().collect();
        for sink in Receiver::ALL.map(Receiver::name) {
            let messages = queued.get(sink).copied().unwrap_or(0);
            self.set(gauge!("dibs_webhook_retry_queue_messages", "sink" => label(sink)), messages.unsigned_abs());
        }
        let backlog = db::within(db::outbox::find_backlog(pool)).await?;
        self.set_age(gauge!("dibs_outbox_unsequenced_age_seconds"), backlog.unsequenced_since, now);
        for SinkBacklog { sink, events, waiting_since } in backlog.sinks {
            self.set(gauge!("dibs_outbox_backlog_events", "sink" => label(&sink)), events);
            self.set_age(gauge!("dibs_outbox_lag_seconds", "sink" => label(&sink)), waiting_since, now);
        }
        let in_use = db::within(db::campaigns::list_partitions(pool)).await?;
        // Without Redis the lease and the other gauges stay: those of streams keep their last values.
        if let Err(error) = self.export_streams(in_use).await {
            tracing::debug!(cause = error.chain(), "backlog of streams not exported");
        }
        Ok(())
    }

    async fn export_streams(&mut self, in_use: Vec<Partition>) -> Result<()> {
        let own = (0..self.partitions).map(Partition);
        let of_claims: BTreeSet<Partition> = own.clone().chain(in_use).collect();
        let mut lengths = Vec::new();
        for partition in of_claims {
            let gauge = gauge!("dibs_claim_backlog_entries", "partition" => partition.0.to_string());
            lengths.push((gauge, streams::len::<ClaimEntry>(&self.redis, partition).await?));
        }
        for partition in own {
            let gauge = gauge!("dibs_command_backlog_entries", "partition" => partition.0.to_string());
            lengths.push((gauge, streams::len::<OrderEntry>(&self.redis, partition).await?));
        }
        self.streams = lengths.into_iter().map(|(gauge, length)| set(gauge, length)).collect();
        Ok(())
    }

    fn set(&mut self, gauge: Gauge, count: u64) {
        self.exported.push(set(gauge, count));
    }

    fn set_age(&mut self, gauge: Gauge, since: Option<Timestamp>, now: Timestamp) {
        let age = since.map_or(TimeDelta::zero(), |since| now - since);
        gauge.set(age.as_seconds_f64().max(0.0));
        self.exported.push(gauge);
    }

    fn clear(&mut self) {
        self.exported.drain(..).chain(self.streams.drain(..)).for_each(|gauge| gauge.set(0.0));
    }
}

#[expect(clippy::cast_precision_loss, reason = "a gauge may be off by one above 2^53")]
fn set(gauge: Gauge, count: u64) -> Gauge {
    gauge.set(count as f64);
    gauge
}
