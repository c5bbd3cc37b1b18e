use std::sync::LazyLock;

use chrono::NaiveDate;
use fred::types::{Value, scripts::Script};
use uuid::Uuid;

use super::{Contract, integer, run, unexpected};
use crate::{clock::Timestamp, error::Result, redis::Redis};

pub(super) const CONTRACT: Contract = Contract {
    source: include_str!("../../../../lua/sales_window.lua"),
    keys: &["applied", "window", "staged", "made"],
    arguments: &["to", "at", "kept"],
    codes: &[("LOST", 0), ("SHOWN", 1)],
};
static SCRIPT: LazyLock<Script> = LazyLock::new(|| CONTRACT.script());

/// For how long a window is shown when no worker makes it anew, in seconds: a day. It says itself how old it is.
const KEPT: i64 = 24 * 60 * 60;

/// Shows what `making` staged as the window of `days` days up to `to`, made `now`. Returns false, and changes nothing,
/// when Redis does not know what it has counted. See `lua/sales_window.lua`.
pub async fn sales_window(redis: &Redis, days: u8, making: Uuid, to: NaiveDate, now: Timestamp) -> Result<bool> {
    let window = redis.keys.sales_window(days);
    let staged = redis.keys.staged(&window, making);
    let keys = vec![redis.keys.sales_applied(), window, staged, redis.keys.sales_window_made(days)];
    let arguments = vec![Value::from(to.to_string()), now.timestamp_millis().into(), KEPT.into()];
    let answer = run(redis, &SCRIPT, keys, arguments).await?;
    match integer(answer.first())? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(unexpected(&answer)),
    }
}
