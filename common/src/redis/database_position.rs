//! How far `MySQL` was when a worker looked last: a `MySQL` that is behind it was restored to an earlier state.

use fred::interfaces::KeysInterface as _;

use crate::{
    domain::event::Position,
    error::{Error, Result},
    redis::{Redis, redis_error},
};

/// The remembered position; none when Redis has none. [`crate::redis::scripts::remember_position`] writes it.
pub async fn find(redis: &Redis) -> Result<Option<Position>> {
    let position: Option<String> = redis.client().get(redis.keys.database_position()).await.map_err(redis_error)?;
    position.map(|position| position.parse().map_err(Error::internal)).transpose()
}
