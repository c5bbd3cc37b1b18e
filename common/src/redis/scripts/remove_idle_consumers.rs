use std::{sync::LazyLock, time::Duration};

use fred::types::{Value, scripts::Script};

use super::{Contract, count, run};
use crate::{error::Result, redis::Redis};

pub(super) const CONTRACT: Contract = Contract {
    source: include_str!("../../../../lua/remove_idle_consumers.lua"),
    keys: &["stream"],
    arguments: &["group", "min_idle", "limit"],
    codes: &[("REMOVED", 1)],
};
static SCRIPT: LazyLock<Script> = LazyLock::new(|| CONTRACT.script());

/// More are removed by the next call.
const LIMIT: i64 = 100;

/// Removes consumers that have nothing pending and did not read for `min_idle`; returns their number.
/// See `lua/remove_idle_consumers.lua`.
pub async fn remove_idle_consumers(redis: &Redis, stream: String, group: &str, min_idle: Duration) -> Result<u64> {
    let min_idle = i64::try_from(min_idle.as_millis()).unwrap_or(i64::MAX);
    let arguments = vec![Value::from(group), Value::from(min_idle), Value::from(LIMIT)];
    count(&run(redis, &SCRIPT, vec![stream], arguments).await?)
}
