use std::{
    collections::{BTreeMap, HashMap},
    sync::LazyLock,
};

use chrono::NaiveDate;
use fred::types::{Value, scripts::Script};

use super::{Contract, integer, run, unexpected};
use crate::{clock::Timestamp, domain::ranking::Effect, error::Result, keys::sales_member, redis::Redis};

pub(super) const CONTRACT: Contract = Contract {
    source: include_str!("../../../lua/sales_count.lua"),
    keys: &["applied", "counted", "day"],
    arguments: &[
        "days",
        "sources",
        "expires_at",
        "source, first, next, sequence",
        "source, sequence, day, product, units",
    ],
    codes: &[("LOST", 0), ("COUNTED", 1)],
};
static SCRIPT: LazyLock<Script> = LazyLock::new(|| CONTRACT.script());

/// What a message tells of sales.
#[derive(Clone, Debug)]
pub struct SalesMessage {
    /// The partition of a topic that it is from: its name, which never changes.
    pub source: String,
    /// Its place there, from 0.
    pub offset: u64,
    /// The sequence of its event; 0 when it tells of none.
    pub sequence: u64,
    /// What it changes.
    pub effects: Vec<Effect>,
}

/// The messages of one source that follow on each other.
#[derive(Clone, Copy)]
struct Span {
    place: usize,
    first: u64,
    next: u64,
    sequence: u64,
}

/// Counts what messages tell, each once, however often they come; those of a source in its order, without a gap. False
/// when nothing was counted, as Redis has not counted what came before: then days are to be made anew first.
/// `forgotten_at` says when Redis may forget a day. See `lua/sales_count.lua`.
pub async fn sales_count(
    redis: &Redis,
    messages: &[SalesMessage],
    forgotten_at: impl Fn(NaiveDate) -> Timestamp,
) -> Result<bool> {
    let (sources, spans) = spans(messages);
    let mut changes = Vec::new();
    let mut highest: HashMap<&str, u64> = HashMap::new();
    for SalesMessage { source, sequence, effects, .. } in messages {
        // One that comes twice in the same call counts once.
        let highest = highest.entry(source).or_default();
        if sequence > highest {
            *highest = *sequence;
            let place = spans.get(source.as_str()).map_or(0, |span| span.place);
            changes.extend(effects.iter().map(|effect| (place, *sequence, *effect)));
        }
    }
    let mut days: BTreeMap<NaiveDate, usize> = changes.iter().map(|(_, _, effect)| (effect.day, 0)).collect();
    for (place, number) in days.values_mut().zip(1..) {
        *place = number;
    }
    let mut keys = vec![redis.keys.sales_applied(), redis.keys.sales_counted()];
    keys.extend(days.keys().map(|day| redis.keys.daily_sales(*day)));
    let mut arguments = vec![Value::from(days.len().to_string()), sources.len().to_string().into()];
    arguments.extend(days.keys().map(|day| Value::from(forgotten_at(*day).timestamp())));
    for source in sources {
        let Some(Span { first, next, sequence, .. }) = spans.get(source) else { continue };
        arguments.push(source.into());
        arguments.extend([first, next, sequence].map(|number| Value::from(number.to_string())));
    }
    for (place, sequence, Effect { day, product, units }) in changes {
        let day = days.get(&day).copied().unwrap_or_default();
        let change =
            [place.to_string(), sequence.to_string(), day.to_string(), sales_member(product), units.to_string()];
        arguments.extend(change.map(Value::from));
    }
    let answer = run(redis, &SCRIPT, keys, arguments).await?;
    match integer(answer.first())? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(unexpected(&answer)),
    }
}

/// The sources of messages, in order, and what is there of each.
fn spans(messages: &[SalesMessage]) -> (Vec<&str>, HashMap<&str, Span>) {
    let (mut sources, mut spans) = (Vec::new(), HashMap::new());
    for SalesMessage { source, offset, sequence, .. } in messages {
        let span = spans.entry(source.as_str()).or_insert_with(|| {
            sources.push(source.as_str());
            Span { place: sources.len(), first: *offset, next: *offset, sequence: 0 }
        });
        span.next = span.next.max(offset + 1);
        span.sequence = span.sequence.max(*sequence);
    }
    (sources, spans)
}
