use dibs_common::{
    clock::Timestamp,
    domain::event::{Epoch, OutboxEvent},
};

/// The events of a range of sequences that a sink subscribes to.
#[derive(Clone, Debug)]
pub struct Batch {
    /// The first sequence of the range, whether the sink subscribes to its event or not.
    pub first: u64,
    /// The last sequence of the range; `first - 1` when there is no event.
    pub last: u64,
    /// The time of delivery.
    pub at: Timestamp,
    /// The current epoch; that of an event may be an earlier one.
    pub epoch: Epoch,
    /// In order.
    pub events: Vec<OutboxEvent>,
}
