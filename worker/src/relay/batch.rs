use dibs_common::{clock::Timestamp, db::outbox::OutboxEvent};

/// All that a sink takes of what happened from one sequence to another.
#[derive(Clone, Debug)]
pub struct Batch {
    /// The sequence of the first event, whether the sink takes it or not.
    pub first: u64,
    /// The sequence of the last event; one less than `first` when nothing happened.
    pub last: u64,
    /// When it is delivered.
    pub at: Timestamp,
    /// The events that the sink takes, in order.
    pub events: Vec<OutboxEvent>,
}
