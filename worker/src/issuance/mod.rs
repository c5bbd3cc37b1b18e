//! Confirms claims: reads a partition's stream in batches, decides each batch in one transaction, and only then
//! takes its entries off the stream.
//!
//! Every entry can come twice: after a crash, from a worker that was thought dead, after an answer that was lost.
//! So nothing here relies on an entry being new; the tables know which claims have their outcome.

mod confirm;
mod consumer;

pub use confirm::{answer_waiting, confirm, return_seats};
pub use consumer::{Consumer, ReclaimPolicy};
