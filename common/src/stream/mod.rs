//! The streams between API and worker: what an entry says, and how a consumer group reads it.
//!
//! An entry stays on its stream until its outcome is durable: [`ClaimStream::read`] hands it to one consumer,
//! [`ClaimStream::take_over`] to another when the first has gone silent, [`ClaimStream::acknowledge`] ends it.

mod claim_stream;
mod entry;

pub use claim_stream::{ClaimStream, Delivery};
pub use entry::{Answer, ClaimEntry, Malformed};
