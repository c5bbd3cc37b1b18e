//! Commands whose caller did not wait for the outcome: remembered in Redis, so that asking after one that is still on
//! its stream does not look as if it had never been.

use fred::{interfaces::KeysInterface as _, types::Expiration};

use crate::{
    error::{Error, Result},
    identifiers::{CommandId, OrderId},
    redis::{Redis, redis_error},
};

/// In seconds.
const REMEMBERED_FOR: i64 = 24 * 60 * 60;

/// Remembers for a day that a command for `order` was taken.
pub async fn remember(redis: &Redis, command: CommandId, order: OrderId) -> Result<()> {
    let (key, expires) = (redis.keys.pending_command(command), Some(Expiration::EX(REMEMBERED_FOR)));
    redis.client().set(key, order.to_string(), expires, None, false).await.map_err(redis_error)
}

/// The order of a command that was taken in the last day; it may have its outcome by now.
pub async fn find(redis: &Redis, command: CommandId) -> Result<Option<OrderId>> {
    let found: Option<String> = redis.client().get(redis.keys.pending_command(command)).await.map_err(redis_error)?;
    found.map(|order| order.parse().map(OrderId).map_err(Error::internal)).transpose()
}
