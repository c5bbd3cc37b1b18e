use std::{collections::HashMap, ops::RangeInclusive};

use chrono_tz::Tz;

use super::{
    Redis,
    scripts::{SalesMemory, sales_apply, sales_count},
};
use crate::{
    domain::{event::Epoch, ranking::SalesChange},
    error::Result,
};

/// Counts sales in Redis by business day, each event once, however often it is delivered.
///
/// The events come from the outbox or from Kafka, never from both at a time: while Redis counts from Kafka, a batch of
/// the outbox is a gap.
#[derive(Clone)]
pub struct SalesCounter {
    redis: Redis,
    zone: Tz,
    /// The current epoch of the database. Counts of another one are a gap.
    pub epoch: Epoch,
    memory: SalesMemory,
}

/// Events to count, with their position in the source.
#[derive(Clone, Debug)]
pub enum SalesBatch<'a> {
    /// All events of the outbox with these sequences, and the changes of those that change sales.
    Outbox { sequences: RangeInclusive<u64>, changes: &'a [(u64, SalesChange)] },
    /// Messages of Kafka, those of a source without a gap: see [`split_at_gaps`].
    Kafka(&'a [SalesMessage]),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SalesCounted {
    /// Every event of the batch is counted, by this call or an earlier one.
    Counted,
    /// Nothing was counted. Redis has counted only up to `applied` (0 when unknown), counts from the other source or in
    /// another epoch, or returned to an older state. The days have to be rebuilt first.
    Gap { applied: u64 },
}

/// What a message of Kafka changes.
#[derive(Clone, Debug)]
pub struct SalesMessage {
    /// The name of its partition of a topic, which never changes.
    pub source: String,
    /// From 0.
    pub offset: u64,
    /// The sequence of its event; 0 for a message without one.
    pub sequence: u64,
    pub changes: Vec<SalesChange>,
}

impl SalesCounter {
    /// Counts in `redis`. Business days begin at midnight of `zone`.
    pub fn new(redis: &Redis, zone: Tz) -> Self {
        Self { redis: redis.clone(), zone, epoch: Epoch::default(), memory: SalesMemory::default() }
    }

    /// Counts a batch, or nothing of it.
    pub async fn count(&mut self, batch: SalesBatch<'_>) -> Result<SalesCounted> {
        let Self { redis, zone, epoch, memory } = self;
        match batch {
            SalesBatch::Outbox { sequences, changes } => sales_apply(redis, *epoch, &sequences, changes, *zone).await,
            SalesBatch::Kafka(messages) => sales_count(redis, *epoch, memory, messages, *zone).await,
        }
    }

    /// Forgets what Redis has counted. Call it after a rebuild, which may have set it back.
    pub fn reset(&mut self) {
        self.memory = SalesMemory::default();
    }
}

/// Changes of one call, unless a single event has more. Each may change a day and every window: a few milliseconds in
/// which Redis serves no other client.
pub const MAX_CHANGES_PER_CALL: usize = 1_000;

/// Splits messages into batches to count one after the other: before a message that leaves a gap in its source, which
/// the script cannot see within a batch, and where a batch would have too many changes. No messages are one batch, as
/// an empty one shows that Redis returned to an older state.
pub fn split_at_gaps(messages: &[SalesMessage]) -> Vec<&[SalesMessage]> {
    let (mut batches, mut begin, mut size) = (Vec::new(), 0, 0);
    let mut next: HashMap<&str, u64> = HashMap::new();
    for (place, SalesMessage { source, offset, changes, .. }) in messages.iter().enumerate() {
        let follows = next.get(source.as_str()).is_none_or(|next| offset <= next);
        size += changes.len();
        // A message that alone has too many changes is a batch of its own.
        if !follows || size > MAX_CHANGES_PER_CALL && place > begin {
            batches.push(&messages[begin..place]);
            (begin, size) = (place, changes.len());
            // A batch may begin at any offset: the script compares it with what Redis has counted.
            next.clear();
        }
        let next = next.entry(source).or_default();
        *next = (offset + 1).max(*next);
    }
    batches.push(&messages[begin..]);
    batches
}
