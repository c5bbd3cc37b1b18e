//! The streams between API and worker: what an entry says, and how a consumer group reads it.
//!
//! An entry stays on its stream until its outcome is durable: [`StreamConsumer::read`] hands it to one consumer,
//! [`StreamConsumer::reclaim`] to another when the first has gone silent, [`StreamConsumer::acknowledge`] ends it.

mod claim_entry;
mod order_entry;
mod stored_entry;
mod stream_consumer;

pub use claim_entry::{ClaimEntry, ClaimOutcomeMessage, Malformed};
pub use order_entry::{OrderEntry, OrderOutcomeMessage};
pub use stored_entry::{FailedEntry, dead_letter, read_fields, stored_entry};
pub use stream_consumer::{Delivery, Entry, StreamConsumer, append, len};

/// The stream of accepted claims of one partition.
pub type ClaimStream = StreamConsumer<ClaimEntry>;
/// The stream of commands of one partition's users.
pub type OrderStream = StreamConsumer<OrderEntry>;
