use std::future::{Future, ready};

use dibs_common::{clock::Timestamp, error::Result, redis::streams::Entry};

/// How much one worker takes at once.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Entries that one read returns.
    pub read: u64,
    /// Reads that wait in memory for their batch.
    pub queued_reads: usize,
    pub entries: usize,
    /// Load of a batch, see [`Handler::load`]. An entry that exceeds it is a batch of its own.
    pub load: usize,
    /// Batches that are processed at once. With one, entries are processed in the order of their stream.
    pub processing: usize,
    /// Batches that are processed or settled at once.
    pub in_flight: usize,
}

/// What differs between the streams.
pub trait Handler: Send + Sync + 'static {
    type Entry: Entry + 'static;
    /// The durable outcome of one entry.
    type Outcome: Send + Sync;

    const LIMITS: Limits;
    /// Whether entries of different keys may need the same row. Then new entries are probed while others are held.
    const KEYS_SHARE_ROWS: bool;

    /// How much of [`Limits::load`] an entry takes.
    fn load(entry: &Self::Entry) -> usize;

    /// Entries of one key are processed in the order of their stream while rows that they need are locked.
    fn key(entry: &Self::Entry) -> u64;

    /// Whether each entry needs a row that another session has locked. Does not wait for it.
    fn find_locked(&self, entries: &[&Self::Entry]) -> impl Future<Output = Result<Vec<bool>>> + Send;

    /// Decides the entries and makes their outcomes durable, one for each, in their order. When it returns, the entries
    /// may leave their stream. Safe to repeat.
    fn process(&self, entries: &[&Self::Entry]) -> impl Future<Output = Result<Vec<Self::Outcome>>> + Send;

    /// Sends outcomes to the processes that wait for them. A lost message is no error: the outcome is in the database.
    fn publish(&self, entries: &[&Self::Entry], outcomes: &[Self::Outcome]) -> impl Future<Output = ()> + Send;

    /// Records metrics of entries whose outcomes became durable at `durable_at`.
    fn measure(&self, entries: &[&Self::Entry], outcomes: &[Self::Outcome], durable_at: Timestamp);

    /// Gives an entry that failed for good an outcome that says so, when the stream has such an outcome.
    fn fail_permanently(&self, _entry: &Self::Entry) -> impl Future<Output = Result<Option<Self::Outcome>>> + Send {
        ready(Ok(None))
    }
}
