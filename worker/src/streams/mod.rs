//! Workers of the streams between API and worker.
//!
//! A [`Reader`] reads the stream of one partition. A [`StreamWorker`] gathers the entries of its readers into batches,
//! and a [`BatchProcessor`] takes each batch to its end: process (durable), publish, acknowledge. A [`Handler`] is what
//! differs between claims and commands.
//!
//! Entries that need a row which another session has locked are set aside (`held_entries`); the others go on.
//!
//! Every entry can come twice: after a crash, from a worker that was slow, after a lost acknowledgement. No step relies
//! on an entry being new. The tables know which claims and commands have their outcome.

mod batch_processor;
mod handler;
mod held_entries;
mod outcome_meters;
mod publish;
mod reader;
mod stream_worker;

pub use batch_processor::BatchProcessor;
pub use handler::{Handler, Limits};
pub(crate) use outcome_meters::OutcomeMeters;
pub(crate) use publish::publish_outcomes;
pub use reader::{InFlight, Reader, ReclaimPolicy};
pub use stream_worker::StreamWorker;
