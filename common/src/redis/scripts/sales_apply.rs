use std::{collections::BTreeMap, sync::LazyLock};

use chrono::NaiveDate;
use fred::types::{Value, scripts::Script};

use super::{Contract, integer, run, unexpected};
use crate::{
    clock::Timestamp,
    domain::ranking::Effect,
    error::Result,
    redis::{Redis, keys::sales_member},
};

pub(super) const CONTRACT: Contract = Contract {
    source: include_str!("../../../../lua/sales_apply.lua"),
    keys: &["applied", "counted", "day"],
    arguments: &["first", "last", "days", "expires_at", "sequence, day, product, units"],
    codes: &[("GAP", 0), ("APPLIED", 1)],
};
static SCRIPT: LazyLock<Script> = LazyLock::new(|| CONTRACT.script());

/// What became of a batch of sales.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SalesApplied {
    /// Nothing was counted: Redis has counted up to this sequence only (0 when it knows of none), and what follows on
    /// it is missing; or some of it was counted from Kafka.
    Gap(u64),
    /// Everything up to this sequence is counted, once.
    Applied(u64),
}

/// Counts what the events of sequence `first` to `last` change, each once, however often they come. `forgotten_at`
/// says when Redis may forget a day. See `lua/sales_apply.lua`.
pub async fn sales_apply(
    redis: &Redis,
    (first, last): (u64, u64),
    effects: &[(u64, Effect)],
    forgotten_at: impl Fn(NaiveDate) -> Timestamp,
) -> Result<SalesApplied> {
    let mut days: BTreeMap<NaiveDate, usize> = effects.iter().map(|(_, effect)| (effect.day, 0)).collect();
    for (place, number) in days.values_mut().zip(1..) {
        *place = number;
    }
    let mut keys = vec![redis.keys.sales_applied(), redis.keys.sales_counted()];
    keys.extend(days.keys().map(|day| redis.keys.daily_sales(*day)));
    let mut arguments = vec![Value::from(first.to_string()), last.to_string().into(), days.len().to_string().into()];
    arguments.extend(days.keys().map(|day| Value::from(forgotten_at(*day).timestamp())));
    for (sequence, Effect { day, product, units }) in effects {
        let day = days.get(day).copied().unwrap_or_default();
        let change = [sequence.to_string(), day.to_string(), sales_member(*product), units.to_string()];
        arguments.extend(change.map(Value::from));
    }
    let answer = run(redis, &SCRIPT, keys, arguments).await?;
    let applied = u64::try_from(integer(answer.get(1))?).unwrap_or_default();
    match integer(answer.first())? {
        0 => Ok(SalesApplied::Gap(applied)),
        1 => Ok(SalesApplied::Applied(applied)),
        _ => Err(unexpected(&answer)),
    }
}
