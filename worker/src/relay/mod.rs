//! Tells receivers, the sinks, what happened: events go from `outbox_events` to each, in order, at least once.
//!
//! Every worker numbers events and stands by for every sink; one at a time works for a sink, who holds its lock. A
//! sink's progress is moved once the sink has taken the events, on the connection that holds the lock: one who has lost
//! the lock without knowing cannot move it. What was taken by then comes again. Each sink has a relay of its own, so
//! that one that fails holds up no other.

mod batch;
mod numbering;

use std::{future::Future, time::Duration};

pub use batch::Batch;
use chrono::TimeDelta;
use dibs_common::{
    clock::{self, Timestamp},
    db::{self, Database, Lease, outbox::SinkProgress},
    error::{Error, Result},
};
pub use numbering::number_until_stopped;
use tokio_util::sync::CancellationToken;

/// How many events a sink is given at once, unless it says otherwise.
pub const BATCH: u64 = 2_000;
/// How often there is a look for new events.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How often one who stands by asks whether the lock is free.
const STAND_BY: Duration = Duration::from_secs(1);
/// How long a sink without events is left alone.
const IDLE_AT_MOST: TimeDelta = TimeDelta::seconds(1);
/// How often it is noted that a sink is served.
const TOUCH_EVERY: TimeDelta = TimeDelta::seconds(30);
/// The first pause after a failure, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// How long reading a batch may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// A receiver of events.
pub trait Sink: Send + Sync {
    /// Its name in the table `sinks` and in metrics. It never changes.
    fn name(&self) -> &'static str;

    /// The kinds of events that it takes, such as `order.paid`; all when none is named.
    fn kinds(&self) -> &'static [&'static str];

    /// How many events, of its kinds or not, it is given at once.
    fn batch(&self) -> u64 {
        BATCH
    }

    /// Another process works for it now: what its metrics say of it is for that one to say.
    fn stand_by(&self) {}

    /// Takes a batch, and answers up to which sequence it has taken all; what follows comes again. A batch may come
    /// again in whole or in part. One without events comes about once a second when there are none, so that a sink can
    /// see to itself; it may then answer that it has taken more than it was given. What it writes on the lock's
    /// connection after [`Lease::begin`] is committed together with its progress.
    fn deliver(&mut self, batch: &Batch, lock: &mut Lease) -> impl Future<Output = Result<u64>> + Send;
}

/// Sends events on to one sink.
pub struct Relay<S> {
    database: Database,
    sink: S,
    lock: Option<Lease>,
    looked_at: Option<Timestamp>,
    touched_at: Option<Timestamp>,
}

/// What became of one look for events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Another process works for the sink.
    StandingBy,
    /// The sink is up to date.
    UpToDate,
    /// The sink has taken events; there may be more.
    Delivered,
    /// There are events, and the sink takes none now.
    Held,
}

impl<S: Sink> Relay<S> {
    /// A relay to `sink`.
    pub fn new(database: &Database, sink: S) -> Self {
        Self { database: database.clone(), sink, lock: None, looked_at: None, touched_at: None }
    }

    /// Sends on what happens until told to stop.
    pub async fn run(mut self, stopping: CancellationToken) {
        let mut pause = FIRST_PAUSE;
        while !stopping.is_cancelled() {
            let wait = match self.step(clock::now()).await {
                Ok(Step::Delivered) => Duration::ZERO,
                Ok(Step::UpToDate) => LOOK_EVERY,
                Ok(Step::StandingBy | Step::Held) => STAND_BY,
                Err(error) => {
                    let sink = self.sink.name();
                    metrics::counter!("dibs_relay_failures_total", "sink" => sink).increment(1);
                    tracing::warn!(sink, cause = error.chain(), ?pause, "events cannot be delivered now");
                    let wait = pause;
                    pause = LONGEST_PAUSE.min(pause * 2);
                    self.wait(wait, &stopping).await;
                    continue;
                }
            };
            pause = FIRST_PAUSE;
            self.wait(wait, &stopping).await;
        }
        self.release_lease().await;
    }

    async fn wait(&self, pause: Duration, stopping: &CancellationToken) {
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = stopping.cancelled() => {}
        }
    }

    /// Lets another process work for the sink.
    pub async fn release_lease(&mut self) {
        if let Some(lock) = self.lock.take()
            && let Err(error) = lock.release().await
        {
            // Its connection is gone, and with it the lock.
            tracing::debug!(sink = self.sink.name(), cause = error.chain(), "a lock was lost before it was released");
        }
    }

    /// Delivers the next batch, once.
    pub async fn step(&mut self, now: Timestamp) -> Result<Step> {
        let lock = match self.lock.take() {
            Some(lock) => Some(lock),
            None => self.database.try_lease(&format!("sink {}", self.sink.name())).await?,
        };
        let Some(mut lock) = lock else {
            self.sink.stand_by();
            self.touched_at = None;
            return Ok(Step::StandingBy);
        };
        let step = self.deliver_next(&mut lock, now).await;
        self.lock = Some(lock);
        if step.is_err() {
            // Its connection may be what failed, or another process may be better placed.
            self.release_lease().await;
        }
        step
    }

    async fn deliver_next(&mut self, lock: &mut Lease, now: Timestamp) -> Result<Step> {
        let sink = self.sink.name();
        let Some(progress) = db::within(db::outbox::find_sink_progress(lock.connection(), sink)).await? else {
            db::within(db::outbox::register_sink(self.database.pool(), sink, now)).await?;
            return Ok(Step::Delivered);
        };
        let SinkProgress { delivered_through, last_sequence, .. } = progress;
        if delivered_through == last_sequence && self.looked_at.is_some_and(|looked| now - looked < IDLE_AT_MOST) {
            return Ok(Step::UpToDate);
        }
        self.serve(lock, progress, now).await?;
        let (first, last) = (delivered_through + 1, last_sequence.min(delivered_through + self.sink.batch()));
        let events = db::outbox::list_between(lock.connection(), first..=last, self.sink.kinds());
        let events = db::within_limit(PATIENCE, events).await?;
        let taken = self.sink.deliver(&Batch { first, last, at: now, events }, lock).await?;
        self.looked_at = Some(now);
        if taken == delivered_through {
            lock.commit().await?;
            return Ok(if last < first { Step::UpToDate } else { Step::Held });
        }
        if !db::within(db::outbox::advance_sink(lock.connection(), sink, delivered_through, taken, now)).await? {
            return Err(Error::internal("another process has moved the sink"));
        }
        lock.commit().await?;
        metrics::counter!("dibs_relay_events_total", "sink" => sink).increment(taken.saturating_sub(delivered_through));
        Ok(Step::Delivered)
    }

    /// Lets the table say that somebody serves the sink: events wait for no sink that nobody does.
    async fn serve(&mut self, lock: &mut Lease, progress: SinkProgress, now: Timestamp) -> Result<()> {
        if self.touched_at.is_some_and(|touched| now - touched < TOUCH_EVERY) {
            return Ok(());
        }
        let sink = self.sink.name();
        if self.touched_at.is_none()
            && progress.waiting_since.is_none()
            && progress.delivered_through < progress.last_sequence
        {
            let after = progress.delivered_through;
            tracing::error!(sink, after, "nobody served this sink for so long that events were deleted untold");
        }
        db::within(db::outbox::mark_sink_active(lock.connection(), sink, now)).await?;
        self.touched_at = Some(now);
        Ok(())
    }
}
