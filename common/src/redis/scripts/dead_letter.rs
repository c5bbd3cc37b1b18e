use std::sync::LazyLock;

use fred::types::{Value, scripts::Script};

use super::{Contract, integer, run, unexpected};
use crate::{error::Result, redis::Redis};

pub(super) const CONTRACT: Contract = Contract {
    source: include_str!("../../../../lua/dead_letter.lua"),
    keys: &["stream", "dead"],
    arguments: &["group", "entry", "reason", "attempts"],
    codes: &[("GONE", 0), ("MOVED", 1)],
};
static SCRIPT: LazyLock<Script> = LazyLock::new(|| CONTRACT.script());

/// Moves an entry that failed `attempts` times to the dead-letter stream, with the reason. Returns false when the
/// entry was no longer there. See `lua/dead_letter.lua`.
pub async fn dead_letter(
    redis: &Redis,
    (stream, dead): (String, String),
    group: &str,
    entry: &str,
    (reason, attempts): (&str, u64),
) -> Result<bool> {
    let arguments =
        vec![Value::from(group), Value::from(entry), Value::from(reason), Value::from(attempts.to_string())];
    let answer = run(redis, &SCRIPT, vec![stream, dead], arguments).await?;
    match integer(answer.first())? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(unexpected(&answer)),
    }
}
