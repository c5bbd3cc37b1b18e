//! That nothing is left to do.

use anyhow::Result;

use crate::{audit::Check, stores::Stores};

/// No command is on a stream, in a worker's hands, or among the dead letters.
pub async fn streams(stores: &Stores) -> Result<Check> {
    let mut check = Check::new("at rest");
    let left = stores.commands_left().await?;
    let mut none = |what: &str, count: u64| check.require(count == 0, || format!("{count} {what}"));
    none("commands are left on the streams of orders", left.waiting);
    none("deliveries of commands are pending", left.pending);
    none("commands are dead letters", left.dead);
    check.compared("streams of orders: no entry, no pending delivery, no dead letter");
    Ok(check)
}
