use dibs_common::clock::Timestamp;
use metrics::{Counter, Histogram};

/// What is recorded of entries whose outcomes became durable.
pub struct OutcomeMeters {
    pub done: Counter,
    pub rejected: Counter,
    pub batch_size: Histogram,
    pub lag: Histogram,
}

impl OutcomeMeters {
    pub fn record_lag(&self, accepted_at: Timestamp, durable_at: Timestamp) {
        // A clock that was set back is no negative lag.
        self.lag.record((durable_at - accepted_at).to_std().unwrap_or_default());
    }

    /// Records a batch of `size` outcomes, of which `done` are no rejections.
    pub fn record_batch(&self, size: u32, done: u32) {
        self.batch_size.record(f64::from(size));
        self.done.increment(done.into());
        self.rejected.increment((size - done).into());
    }
}
