//! The gauges of what waits in MySQL.
//!
//! Every worker could read these numbers, and `sum()` over all workers would be a multiple of the truth. So the holder of
//! a lease exports them, and all others export 0. Not NaN, which makes a sum NaN; and not nothing, as the recorder cannot
//! remove the gauge of a process that loses the lease. They do not depend on who serves a sink: a sink that no process
//! serves is just the one to be seen.

use std::{collections::HashMap, time::Duration};

use chrono::TimeDelta;
use dibs_common::{
    clock::{self, Timestamp},
    db::{self, Database, Lease, outbox::SinkBacklog},
    domain::dead_letter::{CLAIMS, COMMANDS},
    error::Result,
    integrations::messages::Receiver,
    retry,
};
use metrics::{Gauge, gauge};
use tokio_util::sync::CancellationToken;

const EXPORT_INTERVAL: Duration = Duration::from_secs(5);
/// Assignments are few; more than this are not counted.
const ASSIGNMENTS_MAX: u32 = 1_000;

/// Exports the gauges while this process holds the lease, until it stops.
pub(crate) async fn export_backlog(database: Database, stopping: CancellationToken) {
    let (mut exporter, mut lease) = (Exporter::default(), None);
    let mut rounds = retry::every(EXPORT_INTERVAL, &stopping);
    while rounds.next().await {
        lease = match exporter.step(&database, lease.take()).await {
            Ok(lease) => lease,
            Err(error) => {
                tracing::debug!(cause = error.chain(), "backlog not exported");
                None
            }
        };
        if lease.is_none() {
            exporter.clear();
        }
    }
    exporter.clear();
    if let Some(lease) = lease
        && let Err(error) = lease.release().await
    {
        tracing::debug!(cause = error.chain(), "lease lost before its release");
    }
}

/// The gauges that this process has exported.
#[derive(Default)]
struct Exporter {
    exported: Vec<Gauge>,
}

impl Exporter {
    /// Exports all gauges under the lease; none when another process holds it.
    async fn step(&mut self, database: &Database, lease: Option<Lease>) -> Result<Option<Lease>> {
        let lease = match lease {
            Some(lease) => Some(lease),
            None => database.try_lease("backlog metrics").await?,
        };
        let Some(mut lease) = lease else { return Ok(None) };
        let pool = &database.pool();
        let (pool, now) = (pool, clock::now());
        self.exported.clear();
        // On the lease's connection, so that a process that has lost the lease notices.
        let mut sources = db::within(db::dead_letters::list_sources(lease.connection())).await?;
        // Exported from the beginning, so that an alert sees the first letter as a change.
        sources.extend([CLAIMS, COMMANDS].map(str::to_owned));
        sources.sort_unstable();
        sources.dedup();
        for source in sources {
            let count = db::within(db::dead_letters::count(lease.connection(), &source)).await?;
            self.set(gauge!("dibs_dead_letters", "source" => source), count);
        }
        let pending = db::within(db::charges::count_pending(pool)).await?;
        self.set(gauge!("dibs_charges_pending"), pending.unsigned_abs());
        let pending = db::within(db::assignments::list_pending(pool, ASSIGNMENTS_MAX)).await?;
        self.set(gauge!("dibs_assignments_pending"), pending.len() as u64);
        let queued: HashMap<String, i64> =
            db::within(db::retry_queue::count_by_sink(pool)).await?.into_iter().collect();
        for sink in Receiver::ALL.map(Receiver::name) {
            let messages = queued.get(sink).copied().unwrap_or(0);
            self.set(gauge!("dibs_webhook_retry_queue_messages", "sink" => sink), messages.unsigned_abs());
        }
        let backlog = db::within(db::outbox::find_backlog(pool)).await?;
        self.set_age(gauge!("dibs_outbox_unsequenced_age_seconds"), backlog.unsequenced_since, now);
        for SinkBacklog { sink, events, waiting_since } in backlog.sinks {
            self.set(gauge!("dibs_outbox_backlog_events", "sink" => sink.clone()), events);
            self.set_age(gauge!("dibs_outbox_lag_seconds", "sink" => sink), waiting_since, now);
        }
        Ok(Some(lease))
    }

    #[expect(clippy::cast_precision_loss, reason = "a gauge may be off by one above 2^53")]
    fn set(&mut self, gauge: Gauge, count: u64) {
        gauge.set(count as f64);
        self.exported.push(gauge);
    }

    fn set_age(&mut self, gauge: Gauge, since: Option<Timestamp>, now: Timestamp) {
        let age = since.map_or(TimeDelta::zero(), |since| now - since);
        gauge.set(age.as_seconds_f64().max(0.0));
        self.exported.push(gauge);
    }

    fn clear(&mut self) {
        self.exported.drain(..).for_each(|gauge| gauge.set(0.0));
    }
}
