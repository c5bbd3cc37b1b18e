use std::sync::LazyLock;

use fred::types::{Value, scripts::Script};

use super::{Contract, integer, run, unexpected};
use crate::{
    error::{Error, Result},
    redis::Redis,
};

pub(super) const CONTRACT: Contract = Contract {
    source: include_str!("../../../../lua/enqueue.lua"),
    keys: &["stream"],
    arguments: &["longest", "strings, name, value"],
    codes: &[],
};
static SCRIPT: LazyLock<Script> = LazyLock::new(|| CONTRACT.script());

/// Appends entries to a stream on which at most `longest` may wait, each of these fields: names and values in turn.
/// Returns how many of them, the first ones, had room. See `lua/enqueue.lua`.
pub async fn enqueue_all(redis: &Redis, stream: String, longest: u64, entries: Vec<Vec<String>>) -> Result<usize> {
    // The length is checked in the script: between a check of the client and its append, others would append too.
    let mut arguments: Vec<Value> = vec![longest.to_string().into()];
    for fields in entries {
        arguments.push(fields.len().to_string().into());
        arguments.extend(fields.into_iter().map(Value::from));
    }
    let answer = run(redis, &SCRIPT, vec![stream], arguments).await?;
    usize::try_from(integer(answer.first())?).map_err(|_| unexpected(&answer))
}

/// Appends one entry; [`Error::Overloaded`] when there is no room.
pub async fn enqueue(redis: &Redis, stream: String, longest: u64, fields: Vec<String>) -> Result<()> {
    match enqueue_all(redis, stream, longest, vec![fields]).await? {
        0 => Err(Error::Overloaded),
        _ => Ok(()),
    }
}
