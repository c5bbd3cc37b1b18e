use std::{sync::Arc, time::Duration};

use dibs_common::{
    error::Result,
    identifiers::Partition,
    redis::{
        Redis,
        streams::{Delivery, Entry, StreamConsumer},
    },
    retry::{self, Backoff, RetryPolicy},
};
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;

use super::Handler;

/// The shortest time between two refreshes of what is in flight.
const MIN_REFRESH_INTERVAL: Duration = Duration::from_millis(50);
const READ_RETRY: RetryPolicy = RetryPolicy::constant(Duration::from_secs(1));

/// When a consumer reclaims the entries of others.
#[derive(Clone, Copy, Debug)]
pub struct ReclaimPolicy {
    /// An entry that is pending, and was not delivered or refreshed for this time, is reclaimed.
    pub min_idle: Duration,
    /// How often a consumer looks for such entries.
    pub poll_interval: Duration,
}

// A constant, not a setting. A failing entry is delivered again after `min_idle`: a shorter time dead-letters it
// sooner.
impl Default for ReclaimPolicy {
    fn default() -> Self {
        Self { min_idle: Duration::from_secs(10), poll_interval: Duration::from_secs(2) }
    }
}

impl ReclaimPolicy {
    /// A third of the idle time: one refresh may be late without effect.
    fn refresh_interval(self) -> Duration {
        (self.min_idle / 3).max(MIN_REFRESH_INTERVAL)
    }
}

/// A consumer that has nothing pending and did not read for so long was killed: a running one reads every second.
const IDLE_CONSUMER_AFTER: Duration = Duration::from_hours(1);
// Rarely: it looks at every consumer of the group, and a dead one without entries only takes memory.
const CONSUMER_CLEANUP_INTERVAL: Duration = Duration::from_mins(10);

/// An entry that was delivered to this process and is not acknowledged, and the stream that it came from.
pub struct InFlight<E> {
    pub stream: Arc<StreamConsumer<E>>,
    pub delivery: Delivery<E>,
}

impl<E: Entry> InFlight<E> {
    /// Leaves the entry pending. It is delivered again after [`ReclaimPolicy::min_idle`].
    pub(super) fn release(&self) {
        self.stream.release([self.delivery.id.as_str()]);
    }
}

/// Reads the stream of one partition.
pub struct Reader<H: Handler> {
    stream: Arc<StreamConsumer<H::Entry>>,
    policy: ReclaimPolicy,
    last_reclaim: Option<Instant>,
    last_cleanup: Option<Instant>,
}

impl<H: Handler> Reader<H> {
    /// Joins the consumer group of a partition as the consumer of that name, which no other process may have.
    pub async fn join(redis: &Redis, partition: Partition, name: String, policy: ReclaimPolicy) -> Result<Self> {
        let stream = StreamConsumer::open(redis, partition, name).await?;
        Ok(Self { stream: Arc::new(stream), policy, last_reclaim: None, last_cleanup: None })
    }

    /// The stream, to leave its group once nothing of it is in flight.
    pub fn stream(&self) -> Arc<StreamConsumer<H::Entry>> {
        Arc::clone(&self.stream)
    }

    /// Sends entries until `stopping`, or until the receiver is gone. Waits while the receiver is full.
    pub(super) async fn run(mut self, tx: mpsc::Sender<Vec<InFlight<H::Entry>>>, stopping: &CancellationToken) {
        let mut backoff = Backoff::new(READ_RETRY);
        while !stopping.is_cancelled() {
            match self.next().await {
                Ok(entries) => {
                    backoff.reset();
                    if !entries.is_empty() && tx.send(entries).await.is_err() {
                        break;
                    }
                }
                Err(error) => {
                    let stream = self.stream.key();
                    tracing::warn!(stream, cause = error.chain(), "stream cannot be read; retrying");
                    backoff.wait(stopping).await;
                }
            }
        }
    }

    /// The next entries: now and then those that other consumers have left, else new ones.
    pub async fn next(&mut self) -> Result<Vec<InFlight<H::Entry>>> {
        if self.last_reclaim.is_none_or(|last| last.elapsed() >= self.policy.poll_interval) {
            // Before new entries, which were accepted later.
            let reclaimed = self.stream.reclaim(self.policy.min_idle, H::LIMITS.read).await?;
            if !reclaimed.is_empty() {
                // No pause before the next look: a consumer that died may have left more than one read returns.
                tracing::info!(stream = self.stream.key(), entries = reclaimed.len(), "reclaimed idle entries");
                return Ok(self.in_flight(reclaimed));
            }
            self.last_reclaim = Some(Instant::now());
            self.remove_idle_consumers().await?;
        }
        Ok(self.in_flight(self.stream.read(H::LIMITS.read).await?))
    }

    /// Removes what killed processes left in the group.
    async fn remove_idle_consumers(&mut self) -> Result<()> {
        if self.last_cleanup.is_none_or(|last| last.elapsed() >= CONSUMER_CLEANUP_INTERVAL) {
            let removed = self.stream.remove_idle_consumers(IDLE_CONSUMER_AFTER).await?;
            if removed > 0 {
                tracing::info!(stream = self.stream.key(), consumers = removed, "idle consumers removed");
            }
            self.last_cleanup = Some(Instant::now());
        }
        Ok(())
    }

    fn in_flight(&self, deliveries: Vec<Delivery<H::Entry>>) -> Vec<InFlight<H::Entry>> {
        deliveries.into_iter().map(|delivery| InFlight { stream: self.stream(), delivery }).collect()
    }
}

/// Keeps the entries in flight at this consumer until `done`, however long they wait for their batch. A process that is
/// frozen or dead does not refresh, so others reclaim its entries.
pub(super) async fn refresh_in_flight<E: Entry>(
    stream: &StreamConsumer<E>,
    policy: ReclaimPolicy,
    done: &CancellationToken,
) {
    while retry::sleep(policy.refresh_interval(), done).await {
        if let Err(error) = stream.refresh().await {
            tracing::warn!(stream = stream.key(), cause = error.chain(), "entries in flight are not refreshed");
        }
    }
}
