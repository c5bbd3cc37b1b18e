//! Executes commands: those of all partitions of a process meet in one worker, which decides each batch in one
//! transaction.

mod expiry;
mod handler;
mod transaction;

use dibs_common::{db::Database, domain::order::OrderRules, redis::Redis};
pub use expiry::{Expiry, expire_coupons};
pub use handler::CommandHandler;
pub use transaction::execute_batch;

use crate::streams::{ReclaimPolicy, StreamWorker};

/// Executes the commands of all partitions that it is given.
pub type CommandProcessor = StreamWorker<CommandHandler>;

/// A processor with the rules of this shop.
pub fn command_processor(
    database: &Database,
    redis: &Redis,
    rules: OrderRules,
    policy: ReclaimPolicy,
) -> CommandProcessor {
    StreamWorker::new(CommandHandler::new(database, redis, rules), database, redis, policy)
}
