use std::sync::LazyLock;

use chrono::NaiveDate;
use fred::types::{Value, scripts::Script};
use uuid::Uuid;

use super::{
    Contract, integer, run,
    sales_windows::{self, RETENTION_SECONDS, with_sales_show},
    unexpected,
};
use crate::{clock::Timestamp, domain::event::Position, error::Result, redis::Redis};

pub(super) const CONTRACT: Contract = Contract {
    source: with_sales_show!("../../../../lua/sales_put.lua"),
    keys: &["applied", "counted", "building", "changed", "day, staged", "window, staged, info"],
    arguments: &["position", "days", "retention_seconds", "expires_at", "from, to"],
    codes: &[("LATE", 0), ("PUT", 1)],
};
static SCRIPT: LazyLock<Script> = LazyLock::new(|| CONTRACT.script());

/// Replaces days by those that `rebuild` staged, which contain every event up to `position`, and the windows by those
/// up to `to` that it staged. Each day comes with its expiry. Returns false, and changes nothing, when another rebuild
/// was faster: [`crate::redis::sales::invalidate`] comes first. See `lua/sales_put.lua`.
pub async fn sales_put(
    redis: &Redis,
    rebuild: Uuid,
    position: Position,
    days: &[(NaiveDate, Timestamp)],
    to: NaiveDate,
) -> Result<bool> {
    let mut keys = vec![redis.keys.sales_applied(), redis.keys.sales_counted()];
    keys.extend([redis.keys.sales_building(), redis.keys.sales_changed()]);
    let mut arguments = vec![Value::from(position.to_string()), days.len().to_string().into()];
    arguments.push(RETENTION_SECONDS.into());
    for (day, expires_at) in days {
        let key = redis.keys.daily_sales(*day);
        let staged = redis.keys.staged(&key, rebuild);
        keys.extend([key, staged]);
        arguments.push(Value::from(expires_at.timestamp()));
    }
    keys.extend(sales_windows::keys(redis, rebuild));
    arguments.extend(sales_windows::spans(to));
    let answer = run(redis, &SCRIPT, keys, arguments).await?;
    match integer(answer.first())? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(unexpected(&answer)),
    }
}
