//! Commands whose caller did not wait for the outcome: remembered in Redis, so that asking after one that is still on
//! its stream does not look as if it had never been.

use fred::{interfaces::KeysInterface as _, types::Expiration};

use crate::{
    domain::order::Command,
    error::{Error, Result},
    identifiers::{CommandId, OrderId},
    redis::{Redis, redis_error},
};

/// In seconds.
const REMEMBERED_FOR: i64 = 24 * 60 * 60;

/// A command that was taken; it may have its outcome by now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingCommand {
    /// See [`Command::kind`].
    pub kind: String,
    /// The order that it places or changes.
    pub order: OrderId,
}

/// Remembers for a day that a command was taken.
pub async fn remember(redis: &Redis, command: &Command) -> Result<()> {
    let (key, expires) = (redis.keys.pending_command(command.id), Some(Expiration::EX(REMEMBERED_FOR)));
    let value = format!("{} {}", command.kind(), command.order());
    redis.client().set(key, value, expires, None, false).await.map_err(redis_error)
}

/// A command that was taken in the last day and not waited for.
pub async fn find(redis: &Redis, command: CommandId) -> Result<Option<PendingCommand>> {
    let found: Option<String> = redis.client().get(redis.keys.pending_command(command)).await.map_err(redis_error)?;
    let Some(found) = found else { return Ok(None) };
    let strange = || Error::internal(format!("command {command} is remembered as '{found}'"));
    let (kind, order) = found.split_once(' ').ok_or_else(strange)?;
    let order = order.parse().map(OrderId).map_err(Error::internal)?;
    Ok(Some(PendingCommand { kind: kind.to_owned(), order }))
}
