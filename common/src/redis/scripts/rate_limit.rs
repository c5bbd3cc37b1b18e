use std::{sync::LazyLock, time::Duration};

use fred::types::{Value, scripts::Script};

use super::{Contract, run, unexpected};
use crate::{error::Result, redis::Redis};

pub(super) const CONTRACT: Contract = Contract {
    source: include_str!("../../../../lua/rate_limit.lua"),
    keys: &["limited"],
    arguments: &["interval, window"],
    codes: &[("DECIDED", 1), ("ALLOWED", 1), ("REFUSED", 2)],
};
static SCRIPT: LazyLock<Script> = LazyLock::new(|| CONTRACT.script());

const DECISION_BYTES: usize = 9;

/// So many requests within a window; all of them may come at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    pub quota: u32,
    pub window: Duration,
}

/// What one limit says of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateDecision {
    pub is_allowed: bool,
    /// Requests that are allowed at once after this one.
    pub remaining: u32,
    /// Until one more is allowed; of an allowed request, until none counts any more.
    pub wait: Duration,
}

/// Counts requests, each with one key for each of `limits`. A request that one of its limits refuses counts against none.
/// See `lua/rate_limit.lua`.
pub async fn rate_limit(
    redis: &Redis,
    limits: &[RateLimit],
    requests: impl IntoIterator<Item = Vec<String>>,
) -> Result<Vec<Vec<RateDecision>>> {
    let keys: Vec<String> = requests.into_iter().flatten().collect();
    let count = keys.len();
    let micros = |duration: Duration| Value::from(i64::try_from(duration.as_micros()).unwrap_or(i64::MAX));
    let arguments =
        limits.iter().flat_map(|limit| [micros(limit.window / limit.quota.max(1)), micros(limit.window)]).collect();
    let reply = run(redis, &SCRIPT, keys, arguments).await?;
    let [Value::Integer(1), packed] = reply.as_slice() else { return Err(unexpected(&reply)) };
    let packed = packed.as_bytes().filter(|packed| packed.len() == count * DECISION_BYTES);
    let packed = packed.ok_or_else(|| unexpected(&reply))?;
    let decisions: Vec<RateDecision> =
        packed.chunks_exact(DECISION_BYTES).map(decision).collect::<Option<_>>().ok_or_else(|| unexpected(&reply))?;
    Ok(decisions.chunks(limits.len().max(1)).map(<[RateDecision]>::to_vec).collect())
}

fn decision(packed: &[u8]) -> Option<RateDecision> {
    let number = |from: usize| Some(u32::from_be_bytes(packed.get(from..from + 4)?.try_into().ok()?));
    let is_allowed = match packed.first()? {
        1 => true,
        2 => false,
        _ => return None,
    };
    Some(RateDecision { is_allowed, remaining: number(1)?, wait: Duration::from_millis(u64::from(number(5)?)) })
}
