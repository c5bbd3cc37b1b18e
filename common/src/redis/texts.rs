//! Texts under keys of their own, each of which expires.

use std::time::Duration;

use fred::{clients::Client, interfaces::KeysInterface as _, types::Expiration};

use super::Redis;
use crate::error::Result;

pub async fn get(redis: &Redis, key: &str) -> Result<Option<String>> {
    redis.run(key, async |client: Client| client.get(key).await).await
}

pub async fn set(redis: &Redis, key: &str, text: &str, kept: Duration) -> Result<()> {
    let expires = Some(Expiration::EX(i64::try_from(kept.as_secs()).unwrap_or(i64::MAX)));
    redis.run(key, async |client: Client| client.set(key, text, expires.clone(), None, false).await).await
}

/// The text, which is then gone: of several callers one gets it.
pub async fn take(redis: &Redis, key: &str) -> Result<Option<String>> {
    redis.run(key, async |client: Client| client.getdel(key).await).await
}

pub async fn delete(redis: &Redis, key: &str) -> Result<()> {
    redis.run(key, async |client: Client| client.del::<(), _>(key).await).await
}
