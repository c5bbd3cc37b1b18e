//! The streams between API and worker: what an entry says, and how a consumer group reads it.
//!
//! An entry stays on its stream until its outcome is durable: [`GroupStream::read`] hands it to one consumer,
//! [`GroupStream::take_over`] to another when the first has gone silent, [`GroupStream::acknowledge`] ends it.

mod claim_entry;
mod group_stream;
mod order_entry;

pub use claim_entry::{Answer, ClaimEntry, Malformed};
pub use group_stream::{Delivery, Entry, GroupStream};
pub use order_entry::{OrderAnswer, OrderEntry};

/// The stream of accepted claims of one partition.
pub type ClaimStream = GroupStream<ClaimEntry>;
/// The stream of commands of one partition's users.
pub type OrderStream = GroupStream<OrderEntry>;
