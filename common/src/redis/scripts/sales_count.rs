use std::{
    collections::{BTreeMap, HashMap},
    sync::LazyLock,
};

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
    source: include_str!("../../../../lua/sales_count.lua"),
    keys: &["applied", "counted", "day"],
    arguments: &[
        "days",
        "sources",
        "seen",
        "remembered",
        "expires_at",
        "source, first, next, sequence",
        "source, next",
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

/// What whoever counts remembers of what Redis has counted for it, to notice when Redis comes back with older data. It
/// grows with the number of sources alone.
#[derive(Clone, Debug, Default)]
pub struct SalesMemory {
    /// The `applied` that was seen last.
    applied: Option<u64>,
    /// The offset that comes next, by source.
    next: BTreeMap<String, u64>,
}

impl SalesMemory {
    fn note(&mut self, applied: u64, spans: &HashMap<&str, Span>) {
        if self.applied != Some(applied) {
            // The days were made anew meanwhile: nothing of what Redis had counted before is known to it.
            self.next.clear();
        }
        self.applied = Some(applied);
        for (source, span) in spans {
            let next = self.next.entry((*source).to_owned()).or_default();
            *next = span.next.max(*next);
        }
    }
}

/// The messages of one source that follow on each other.
#[derive(Clone, Copy)]
struct Span {
    place: usize,
    first: u64,
    next: u64,
    sequence: u64,
}

/// How many changes one call of the script makes, but for a message that alone has more: a few ms of Redis.
const MOST_CHANGES: usize = 5_000;

/// Cuts messages into pieces to count one after the other: where one does not follow on the one before it of its source,
/// which the script cannot see inside a piece, and where there would be too many changes. No messages are one piece.
pub fn pieces(messages: &[SalesMessage]) -> Vec<&[SalesMessage]> {
    let (mut pieces, mut begin, mut changes) = (Vec::new(), 0, 0);
    let mut next: HashMap<&str, u64> = HashMap::new();
    for (place, SalesMessage { source, offset, effects, .. }) in messages.iter().enumerate() {
        let follows = next.get(source.as_str()).is_none_or(|next| offset <= next);
        changes += effects.len();
        if !follows || changes > MOST_CHANGES && place > begin {
            pieces.push(&messages[begin..place]);
            (begin, changes) = (place, effects.len());
            next.clear();
        }
        let next = next.entry(source).or_default();
        *next = (offset + 1).max(*next);
    }
    pieces.push(&messages[begin..]);
    pieces
}

/// Counts what messages tell, each once, however often they come; those of a source in its order, without a gap, see
/// [`pieces`]. False when nothing was counted, as Redis has not counted what came before, or no longer what is
/// remembered: then days are to be made anew first. `forgotten_at` says when Redis may forget a day. See
/// `lua/sales_count.lua`.
pub async fn sales_count(
    redis: &Redis,
    memory: &mut SalesMemory,
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
    let seen = memory.applied.map(|applied| applied.to_string()).unwrap_or_default();
    let mut arguments: Vec<Value> = vec![days.len().to_string().into(), sources.len().to_string().into(), seen.into()];
    arguments.push(memory.next.len().to_string().into());
    arguments.extend(days.keys().map(|day| Value::from(forgotten_at(*day).timestamp())));
    for source in sources {
        let Some(Span { first, next, sequence, .. }) = spans.get(source) else { continue };
        arguments.push(source.into());
        arguments.extend([first, next, sequence].map(|number| Value::from(number.to_string())));
    }
    for (source, next) in &memory.next {
        arguments.extend([Value::from(source.as_str()), next.to_string().into()]);
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
        1 => {
            let applied = answer.get(1).and_then(Value::as_u64).ok_or_else(|| unexpected(&answer))?;
            memory.note(applied, &spans);
            Ok(true)
        }
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
