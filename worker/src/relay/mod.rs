//! The outbox relay: delivers events from `outbox_events` to each sink, in order, at least once.
//!
//! Every worker sequences events and is on standby for every sink. The holder of a sink's lease serves it. It advances
//! the sink after the sink has accepted events, in a transaction of the lease: a process that has lost the lease without
//! noticing cannot advance it. What was accepted by then is delivered again. Each sink has a relay of its
//! own, so a sink that fails holds up no other.

mod batch;
mod sequencing;

use std::{future::Future, time::Duration};

pub use batch::Batch;
use chrono::TimeDelta;
use dibs_common::{
    clock::{self, Timestamp},
    db::{self, Database, HeldLease, Lease, outbox::SinkProgress},
    error::{Error, Result},
    live,
    metric_table::label,
    retry::{self, Backoff, RetryPolicy},
};
pub use sequencing::sequence_events;
use tokio_util::sync::CancellationToken;

/// Events in a batch, unless the sink says otherwise.
pub const BATCH_SIZE: u64 = 2_000;
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// How often a standby tries to take the lease, and a blocked sink is tried.
const STANDBY_INTERVAL: Duration = Duration::from_secs(1);
/// How long a sink gets no batch when there is no event.
const MAX_IDLE: TimeDelta = TimeDelta::seconds(1);
const MARK_ACTIVE_INTERVAL: TimeDelta = TimeDelta::seconds(30);
const RETRIES: RetryPolicy = RetryPolicy::exponential(Duration::from_millis(400), Duration::from_secs(10));
/// Rows that are not in memory take the disk a while.
const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// A receiver of events.
pub trait Sink: Send + Sync {
    /// Its name in the table `sinks` and in metrics. It never changes.
    fn name(&self) -> &'static str;

    /// The types of events that it subscribes to, such as `order.paid`; empty means all.
    fn kinds(&self) -> &'static [&'static str];

    /// The length of a batch's range of sequences.
    fn batch_size(&self) -> u64 {
        BATCH_SIZE
    }

    /// Accepts a batch, and returns the sequence up to which it has accepted all; what follows comes again. A batch may
    /// come again in whole or in part. When there are no events, an empty batch comes about once a second, for upkeep;
    /// the sink may then return a sequence beyond the batch. What it writes after [`Lease::begin`] is committed together
    /// with its progress.
    fn deliver(&mut self, batch: &Batch, lease: &mut Lease) -> impl Future<Output = Result<u64>> + Send;
}

/// Delivers events to one sink.
pub struct Relay<S> {
    database: Database,
    sink: S,
    lease: HeldLease,
    delivered_at: Option<Timestamp>,
    marked_active_at: Option<Timestamp>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepOutcome {
    /// Another process holds the sink's lease.
    Standby,
    UpToDate,
    /// The sink has accepted events; there may be more.
    Delivered,
    /// There are events, and the sink accepts none now.
    Blocked,
}

impl<S: Sink> Relay<S> {
    pub fn new(database: &Database, sink: S) -> Self {
        let lease = HeldLease::new(database, format!("sink {}", sink.name()));
        Self { database: database.clone(), sink, lease, delivered_at: None, marked_active_at: None }
    }

    /// Delivers events until the process stops.
    pub async fn run(mut self, stopping: CancellationToken) {
        let mut backoff = Backoff::new(RETRIES);
        while !stopping.is_cancelled() {
            match self.step(clock::now()).await {
                Ok(outcome) => {
                    backoff.reset();
                    if outcome != StepOutcome::Standby {
                        live::served(self.sink.name(), clock::now());
                    }
                    let delay = match outcome {
                        StepOutcome::Delivered => continue,
                        StepOutcome::UpToDate => POLL_INTERVAL,
                        StepOutcome::Standby | StepOutcome::Blocked => STANDBY_INTERVAL,
                    };
                    retry::sleep(delay, &stopping).await;
                }
                Err(error) => {
                    let sink = self.sink.name();
                    metrics::counter!("dibs_relay_failures_total", "sink" => label(sink)).increment(1);
                    live::failed(sink, &error.chain(), clock::now(), true);
                    tracing::warn!(sink, cause = error.chain(), "delivery failed; retrying");
                    backoff.wait(&stopping).await;
                }
            }
        }
        self.release_lease().await;
    }

    /// Lets another process serve the sink.
    pub async fn release_lease(&mut self) {
        self.lease.release().await;
    }

    /// Delivers the next batch, once.
    pub async fn step(&mut self, now: Timestamp) -> Result<StepOutcome> {
        let Some(mut lease) = self.lease.begin().await? else {
            // So that the next turn of this process as holder checks again whether events were purged meanwhile.
            self.marked_active_at = None;
            return Ok(StepOutcome::Standby);
        };
        // Boxed: it is large, and steps are part of other large futures.
        let outcome = Box::pin(self.deliver_next(&mut lease, now)).await;
        self.lease.finish(lease, outcome).await
    }

    async fn deliver_next(&mut self, lease: &mut Lease, now: Timestamp) -> Result<StepOutcome> {
        let sink = self.sink.name();
        let Some(progress) = db::within(db::outbox::find_sink_progress(&mut *lease.reader().await?, sink)).await?
        else {
            db::within(db::outbox::register_sink(&self.database.pool(), sink, now)).await?;
            // Not UpToDate: the next step finds the sink registered and begins at once.
            return Ok(StepOutcome::Delivered);
        };
        let SinkProgress { delivered_through, last_sequence, epoch, .. } = progress;
        if delivered_through == last_sequence && self.delivered_at.is_some_and(|at| now - at < MAX_IDLE) {
            return Ok(StepOutcome::UpToDate);
        }
        // Before the delivery, which may take long: the purge must know that the sink is served.
        self.mark_active(lease, progress, now).await?;
        let (first, last) = (delivered_through + 1, last_sequence.min(delivered_through + self.sink.batch_size()));
        let mut reader = lease.reader().await?;
        let events = db::outbox::list_between(&mut reader, first..=last, self.sink.kinds());
        let events = db::within_limit(READ_TIMEOUT, events).await?;
        drop(reader);
        let accepted = self.sink.deliver(&Batch { first, last, at: now, epoch, events }, lease).await?;
        self.delivered_at = Some(now);
        if accepted == delivered_through {
            lease.commit().await?;
            return Ok(if last < first { StepOutcome::UpToDate } else { StepOutcome::Blocked });
        }
        // Conditional on the position that was read: a second guard beside the lease.
        if !db::within(db::outbox::advance_sink(lease.begin().await?, sink, delivered_through, accepted, now)).await? {
            return Err(Error::internal("another process has advanced the sink"));
        }
        // The progress and what the sink wrote become durable together.
        lease.commit().await?;
        let passed = accepted.saturating_sub(delivered_through);
        metrics::counter!("dibs_relay_events_total", "sink" => label(sink)).increment(passed);
        Ok(StepOutcome::Delivered)
    }

    /// Marks the sink as served. The purge deletes events without waiting for a sink that is not.
    async fn mark_active(&mut self, lease: &mut Lease, progress: SinkProgress, now: Timestamp) -> Result<()> {
        if self.marked_active_at.is_some_and(|marked| now - marked < MARK_ACTIVE_INTERVAL) {
            return Ok(());
        }
        let sink = self.sink.name();
        if self.marked_active_at.is_none()
            && progress.waiting_since.is_none()
            && progress.delivered_through < progress.last_sequence
        {
            let after = progress.delivered_through;
            tracing::error!(sink, after, "undelivered events purged");
        }
        db::within(db::outbox::mark_sink_active(lease.begin().await?, sink, now)).await?;
        lease.commit().await?;
        self.marked_active_at = Some(now);
        Ok(())
    }
}
