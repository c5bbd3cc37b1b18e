//! I10: every event reached every sink, by the tables and by the records of the receivers.

use std::{collections::HashSet, ops::RangeInclusive};

use anyhow::{Context as _, Result, anyhow};
use dibs_common::{
    db,
    domain::event::{MessageId, OutboxEvent},
    integrations::messages::{Receiver, messages},
};
use sqlx::MySqlPool;

use super::rule::Rule;
use crate::{
    audit::Check,
    numbers::grouped,
    record::{Deliveries, SinkDeliveries},
};

/// Events in one query. An event of coupons has up to 100 messages.
const EVENT_BATCH: u64 = 500;

/// The rules of the tables. A sink without progress for a week is abandoned, and left out.
pub const RULES: [Rule; 4] = [
    Rule::new(
        "I10",
        "sinks: each has received every sequenced event",
        "sinks",
        "SELECT CONCAT_WS(' ', 'sink', s.name, 'has received events up to', s.delivered_through, 'of', \
                 q.last_sequence) AS difference FROM sinks s JOIN outbox_sequence q \
             WHERE s.delivered_through <> q.last_sequence AND s.updated_at > UTC_TIMESTAMP(3) - INTERVAL 7 DAY",
    ),
    Rule::new(
        "I10",
        "events: each is sequenced, where there is a sink",
        "outbox_events",
        "SELECT CONCAT_WS(' ', 'event', event_id, type, 'is not sequenced') AS difference FROM outbox_events \
             WHERE sequence IS NULL AND EXISTS (SELECT 1 FROM sinks)",
    ),
    Rule::new(
        "I10",
        "retry queue: no message of an active sink",
        "webhook_retry_queue",
        "SELECT CONCAT_WS(' ', p.sink, 'has not received', CONCAT('event-', IF(p.epoch = 0, '', CONCAT(p.epoch, '-')), p.sequence, '-', p.place), p.kind, \
                 'after', p.attempts, 'attempts:', p.last_response) AS difference \
             FROM webhook_retry_queue p JOIN sinks s ON s.name = p.sink \
             WHERE s.updated_at > UTC_TIMESTAMP(3) - INTERVAL 7 DAY",
    ),
    Rule::new(
        "I10",
        "dead letters of receivers: each rejected permanently, none with a pending redrive",
        "dead_letters WHERE source IN ('data-platform', 'notifications')",
        "SELECT CONCAT_WS(' ', 'dead letter', dead_letter_id, 'of', source, source_key, 'is', status, reason) \
                 AS difference FROM dead_letters WHERE source IN ('data-platform', 'notifications') \
             AND (status = 'REDRIVE' OR (status = 'DEAD' \
                 AND NOT reason REGEXP '^it answered (400|405|410|413|415|422|501)( |$)'))",
    ),
];

/// The records of the receivers: every message of every event since the registration of the sink, or since the start of
/// the record, in order where the sink has one, and no other message.
pub async fn recorded(pool: &MySqlPool, deliveries: &Deliveries) -> Result<Vec<Check>> {
    let mut checks = Vec::new();
    for receiver in Receiver::ALL {
        let none = SinkDeliveries::default();
        let deliveries_of_sink = deliveries.sinks.get(receiver.name()).unwrap_or(&none);
        checks.push(check_receiver(pool, receiver, deliveries_of_sink, deliveries.recorded_after).await?);
    }
    Ok(checks)
}

async fn check_receiver(
    pool: &MySqlPool,
    receiver: Receiver,
    deliveries: &SinkDeliveries,
    recorded_after: u64,
) -> Result<Check> {
    let mut check = Check::new("I10");
    // A message may be a dead letter instead of delivered: a rule checks why.
    let dead = dead_letters(pool, receiver).await?;
    let mut unknown: HashSet<MessageId> = deliveries.accepted().collect();
    let (mut message_count, mut first) = (0, delivered_from(pool, receiver).await?);
    check.require(first.is_some(), || format!("sink {} is not registered, so it receives no events", receiver.name()));
    let last = last_sequence(pool).await?;
    let oldest = oldest_sequence(pool).await?;
    while let Some(from) = first.filter(|from| *from <= last) {
        // In ranges of sequences, which have no gaps once events are sequenced.
        let through = last.min(from + EVENT_BATCH - 1);
        for event in events(pool, from..=through, receiver).await? {
            let messages = messages(&event).map_err(|error| anyhow!("event {}: {error}", event.sequence))?;
            for message in messages {
                message_count += 1;
                unknown.remove(&message.id);
                let reached = message.id.sequence <= recorded_after
                    || deliveries.has_accepted(message.id)
                    || dead.contains(&message.id);
                check
                    .require(reached, || format!("{} never received {} {}", receiver.name(), message.id, message.kind));
            }
        }
        first = Some(through + 1);
    }
    // Purged events cannot be compared.
    unknown.retain(|id| oldest.is_some_and(|oldest| id.sequence >= oldest));
    check.add(
        unknown.len() as u64,
        unknown.iter().map(|id| format!("{} received {id}, which is no message of an event", receiver.name())),
    );
    check.add(deliveries.faults.count(), deliveries.faults.samples().iter().cloned());
    if receiver.is_ordered() {
        // A redriven dead letter is late by definition.
        for id in deliveries.out_of_order.iter().filter(|id| !dead.contains(id)) {
            check.require(false, || format!("{} received {id} after a later message of its order", receiver.name()));
        }
    }
    check.compared(format!(
        "{}: {} messages of events, {} attempts, {} rejected: each accepted at least once, in order, signed",
        receiver.name(),
        grouped(message_count),
        grouped(deliveries.attempts),
        grouped(deliveries.rejected)
    ));
    Ok(check)
}

/// The sequence of the first event for a sink; none when it is not registered.
async fn delivered_from(pool: &MySqlPool, receiver: Receiver) -> Result<Option<u64>> {
    let from = sqlx::query_scalar("SELECT /* audit */ registered_through + 1 FROM sinks WHERE name = ?");
    let from: Option<u64> = from.bind(receiver.name()).fetch_optional(pool).await.context("reading the sinks")?;
    Ok(from)
}

/// The sequence of the last sequenced event.
pub async fn last_sequence(pool: &MySqlPool) -> Result<u64> {
    let last = sqlx::query_scalar("SELECT /* audit */ last_sequence FROM outbox_sequence");
    last.fetch_one(pool).await.context("reading the last sequence")
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

/// Whether no event and no message waits for delivery.
pub async fn all_delivered(pool: &MySqlPool) -> Result<bool> {
    // The last rule is about dead letters, which do not go away by waiting.
    for rule in &RULES[..3] {
        if rule.check(pool, 0).await?.differences() > 0 {
            return Ok(false);
        }
    }
    Ok(true)
}
