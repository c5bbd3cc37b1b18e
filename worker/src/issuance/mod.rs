//! Confirms claims: decides each batch in one transaction, gives the quantity of rejected claims back to Redis, and
//! only then lets the entries leave their stream.

mod confirm;
mod handler;

pub use confirm::confirm;
use dibs_common::{db::Database, identifiers::Partition, redis::Redis};
pub use handler::ClaimHandler;

use crate::streams::{ReclaimPolicy, StreamWorker};

pub type ClaimWorker = StreamWorker<ClaimHandler>;

pub fn claim_worker(database: &Database, redis: &Redis, partition: Partition, policy: ReclaimPolicy) -> ClaimWorker {
    StreamWorker::new(ClaimHandler::new(database, redis, partition), database, redis, policy)
}
