use std::sync::LazyLock;

use fred::types::{Value, scripts::Script};

use super::{Contract, integer, run, unexpected};
use crate::{domain::event::Position, error::Result, redis::Redis};

pub(super) const CONTRACT: Contract = Contract {
    source: include_str!("../../../../lua/remember_position.lua"),
    keys: &["position"],
    arguments: &["epoch", "sequence", "position"],
    codes: &[("KEPT", 0), ("REMEMBERED", 1)],
};
static SCRIPT: LazyLock<Script> = LazyLock::new(|| CONTRACT.script());

/// Remembers that `MySQL` has reached a position, unless a higher one is remembered; whether it did. See
/// `lua/remember_position.lua`.
pub async fn remember_position(redis: &Redis, position: Position) -> Result<bool> {
    let Position { epoch, sequence } = position;
    let arguments = [epoch.to_string(), sequence.to_string(), position.to_string()].map(Value::from);
    let answer = run(redis, &SCRIPT, vec![redis.keys.database_position()], arguments.into()).await?;
    match integer(answer.first())? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(unexpected(&answer)),
    }
}
