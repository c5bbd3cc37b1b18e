use std::sync::LazyLock;

use fred::types::{Value, scripts::Script};

use super::{Contract, count, run};
use crate::{error::Result, redis::Redis};

pub(super) const CONTRACT: Contract = Contract {
    source: include_str!("../../../../lua/refresh.lua"),
    keys: &["stream"],
    arguments: &["group", "consumer", "entry"],
    codes: &[("REFRESHED", 1)],
};
static SCRIPT: LazyLock<Script> = LazyLock::new(|| CONTRACT.script());

/// Resets the idle time of entries that are still pending at this consumer. Returns how many there were.
/// See `lua/refresh.lua`.
pub async fn refresh(redis: &Redis, stream: String, group: &str, consumer: &str, entries: &[String]) -> Result<u64> {
    let arguments = [group, consumer].into_iter().chain(entries.iter().map(String::as_str)).map(Value::from).collect();
    count(&run(redis, &SCRIPT, vec![stream], arguments).await?)
}
