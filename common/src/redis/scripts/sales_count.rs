use std::{
    collections::{BTreeMap, HashMap},
    sync::LazyLock,
};

use chrono_tz::Tz;
use fred::types::{Value, scripts::Script};

use super::{
    Contract, integer, run,
    sales_changes::{Days, with_sales_changes},
    unexpected,
};
use crate::{
    domain::{event::Epoch, ranking::SalesChange},
    error::Result,
    redis::{Redis, SalesCounted, SalesMessage},
};

pub(super) const CONTRACT: Contract = Contract {
    source: with_sales_changes!("../../../../lua/sales_count.lua"),
    keys: &["applied", "counted", "building", "changed", "day", "window, info"],
    arguments: &[
        "days",
        "sources",
        "seen",
        "remembered",
        "epoch",
        "expires_at, date",
        "source, first, next, sequence",
        "source, next",
        "source, sequence, day, product, units",
    ],
    codes: &[("LOST", 0), ("COUNTED", 1)],
};
static SCRIPT: LazyLock<Script> = LazyLock::new(|| CONTRACT.script());

/// What the consumer remembers of what Redis has counted for it, to notice that Redis returned to an older state. It
/// grows with the number of sources only.
#[derive(Clone, Debug, Default)]
pub(in crate::redis) struct SalesMemory {
    /// The `applied` that was seen last.
    applied: Option<u64>,
    /// The next offset, by source.
    next: BTreeMap<String, u64>,
}

impl SalesMemory {
    fn note(&mut self, applied: u64, spans: &HashMap<&str, Span>) {
        if self.applied != Some(applied) {
            // A rebuild replaced the days, and with them all that Redis had counted before.
            self.next.clear();
        }
        self.applied = Some(applied);
        for (source, span) in spans {
            let next = self.next.entry((*source).to_owned()).or_default();
            *next = span.next.max(*next);
        }
    }
}

/// Consecutive messages of one source.
#[derive(Clone, Copy)]
struct Span {
    place: usize,
    first: u64,
    next: u64,
    sequence: u64,
}

/// Counts the changes of messages, each once. The messages of a source follow each other without a gap. See
/// `lua/sales_count.lua`.
pub(in crate::redis) async fn sales_count(
    redis: &Redis,
    epoch: Epoch,
    memory: &mut SalesMemory,
    messages: &[SalesMessage],
    zone: Tz,
) -> Result<SalesCounted> {
    let (sources, spans) = spans(messages);
    let changes = new_changes(messages, &spans);
    let days = Days::of(changes.iter().map(|(_, _, change)| change));
    let seen = memory.applied.map(|applied| applied.to_string()).unwrap_or_default();
    let mut arguments: Vec<Value> = vec![days.len().to_string().into(), sources.len().to_string().into(), seen.into()];
    arguments.extend([memory.next.len().to_string().into(), epoch.to_string().into()]);
    arguments.extend(days.arguments(zone));
    for source in sources {
        let Some(Span { first, next, sequence, .. }) = spans.get(source) else { continue };
        arguments.push(source.into());
        arguments.extend([first, next, sequence].map(|number| Value::from(number.to_string())));
    }
    for (source, next) in &memory.next {
        arguments.extend([Value::from(source.as_str()), next.to_string().into()]);
    }
    for (place, sequence, change) in changes {
        arguments.extend([place.to_string(), sequence.to_string()].map(Value::from));
        arguments.extend(days.change(&change));
    }
    let reply = run(redis, &SCRIPT, days.keys(redis), arguments).await?;
    match integer(reply.first())? {
        0 => Ok(SalesCounted::Gap { applied: memory.applied.unwrap_or_default() }),
        1 => {
            let applied = reply.get(1).and_then(Value::as_u64).ok_or_else(|| unexpected(&reply))?;
            memory.note(applied, &spans);
            Ok(SalesCounted::Counted)
        }
        _ => Err(unexpected(&reply)),
    }
}

/// The changes of messages with the number of their source and their sequence. A message that occurs twice changes
/// once.
fn new_changes(messages: &[SalesMessage], spans: &HashMap<&str, Span>) -> Vec<(usize, u64, SalesChange)> {
    let mut new = Vec::new();
    let mut highest: HashMap<&str, u64> = HashMap::new();
    for SalesMessage { source, sequence, changes, .. } in messages {
        let highest = highest.entry(source).or_default();
        // Sequences of a source ascend at first delivery, so a lower one is a repeat.
        if sequence > highest {
            *highest = *sequence;
            let place = spans.get(source.as_str()).map_or(0, |span| span.place);
            new.extend(changes.iter().map(|change| (place, *sequence, *change)));
        }
    }
    new
}

/// The sources of messages in order of appearance, and the span of each.
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
