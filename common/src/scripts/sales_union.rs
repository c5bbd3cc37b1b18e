use std::sync::LazyLock;

use chrono::NaiveDate;
use fred::types::{Value, scripts::Script};

use super::{Contract, integer, run, unexpected};
use crate::{clock::Timestamp, domain::ranking::last_days, error::Result, redis::Redis};

pub(super) const CONTRACT: Contract = Contract {
    source: include_str!("../../../lua/sales_union.lua"),
    keys: &["applied", "window", "made", "day"],
    arguments: &["to", "at", "kept"],
    codes: &[("LOST", 0), ("MADE", 1)],
};
static SCRIPT: LazyLock<Script> = LazyLock::new(|| CONTRACT.script());

/// For how long a window is shown when no worker makes it anew, in seconds: a day. It says itself how old it is.
const KEPT: i64 = 24 * 60 * 60;

/// Adds up the last `days` days up to `to` for those who read; how many products sold in them. None when Redis does
/// not know what it has counted: then days are to be made anew first. See `lua/sales_union.lua`.
pub async fn sales_union(redis: &Redis, days: u8, to: NaiveDate, now: Timestamp) -> Result<Option<u64>> {
    let mut keys = vec![redis.keys.sales_applied(), redis.keys.sales_window(days), redis.keys.sales_window_made(days)];
    keys.extend(last_days(to, u64::from(days)).map(|day| redis.keys.daily_sales(day)));
    let arguments = vec![Value::from(to.to_string()), now.timestamp_millis().into(), KEPT.into()];
    let answer = run(redis, &SCRIPT, keys, arguments).await?;
    match integer(answer.first())? {
        0 => Ok(None),
        1 => Ok(Some(u64::try_from(integer(answer.get(1))?).unwrap_or_default())),
        _ => Err(unexpected(&answer)),
    }
}
