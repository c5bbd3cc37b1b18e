use std::sync::LazyLock;

use fred::types::{Value, scripts::Script};

use super::{Contract, count, run};
use crate::{error::Result, redis::Redis};

pub(super) const CONTRACT: Contract = Contract {
    source: include_str!("../../../../lua/acknowledge.lua"),
    keys: &["stream"],
    arguments: &["group", "entry"],
    codes: &[("ACKNOWLEDGED", 1)],
};
static SCRIPT: LazyLock<Script> = LazyLock::new(|| CONTRACT.script());

/// Takes entries off a stream once their outcome is durable; returns how many were still there.
/// See `lua/acknowledge.lua`.
pub async fn acknowledge(redis: &Redis, stream: String, group: &str, entries: &[String]) -> Result<u64> {
    // XACK and XDEL in one script: an entry that was acknowledged but not deleted would stay on the stream for ever.
    let ids = entries.iter().map(|entry| Value::from(entry.as_str()));
    let arguments = std::iter::once(Value::from(group)).chain(ids).collect();
    count(&run(redis, &SCRIPT, vec![stream], arguments).await?)
}
