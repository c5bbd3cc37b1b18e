//! One typed function for each file in `lua/`, of the same name. A file's head comment is its contract; the test
//! below holds each against the [`Contract`] of its caller here.

mod acknowledge;
mod campaign_put;
mod claim;
mod enqueue;
mod rate_limit;
mod refresh;
mod remember_position;
mod remove_idle_consumers;
mod return_slots;
mod sales_apply;
mod sales_build_begin;
mod sales_build_step;
mod sales_changes;
mod sales_count;
mod sales_put;
mod sales_windows;

pub use acknowledge::acknowledge;
pub(super) use campaign_put::term_fields;
pub use campaign_put::{CampaignCounts, CampaignLowered, CampaignPut, campaign_lower, campaign_put, campaign_update};
pub use claim::{ClaimRequest, Decision, Decisions, RECORD_BYTES, assign, claim, read_record, write_record};
pub use enqueue::{enqueue, enqueue_all};
use fred::{
    clients::Client,
    types::{Value, scripts::Script},
};
pub use rate_limit::{RateDecision, RateLimit, rate_limit};
pub use refresh::refresh;
pub use remember_position::remember_position;
pub use remove_idle_consumers::remove_idle_consumers;
pub use return_slots::return_slots;
pub(super) use sales_apply::sales_apply;
pub use sales_build_begin::sales_build_begin;
pub use sales_build_step::{BuildStep, sales_build_step};
pub(super) use sales_count::{SalesMemory, sales_count};
pub use sales_put::sales_put;

use crate::{
    error::{Error, Result},
    redis::{Redis, redis_error},
};

/// The keys, arguments and codes of a script as its caller uses them.
#[cfg_attr(not(test), expect(dead_code, reason = "the tests compare the contract with the scripts"))]
struct Contract {
    source: &'static str,
    keys: &'static [&'static str],
    /// Names of the arguments; the last is `*` and the names of a group that repeats, when one does.
    arguments: &'static [&'static str],
    codes: &'static [(&'static str, i64)],
}

impl Contract {
    fn script(&self) -> Script {
        Script::from_lua(self.source)
    }
}

/// Runs a script. Its source is sent only when Redis does not have it.
async fn run(redis: &Redis, script: &Script, keys: Vec<String>, arguments: Vec<Value>) -> Result<Vec<Value>> {
    // After a restart Redis has lost its scripts, and replies NOSCRIPT: then the source is sent.
    let answer: Value = if let Some(client) = redis.single() {
        // Without the copies that another attempt would need: a batch of claims has hundreds of arguments.
        script.evalsha_with_reload(client, keys, arguments).await.map_err(redis_error)?
    } else {
        let Some(key) = keys.first() else { return Err(unexpected(&"a script without keys")) };
        let evaluate =
            async |client: Client| script.evalsha_with_reload(&client, keys.clone(), arguments.clone()).await;
        redis.run(key, evaluate).await?
    };
    match answer {
        Value::Array(values) => Ok(values),
        other => Err(unexpected(&other)),
    }
}

fn integer(value: Option<&Value>) -> Result<i64> {
    value.and_then(Value::as_i64).ok_or_else(|| unexpected(&value))
}

/// The number in a reply of the code 1.
fn count(reply: &[Value]) -> Result<u64> {
    match (integer(reply.first())?, reply.get(1)) {
        (1, number) => Ok(u64::try_from(integer(number)?).unwrap_or(0)),
        _ => Err(unexpected(&reply)),
    }
}

fn unexpected(answer: &dyn std::fmt::Debug) -> Error {
    Error::internal(format!("a script returned a reply that is not in its contract: {answer:?}"))
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, fs, path::Path};

    use super::*;

    const CONTRACTS: [(&str, &Contract); 14] = [
        ("acknowledge", &acknowledge::CONTRACT),
        ("campaign_put", &campaign_put::CONTRACT),
        ("claim", &claim::CONTRACT),
        ("enqueue", &enqueue::CONTRACT),
        ("rate_limit", &rate_limit::CONTRACT),
        ("refresh", &refresh::CONTRACT),
        ("remember_position", &remember_position::CONTRACT),
        ("remove_idle_consumers", &remove_idle_consumers::CONTRACT),
        ("return_slots", &return_slots::CONTRACT),
        ("sales_apply", &sales_apply::CONTRACT),
        ("sales_build_begin", &sales_build_begin::CONTRACT),
        ("sales_build_step", &sales_build_step::CONTRACT),
        ("sales_count", &sales_count::CONTRACT),
        ("sales_put", &sales_put::CONTRACT),
    ];

    /// The lines of the head comment, without their dashes.
    fn head(source: &str) -> Vec<&str> {
        source.lines().map_while(|line| line.strip_prefix("--")).map(str::trim).collect()
    }

    fn named<'s>(head: &[&'s str], marker: &str) -> Vec<&'s str> {
        let lines = head.iter().filter_map(|line| line.strip_prefix(marker));
        lines.filter_map(|line| Some(line.split_once(']')?.1.trim().split("   ").next()?.trim())).collect()
    }

    fn head_codes(head: &[&str]) -> BTreeMap<String, i64> {
        let assignments = head.iter().filter_map(|line| line.split_once(" = "));
        let codes = assignments.filter_map(|(name, rest)| {
            let value = rest.split_whitespace().next()?.parse().ok()?;
            name.chars().all(|c| c.is_ascii_uppercase() || c == '_').then(|| (name.to_owned(), value))
        });
        codes.collect()
    }

    /// Codes as the body assigns them: `local A, B = 0, 1`.
    fn body_codes(source: &str) -> BTreeMap<String, i64> {
        let mut codes = BTreeMap::new();
        for line in source.lines().filter_map(|line| line.strip_prefix("local ")) {
            let Some((names, values)) = line.split_once(" = ") else { continue };
            for (name, value) in names.split(", ").zip(values.split(", ")) {
                if let (true, Ok(value)) = (name.chars().all(|c| c.is_ascii_uppercase() || c == '_'), value.parse()) {
                    codes.insert(name.to_owned(), value);
                }
            }
        }
        codes.remove("RECORD_BYTES");
        codes
    }

    #[test]
    fn every_script_has_a_caller() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../lua");
        let mut files: Vec<String> = fs::read_dir(folder)
            .expect("the folder of scripts")
            .map(|entry| entry.expect("an entry").path())
            // Texts in `shared/` are parts of scripts.
            .filter(|path| path.is_file())
            .map(|path| path.file_stem().expect("a name").to_string_lossy().into_owned())
            .collect();
        files.sort();
        assert_eq!(files, CONTRACTS.map(|(name, _)| name));
    }

    #[test]
    fn every_head_comment_is_the_contract_of_its_caller() {
        for (name, contract) in CONTRACTS {
            let head = head(contract.source);
            assert_eq!(named(&head, "KEYS["), contract.keys, "keys of {name}");
            assert_eq!(named(&head, "ARGV["), contract.arguments, "arguments of {name}");
            let expected: BTreeMap<String, i64> =
                contract.codes.iter().map(|(code, value)| ((*code).to_owned(), *value)).collect();
            assert_eq!(head_codes(&head), expected, "codes in the head of {name}");
            assert_eq!(body_codes(contract.source), expected, "codes in the body of {name}");
        }
    }

    /// Redis runs one command at a time: while one frees or reads a million members, all other clients wait.
    #[test]
    fn no_script_has_a_command_whose_work_grows_with_the_data() {
        for (name, contract) in CONTRACTS {
            for command in
                ["DEL", "KEYS", "HGETALL", "HKEYS", "HVALS", "SMEMBERS", "XRANGE", "ZRANGE", "LRANGE", "SORT"]
            {
                let call = format!("'{command}'");
                assert!(!contract.source.contains(&call), "{name} calls {command}");
            }
        }
    }
}
