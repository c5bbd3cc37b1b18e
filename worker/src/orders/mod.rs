//! Carries out commands: readers gather the entries of all partitions, and the desk decides them in batches, each in
//! one transaction. So a product that everybody orders is locked once for hundreds of orders, whoever placed them.
//!
//! Every entry can come twice: after a crash, from a worker that was thought dead, after an answer that was lost. The
//! tables know which commands have their outcome.

mod command_processor;
mod expiry;
mod reader;
mod transaction;

use std::sync::Arc;

pub use command_processor::CommandProcessor;
use dibs_common::redis::streams::{Delivery, OrderEntry, OrderStream};
pub use expiry::{Expiry, expire_coupons};
pub use reader::Reader;
pub use transaction::execute_batch;

/// An entry in hand, and the stream that it came from.
pub struct InFlight {
    /// Where it is acknowledged.
    pub stream: Arc<OrderStream>,
    /// The entry.
    pub delivery: Delivery<OrderEntry>,
}
