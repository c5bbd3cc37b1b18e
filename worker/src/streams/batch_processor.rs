use std::{
    collections::{BTreeMap, VecDeque},
    future::Future,
    time::Duration,
};

use dibs_common::{
    clock,
    db::{self, Database},
    error::{Error, Result},
    identifiers::Partition,
    redis::streams::{self, Entry, FailedEntry, StreamConsumer},
    retry::{Backoff, RetryPolicy},
    traces::BatchSpans,
};
use tokio_util::sync::CancellationToken;

use super::{Handler, InFlight, held_entries::HeldEntries, stream_worker::take_batch};
use crate::dead_letters;

/// Deliveries after which an entry that fails by itself is dead-lettered.
const MAX_ATTEMPTS: u64 = 5;
const RETRY: RetryPolicy = RetryPolicy::exponential(Duration::from_millis(50), Duration::from_secs(1));

/// Carries batches through, from delivery to acknowledgement.
pub struct BatchProcessor<H: Handler> {
    handler: H,
    database: Database,
    pub(super) held: HeldEntries<H>,
}

/// Entries whose outcomes are durable, and these, in the same order.
pub(super) struct Processed<H: Handler> {
    entries: Vec<InFlight<H::Entry>>,
    outcomes: Vec<H::Outcome>,
}

impl<H: Handler> BatchProcessor<H> {
    pub fn new(handler: H, database: &Database) -> Self {
        // From the beginning, so that an alert sees the first letter as an increase.
        dead_letters::counter(H::Entry::SOURCE).increment(0);
        Self { handler, database: database.clone(), held: HeldEntries::new() }
    }

    /// Makes the outcomes of a batch durable. When the fault is in an entry, halves the batch until the entry is alone.
    /// What is not among the result stays on its stream and comes again.
    pub(super) async fn process(&self, batch: Vec<InFlight<H::Entry>>, stopping: &CancellationToken) -> Processed<H> {
        let mut processed = Processed { entries: Vec::with_capacity(batch.len()), outcomes: Vec::new() };
        let (readable, malformed): (Vec<_>, Vec<_>) = batch.into_iter().partition(|entry| entry.delivery.entry.is_ok());
        for entry in malformed {
            if let Err(malformed) = &entry.delivery.entry {
                self.fail(&entry, &malformed.to_string()).await;
            }
        }
        // The last part is the next one, so that parts are processed in the order of their entries.
        let mut parts = self.split(readable).await;
        while let Some(mut part) = parts.pop() {
            if part.is_empty() {
                continue;
            }
            let entries = decoded(&part);
            let spans = BatchSpans::begin(H::Entry::NAME, || entries.iter().flat_map(|entry| entry.traces()).collect());
            let outcomes = self.until_available(stopping, || self.handler.process(&entries)).await;
            match (spans, &outcomes) {
                (Some(spans), Ok(_)) => spans.end(),
                (Some(spans), Err(error)) => spans.fail(&error.chain()),
                (None, _) => {}
            }
            match outcomes {
                Ok(mut outcomes) => {
                    processed.outcomes.append(&mut outcomes);
                    processed.entries.append(&mut part);
                }
                Err(error) if db::is_row_locked(&error) => {
                    parts.extend(self.set_aside(part).await);
                    // The parts behind it may have later entries of a key that is held now.
                    parts = parts.into_iter().map(|part| self.held.set_aside(part, |_| false)).collect();
                    parts.retain(|part| !part.is_empty());
                }
                Err(error) if error.is_transient() => {
                    // The parts behind it wait as well: a user's commands must not overtake each other.
                    parts.push(part);
                    let released = parts.drain(..).flatten().map(|entry| entry.release()).count();
                    tracing::warn!(entries = released, cause = error.chain(), "batch released; it is delivered again");
                }
                Err(error) if part.len() == 1 => self.fail(&part[0], &error.chain()).await,
                Err(error) => {
                    tracing::warn!(entries = part.len(), cause = error.chain(), "batch failed; bisecting");
                    let second = part.split_off(part.len() / 2);
                    parts.extend([second, part]);
                }
            }
        }
        processed
    }

    /// What can be processed now, in parts, the first one last: held entries whose rows are free again, then `new`
    /// ones.
    async fn split(&self, new: Vec<InFlight<H::Entry>>) -> Vec<Vec<InFlight<H::Entry>>> {
        if self.held.is_empty() {
            return vec![new];
        }
        let mut entries = self.held.take_due();
        let free = if H::KEYS_SHARE_ROWS {
            entries.extend(new);
            self.set_locked_aside(self.held.set_aside(entries, |_| false)).await
        } else {
            let mut free = self.set_locked_aside(entries).await;
            free.extend(self.held.set_aside(new, |_| false));
            free
        };
        let mut queue = VecDeque::from(free);
        let mut parts = Vec::new();
        while !queue.is_empty() {
            parts.push(take_batch::<H>(&mut queue));
        }
        parts.reverse();
        parts
    }

    /// A part waited for a locked row: holds the entries that need it, and returns the rest.
    async fn set_aside(&self, part: Vec<InFlight<H::Entry>>) -> Vec<Vec<InFlight<H::Entry>>> {
        let entries = part.len();
        let mut free = self.set_locked_aside(part).await;
        if free.len() < entries {
            tracing::warn!(entries = entries - free.len(), "rows locked by another session; entries held");
            return vec![free];
        }
        // The row is free again, or it is one that the probe does not know. In halves until the entry is alone.
        if entries == 1 {
            self.held.set_aside(free, |_| true);
            return Vec::new();
        }
        let second = free.split_off(entries / 2);
        vec![second, free]
    }

    /// Holds the entries that need locked rows, and later ones of their keys. Returns the others.
    async fn set_locked_aside(&self, entries: Vec<InFlight<H::Entry>>) -> Vec<InFlight<H::Entry>> {
        if entries.is_empty() {
            return entries;
        }
        let locked = self.handler.find_locked(&decoded(&entries)).await.unwrap_or_else(|error| {
            tracing::warn!(cause = error.chain(), "rows are not probed");
            Vec::new()
        });
        self.held.set_aside(entries, |index| locked.get(index).copied().unwrap_or(false))
    }

    /// Publishes durable outcomes, then takes their entries off the streams.
    pub(super) async fn settle(&self, processed: Processed<H>, stopping: &CancellationToken) {
        let Processed { entries, outcomes } = processed;
        if entries.is_empty() {
            return;
        }
        let decoded = decoded(&entries);
        self.handler.measure(&decoded, &outcomes, clock::now());
        self.handler.publish(&decoded, &outcomes).await;
        if let Err(error) = self.until_available(stopping, || acknowledge(&entries)).await {
            tracing::warn!(entries = entries.len(), cause = error.chain(), "processed entries are not acknowledged");
            entries.iter().for_each(InFlight::release);
        }
    }

    /// Repeats a step while a dependency is unavailable, until `stopping`.
    async fn until_available<T, F>(&self, stopping: &CancellationToken, step: impl Fn() -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let mut backoff = Backoff::new(RETRY);
        loop {
            match step().await {
                Err(error @ Error::DependencyUnavailable { .. })
                    if !stopping.is_cancelled() && !db::is_row_locked(&error) =>
                {
                    tracing::warn!(cause = error.chain(), "dependency unavailable; retrying batch");
                    backoff.wait(stopping).await;
                }
                done => return done,
            }
        }
    }

    /// An entry failed by itself. It stays pending and comes again; after [`MAX_ATTEMPTS`] it is dead-lettered.
    async fn fail(&self, entry: &InFlight<H::Entry>, reason: &str) {
        let (id, attempts) = (&entry.delivery.id, entry.delivery.attempts);
        if attempts < MAX_ATTEMPTS {
            tracing::warn!(entry = id, attempts, reason, "entry failed; it is delivered again");
            entry.release();
            return;
        }
        match self.dead_letter(entry, reason).await {
            Ok(true) => dead_letters::report(H::Entry::SOURCE, id, reason),
            // The row is there since an attempt that died before it acknowledged the entry.
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(
                    entry = id,
                    cause = error.chain(),
                    "entry cannot be dead-lettered; it is delivered again"
                );
                entry.release();
            }
        }
    }

    /// The row is committed before the entry leaves its stream. After a death between them the entry comes again, and
    /// its row is there already. Returns whether the row is new.
    async fn dead_letter(&self, entry: &InFlight<H::Entry>, reason: &str) -> Result<bool> {
        let InFlight { stream, delivery } = entry;
        let is_failed = self.fail_permanently(entry).await?;
        // A redrive of it would find the outcome and change nothing.
        let prefix = if is_failed { "not redrivable, as its failure is its outcome: " } else { "" };
        let reason = format!("{prefix}{reason}");
        let mut is_new = false;
        // Without its fields it is no longer there: another consumer has processed it meanwhile.
        if let Some(fields) = stream.fields(&delivery.id).await? {
            let letter = streams::dead_letter::<H::Entry>(FailedEntry {
                partition: stream.partition,
                id: &delivery.id,
                fields: &fields,
                reason: &reason,
                attempts: delivery.attempts,
                redrivable: !is_failed,
            });
            is_new = db::within(async {
                let mut connection = self.database.pool().acquire().await?;
                db::dead_letters::insert(&mut connection, &letter, clock::now()).await
            })
            .await?;
        }
        stream.acknowledge(std::slice::from_ref(&delivery.id)).await?;
        Ok(is_new)
    }

    /// Whether the entry has the durable outcome of a failure now.
    async fn fail_permanently(&self, entry: &InFlight<H::Entry>) -> Result<bool> {
        let Ok(decoded) = &entry.delivery.entry else { return Ok(false) };
        match self.handler.fail_permanently(decoded).await {
            Ok(Some(outcome)) => self.handler.publish(&[decoded], &[outcome]).await,
            Ok(None) => return Ok(false),
            Err(error) if error.is_transient() => return Err(error),
            Err(error) => {
                tracing::warn!(entry = entry.delivery.id, cause = error.chain(), "failed entry has no outcome");
                return Ok(false);
            }
        }
        Ok(true)
    }
}

fn decoded<E>(entries: &[InFlight<E>]) -> Vec<&E> {
    entries.iter().filter_map(|entry| entry.delivery.entry.as_ref().ok()).collect()
}

/// Takes entries off their streams, those of a stream in one call. Those that are off already stay so.
async fn acknowledge<E: Entry>(entries: &[InFlight<E>]) -> Result<()> {
    let mut streams: BTreeMap<Partition, (&StreamConsumer<E>, Vec<String>)> = BTreeMap::new();
    for InFlight { stream, delivery } in entries {
        streams.entry(stream.partition).or_insert_with(|| (stream, Vec::new())).1.push(delivery.id.clone());
    }
    for (stream, ids) in streams.into_values() {
        stream.acknowledge(&ids).await?;
    }
    Ok(())
}
