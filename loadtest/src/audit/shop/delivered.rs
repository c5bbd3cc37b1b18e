//! I10: that every sink was told everything. By the tables, and by what the receivers recorded.

use std::{collections::HashSet, ops::RangeInclusive};

use anyhow::{Context as _, Result, anyhow};
use dibs_common::{
    db::{self, outbox::OutboxEvent},
    integrations::messages::{MessageId, Receiver, messages},
};
use sqlx::MySqlPool;

use super::rule::Rule;
use crate::{
    audit::Check,
    numbers::grouped,
    record::{Deliveries, SinkDeliveries},
};

/// Events that are looked at at once. Those of coupons are up to a hundred messages each.
const EVENTS: u64 = 500;

/// What the tables say. A sink that nobody has served for a week is nobody's.
pub const RULES: [Rule; 4] = [
    Rule {
        invariant: "I10",
        holds: "sinks: each has taken every event that has its place",
        rows: "sinks",
        broken: "SELECT CONCAT_WS(' ', 'sink', s.name, 'has taken events up to', s.delivered_through, 'of', \
                 q.last_sequence) AS difference FROM sinks s JOIN outbox_sequence q \
             WHERE s.delivered_through <> q.last_sequence AND s.updated_at > UTC_TIMESTAMP(3) - INTERVAL 7 DAY",
    },
    Rule {
        invariant: "I10",
        holds: "events: each has its place in the order of delivery, where there is a sink",
        rows: "outbox_events",
        broken: "SELECT CONCAT_WS(' ', 'event', event_id, type, 'has no place') AS difference FROM outbox_events \
             WHERE sequence IS NULL AND EXISTS (SELECT 1 FROM sinks)",
    },
    Rule {
        invariant: "I10",
        holds: "parked messages: none of a sink that is served",
        rows: "parked_messages",
        broken: "SELECT CONCAT_WS(' ', p.sink, 'was not told', CONCAT('event-', p.sequence, '-', p.place), p.kind, \
                 'after', p.attempts, 'attempts:', p.last_answer) AS difference \
             FROM parked_messages p JOIN sinks s ON s.name = p.sink \
             WHERE s.updated_at > UTC_TIMESTAMP(3) - INTERVAL 7 DAY",
    },
    Rule {
        invariant: "I10",
        holds: "dead letters of receivers: each refused for good, none asked for and not sent",
        rows: "dead_letters WHERE source IN ('data-platform', 'notifications')",
        broken: "SELECT CONCAT_WS(' ', 'dead letter', dead_letter_id, 'of', source, source_key, 'is', status, reason) \
                 AS difference FROM dead_letters WHERE source IN ('data-platform', 'notifications') \
             AND (status = 'REDRIVE' OR (status = 'DEAD' \
                 AND NOT reason REGEXP '^it answered (400|405|410|413|415|422|501)( |$)'))",
    },
];

/// What the receivers recorded: every message of every event since its sink is known, or since the record began, in
/// order where that matters, and nothing else.
pub async fn recorded(pool: &MySqlPool, deliveries: &Deliveries) -> Result<Vec<Check>> {
    let mut checks = Vec::new();
    for receiver in Receiver::ALL {
        let nothing = SinkDeliveries::default();
        let of_sink = deliveries.sinks.get(receiver.name()).unwrap_or(&nothing);
        checks.push(of_receiver(pool, receiver, of_sink, deliveries.begun_after).await?);
    }
    Ok(checks)
}

async fn of_receiver(
    pool: &MySqlPool,
    receiver: Receiver,
    deliveries: &SinkDeliveries,
    begun_after: u64,
) -> Result<Check> {
    let mut check = Check::new("I10");
    let dead = dead_letters(pool, receiver).await?;
    let mut unknown: HashSet<MessageId> = deliveries.taken().collect();
    let (mut messages_told, mut first) = (0, told_from(pool, receiver).await?);
    check.require(first.is_some(), || format!("there is no sink {}: nobody tells it anything", receiver.name()));
    let last = last_sequence(pool).await?;
    let oldest = oldest_sequence(pool).await?;
    while let Some(from) = first.filter(|from| *from <= last) {
        let through = last.min(from + EVENTS - 1);
        for event in events(pool, from..=through, receiver).await? {
            let told = messages(&event).map_err(|error| anyhow!("event {}: {error}", event.sequence))?;
            for message in told {
                messages_told += 1;
                unknown.remove(&message.id);
                let reached = message.id.sequence <= begun_after
                    || deliveries.has_taken(message.id)
                    || dead.contains(&message.id);
                check
                    .require(reached, || format!("{} was never told {} {}", receiver.name(), message.id, message.kind));
            }
        }
        first = Some(through + 1);
    }
    // Of events that were deleted since, nothing can be said.
    unknown.retain(|id| oldest.is_some_and(|oldest| id.sequence >= oldest));
    check.add(
        unknown.len() as u64,
        unknown.iter().map(|id| format!("{} was told {id}, which is none", receiver.name())),
    );
    check.add(deliveries.faults.count(), deliveries.faults.samples().iter().cloned());
    if receiver.is_in_order() {
        // One that is sent again long after is told late.
        for id in deliveries.out_of_order.iter().filter(|id| !dead.contains(id)) {
            check.require(false, || format!("{} was told {id} after a later one of its order", receiver.name()));
        }
    }
    check.compared(format!(
        "{}: {} messages of events, {} arrivals, {} refused: each taken at least once, in order, signed",
        receiver.name(),
        grouped(messages_told),
        grouped(deliveries.arrivals),
        grouped(deliveries.refused)
    ));
    Ok(check)
}

/// The sequence of the first event that a sink is told; none when it is not known.
async fn told_from(pool: &MySqlPool, receiver: Receiver) -> Result<Option<u64>> {
    let from = sqlx::query_scalar("SELECT /* audit */ registered_through + 1 FROM sinks WHERE name = ?");
    let from: Option<u64> = from.bind(receiver.name()).fetch_optional(pool).await.context("reading the sinks")?;
    Ok(from)
}

/// How far events are numbered.
pub async fn last_sequence(pool: &MySqlPool) -> Result<u64> {
    let last = sqlx::query_scalar("SELECT /* audit */ last_sequence FROM outbox_sequence");
    last.fetch_one(pool).await.context("reading how far events are numbered")
}

async fn oldest_sequence(pool: &MySqlPool) -> Result<Option<u64>> {
    let oldest = sqlx::query_scalar("SELECT /* audit */ MIN(sequence) FROM outbox_events");
    oldest.fetch_one(pool).await.context("reading the oldest event")
}

async fn events(pool: &MySqlPool, span: RangeInclusive<u64>, receiver: Receiver) -> Result<Vec<OutboxEvent>> {
    let mut connection = pool.acquire().await.context("reading events")?;
    db::outbox::list_between(&mut connection, span, receiver.kinds()).await.context("reading events")
}

async fn dead_letters(pool: &MySqlPool, receiver: Receiver) -> Result<HashSet<MessageId>> {
    let keys = sqlx::query_scalar("SELECT /* audit */ source_key FROM dead_letters WHERE source = ?");
    let keys: Vec<String> = keys.bind(receiver.name()).fetch_all(pool).await.context("reading dead letters")?;
    Ok(keys.iter().filter_map(|key| key.parse().ok()).collect())
}

/// Whether there is nothing left to tell.
pub async fn all_told(pool: &MySqlPool) -> Result<bool> {
    for rule in &RULES[..3] {
        if rule.check(pool, 0).await?.differences() > 0 {
            return Ok(false);
        }
    }
    Ok(true)
}
