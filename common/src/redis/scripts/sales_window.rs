use std::sync::LazyLock;

use chrono::NaiveDate;
use fred::types::{Value, scripts::Script};
use uuid::Uuid;

use super::{Contract, integer, run, unexpected};
use crate::{clock::Timestamp, error::Result, redis::Redis};

pub(super) const CONTRACT: Contract = Contract {
    source: include_str!("../../../../lua/sales_window.lua"),
    keys: &["applied", "window", "staged", "info"],
    arguments: &["to", "at", "retention_seconds"],
    codes: &[("LOST", 0), ("SHOWN", 1)],
};
static SCRIPT: LazyLock<Script> = LazyLock::new(|| CONTRACT.script());

/// How long a window is served when no worker replaces it. Its info says how old it is.
const RETENTION_SECONDS: i64 = 24 * 60 * 60;

/// Replaces the window of `days` days up to `to` by the one that `rebuild` staged. Returns false, and changes nothing,
/// when Redis does not know which events are counted. See `lua/sales_window.lua`.
pub async fn sales_window(redis: &Redis, days: u8, rebuild: Uuid, to: NaiveDate, now: Timestamp) -> Result<bool> {
    let window = redis.keys.sales_window(days);
    let staged = redis.keys.staged(&window, rebuild);
    let keys = vec![redis.keys.sales_applied(), window, staged, redis.keys.sales_window_info(days)];
    let arguments = vec![Value::from(to.to_string()), now.timestamp_millis().into(), RETENTION_SECONDS.into()];
    let answer = run(redis, &SCRIPT, keys, arguments).await?;
    match integer(answer.first())? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(unexpected(&answer)),
    }
}
