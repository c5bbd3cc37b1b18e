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
    arguments: &["longest", "name, value"],
    codes: &[("FULL", 0), ("APPENDED", 1)],
};
static SCRIPT: LazyLock<Script> = LazyLock::new(|| CONTRACT.script());

/// Appends an entry of these fields, names and values in turn, to a stream on which at most `longest` entries may
/// wait; [`Error::Overloaded`] when as many do. See `lua/enqueue.lua`.
pub async fn enqueue(redis: &Redis, stream: String, longest: u64, fields: Vec<String>) -> Result<()> {
    // The length is checked in the script: between a check of the client and its append, others would append too.
    let arguments = std::iter::once(longest.to_string()).chain(fields).map(Value::from).collect();
    let answer = run(redis, &SCRIPT, vec![stream], arguments).await?;
    match integer(answer.first())? {
        0 => Err(Error::Overloaded),
        1 => Ok(()),
        _ => Err(unexpected(&answer)),
    }
}
