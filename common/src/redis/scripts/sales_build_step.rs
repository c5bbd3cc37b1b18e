use std::sync::LazyLock;

use chrono::NaiveDate;
use fred::types::{Value, scripts::Script};
use uuid::Uuid;

use super::{
    Contract, integer, run,
    sales_windows::{self, RETENTION_SECONDS, with_sales_show},
    unexpected,
};
use crate::{
    domain::ranking::{LONGEST_WINDOW, WINDOWS, last_days},
    error::Result,
    redis::{Redis, sales::STAGED_TTL_SECONDS},
};

pub(super) const CONTRACT: Contract = Contract {
    source: with_sales_show!("../../../../lua/sales_build_step.lua"),
    keys: &["applied", "building", "changed", "day", "window, staged, info"],
    arguments: &["build", "limit", "days", "retention_seconds", "staged_seconds", "from, to", "length"],
    codes: &[("LOST", 0), ("SHOWN", 1), ("MORE", 2), ("SUPERSEDED", 3)],
};
static SCRIPT: LazyLock<Script> = LazyLock::new(|| CONTRACT.script());

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BuildStep {
    /// Redis does not know which events are counted.
    Lost,
    /// The windows are replaced, and the build has ended.
    Shown,
    /// Products are left for another step.
    More,
    /// A newer build or a rebuild of the days began since, or this one took too long.
    Superseded,
}

/// Brings the windows up to `to` that `build` staged up to date with at most `limit` products whose sales changed since
/// it began, and shows them once there are no more of these. See `lua/sales_build_step.lua`.
pub async fn sales_build_step(redis: &Redis, build: Uuid, to: NaiveDate, limit: u32) -> Result<BuildStep> {
    let mut keys = vec![redis.keys.sales_applied(), redis.keys.sales_building(), redis.keys.sales_changed()];
    keys.extend(last_days(to, LONGEST_WINDOW.into()).map(|day| redis.keys.daily_sales(day)));
    keys.extend(sales_windows::keys(redis, build));
    let mut arguments = vec![Value::from(build.to_string()), i64::from(limit).into(), i64::from(LONGEST_WINDOW).into()];
    arguments.extend([RETENTION_SECONDS, STAGED_TTL_SECONDS].map(Value::from));
    arguments.extend(sales_windows::spans(to));
    arguments.extend(WINDOWS.map(|days| Value::from(i64::from(days))));
    let reply = run(redis, &SCRIPT, keys, arguments).await?;
    match integer(reply.first())? {
        0 => Ok(BuildStep::Lost),
        1 => Ok(BuildStep::Shown),
        2 => Ok(BuildStep::More),
        3 => Ok(BuildStep::Superseded),
        _ => Err(unexpected(&reply)),
    }
}
