use std::sync::LazyLock;

use fred::types::{Value, scripts::Script};
use uuid::Uuid;

use super::{Contract, integer, run, unexpected};
use crate::{error::Result, redis::Redis};

pub(super) const CONTRACT: Contract = Contract {
    source: include_str!("../../../../lua/sales_build_begin.lua"),
    keys: &["applied", "building", "changed"],
    arguments: &["build", "ttl_seconds"],
    codes: &[("LOST", 0), ("BEGUN", 1)],
};
static SCRIPT: LazyLock<Script> = LazyLock::new(|| CONTRACT.script());

/// After that a build cannot be shown, and changes are no longer noted for one that crashed. Shorter than staged keys
/// are kept.
const TTL_SECONDS: i64 = 60 * 60;

/// Begins a build of the windows, before it reads the days. Returns false, and changes nothing, when Redis does not
/// know which events are counted. See `lua/sales_build_begin.lua`.
pub async fn sales_build_begin(redis: &Redis, build: Uuid) -> Result<bool> {
    let keys = vec![redis.keys.sales_applied(), redis.keys.sales_building(), redis.keys.sales_changed()];
    let reply = run(redis, &SCRIPT, keys, vec![Value::from(build.to_string()), TTL_SECONDS.into()]).await?;
    match integer(reply.first())? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(unexpected(&reply)),
    }
}
