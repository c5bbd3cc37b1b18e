//! How far `MySQL` was when a worker looked last: a `MySQL` that is behind it was restored to an earlier state.

use fred::interfaces::KeysInterface as _;

use crate::{
    domain::event::Position,
    error::{Error, Result},
    redis::Redis,
};

/// The remembered position; none when Redis has none. [`crate::redis::scripts::remember_position`] writes it.
pub async fn find(redis: &Redis) -> Result<Option<Position>> {
    let key = redis.keys.database_position();
    let position: Option<String> = redis.run(&key, async |client| client.get(&key).await).await?;
    position.map(|position| position.parse().map_err(Error::internal)).transpose()
}
