//! Commands whose caller did not wait for the outcome. Redis remembers them, so that a command that is still on its
//! stream is reported as pending and not as unknown.

use fred::{interfaces::KeysInterface as _, types::Expiration};

use crate::{
    domain::order::{Command, CommandKind},
    error::{Error, Result},
    identifiers::{CommandId, OrderId, UserId},
    redis::Redis,
};

const TTL_SECONDS: i64 = 24 * 60 * 60;

/// A command that was put on its stream. It may have an outcome by now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingCommand {
    pub kind: CommandKind,
    pub order: OrderId,
    /// None where an earlier version of Dibs remembered it.
    pub user: Option<UserId>,
}

/// Remembers a command for a day.
pub async fn remember(redis: &Redis, command: &Command) -> Result<()> {
    let (key, expires) = (redis.keys.pending_command(command.id), Some(Expiration::EX(TTL_SECONDS)));
    let value = format!("{} {} {}", command.kind().into_str(), command.order(), command.user);
    redis.run(&key, async |client| client.set(&key, &value, expires.clone(), None, false).await).await
}

/// A command that was remembered in the last day.
pub async fn find(redis: &Redis, command: CommandId) -> Result<Option<PendingCommand>> {
    let key = redis.keys.pending_command(command);
    let found: Option<String> = redis.run(&key, async |client| client.get(&key).await).await?;
    let Some(found) = found else { return Ok(None) };
    let invalid = || Error::internal(format!("command {command} is remembered as '{found}'"));
    let mut words = found.split(' ');
    let (kind, order) = words.next().zip(words.next()).ok_or_else(invalid)?;
    let kind = kind.parse().map_err(|_| invalid())?;
    let order = order.parse().map(OrderId).map_err(Error::internal)?;
    let user = words.next().map(|user| user.parse::<u64>().ok().and_then(|user| user.try_into().ok()));
    Ok(Some(PendingCommand { kind, order, user: user.map(|user| user.ok_or_else(invalid)).transpose()? }))
}
