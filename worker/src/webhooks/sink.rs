use std::{collections::HashSet, time::Duration};

use dibs_common::{
    clock::Timestamp,
    db::{self, Database, Lease, retry_queue::RetryMessage},
    domain::{dead_letter::Redriven, event::MessageId},
    error::Result,
    integrations::{
        messages::Receiver,
        webhooks::{Delivery, WebhookEndpoint},
    },
};
use sqlx::MySqlConnection;
use tokio_util::sync::CancellationToken;

use super::{
    RETRIED_FOR,
    circuit_breaker::CircuitBreaker,
    new_messages::{Conclusion, Known, NewMessages, RoundResult},
    outgoing::{Outgoing, dead_letter, redriven},
    retry_delay,
    round::{KeyMessages, RoundSettings, group_by_ordering_key, send_round},
};
use crate::{
    dead_letters,
    relay::{Batch, Sink},
};

/// Events read in a round: one of coupons is up to a hundred messages.
const MAX_EVENTS: u64 = 200;
/// Due messages read from the retry queue in a round.
const MAX_RETRIES: u32 = 200;
/// How many ordering keys of them are sent while there are new messages: a receiver that fails slowly shall not hold up
/// those.
const MAX_RETRY_KEYS: usize = 16;
/// Dead letters that join the retry queue in a round.
const MAX_REDRIVES: usize = 50;
// Up to a thousand messages with their bodies.
const INSERT_TIMEOUT: Duration = Duration::from_secs(5);

/// How much a sink sends at once, and when it stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// New messages in one round.
    pub batch_size: usize,
    /// Requests in flight.
    pub max_concurrency: usize,
    pub retry_queue_size: usize,
    /// Failures in a row that open the circuit.
    pub failure_threshold: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { batch_size: 1_000, max_concurrency: 32, retry_queue_size: 1_000, failure_threshold: 8 }
    }
}

/// Delivers events to one receiver.
#[derive(Clone)]
pub struct WebhookSink {
    pub receiver: Receiver,
    pub endpoint: WebhookEndpoint,
    pub limits: Limits,
    database: Database,
    stopping: CancellationToken,
    breaker: CircuitBreaker,
    /// Accepted by the receiver, though the sink has not advanced that far.
    accepted: HashSet<MessageId>,
    is_full: bool,
}

/// The retry queue, as a round finds it.
struct RetryQueue {
    ordering_keys: HashSet<String>,
    size: usize,
    due: Vec<KeyMessages>,
}

impl Sink for WebhookSink {
    fn name(&self) -> &'static str {
        self.receiver.name()
    }

    fn kinds(&self) -> &'static [&'static str] {
        self.receiver.kinds()
    }

    fn batch_size(&self) -> u64 {
        MAX_EVENTS
    }

    async fn deliver(&mut self, batch: &Batch, lease: &mut Lease) -> Result<u64> {
        let mut queue = self.read_retry_queue(batch.at, lease.begin().await?).await?;
        // Before the requests, which take seconds.
        lease.commit().await?;
        let room = self.room(queue.size);
        // When the queue is full the sink stops where it is, and the outbox keeps the rest.
        let limit = if room == 0 { 0 } else { self.limits.batch_size };
        let known = Known { accepted: &self.accepted, blocked_keys: &queue.ordering_keys };
        let new = NewMessages::plan(batch, self.receiver, limit, &known);
        if !new.is_empty() {
            queue.due.truncate(MAX_RETRY_KEYS);
        }
        let was_open = self.breaker.is_open();
        let settings = RoundSettings {
            sink: self.name(),
            endpoint: self.endpoint.clone(),
            at: batch.at,
            max_concurrency: self.limits.max_concurrency,
            failure_threshold: self.limits.failure_threshold,
            has_room: room > 0,
            stopping: self.stopping.clone(),
        };
        // Retries first: they are older, and new messages of the same keys wait behind them.
        let to_send = queue.due.into_iter().chain(group_by_ordering_key(new.to_send())).collect();
        let sent = send_round(settings, to_send, &mut self.breaker).await;
        let (retries, sent): (Vec<Outgoing>, Vec<Outgoing>) = sent.into_iter().partition(|outgoing| outgoing.is_retry);
        let is_open = self.breaker.is_open();
        let result = new.conclude(sent, Conclusion { blocked_keys: queue.ordering_keys, room, is_open });
        self.remember(&result);
        let has_closed = was_open && !is_open;
        self.write(lease, batch.at, Written { result: &result, retries: &retries, has_closed }).await?;
        Ok(result.through)
    }
}

impl WebhookSink {
    pub fn new(
        receiver: Receiver,
        endpoint: WebhookEndpoint,
        database: &Database,
        stopping: CancellationToken,
    ) -> Self {
        Self {
            receiver,
            endpoint,
            limits: Limits::default(),
            database: database.clone(),
            stopping,
            breaker: CircuitBreaker::default(),
            accepted: HashSet::new(),
            is_full: false,
        }
    }

    /// Reads the retry queue, after dead letters to redrive have joined it.
    async fn read_retry_queue(&self, now: Timestamp, connection: &mut MySqlConnection) -> Result<RetryQueue> {
        let sink = self.name();
        let counts = db::within(db::retry_queue::count_by_ordering_key(connection, sink)).await?;
        let mut size = counts.iter().map(|(_, count)| usize::try_from(*count).unwrap_or(usize::MAX)).sum();
        let mut ordering_keys: HashSet<String> = counts.into_iter().map(|(key, _)| key).collect();
        // At least half of the queue is for new messages.
        let redrives = MAX_REDRIVES.min((self.limits.retry_queue_size / 2).saturating_sub(size));
        for message in self.redrive(redrives, now, connection).await? {
            size += 1;
            ordering_keys.insert(message.ordering_key);
        }
        let due = db::within(db::retry_queue::list_due(connection, sink, now, MAX_RETRIES)).await?;
        let due = group_by_ordering_key(due.into_iter().map(Outgoing::retry));
        Ok(RetryQueue { ordering_keys, size, due })
    }

    /// Lets at most `limit` dead letters join the retry queue; which.
    async fn redrive(
        &self,
        limit: usize,
        now: Timestamp,
        connection: &mut MySqlConnection,
    ) -> Result<Vec<RetryMessage>> {
        if limit == 0 {
            return Ok(Vec::new());
        }
        let limit = u32::try_from(limit).unwrap_or(u32::MAX);
        let letters = db::within(db::dead_letters::list_to_retry(connection, self.name(), limit)).await?;
        let mut messages = Vec::new();
        for letter in letters {
            match letter.source_key.parse() {
                Ok(id) => messages.push(redriven(&letter, id, self.receiver, now)),
                Err(why) => {
                    let dead = Redriven::Dead { reason: String::from(why), attempts: 0 };
                    db::within(db::dead_letters::mark_redriven(connection, letter.id, &dead, now)).await?;
                }
            }
        }
        let bytes = self.database.statement_bytes();
        db::within(db::retry_queue::insert_batch(connection, bytes, self.name(), &messages)).await?;
        Ok(messages)
    }

    /// How many more messages may join the retry queue.
    fn room(&mut self, size: usize) -> usize {
        let room = self.limits.retry_queue_size.saturating_sub(size);
        if room == 0 && !self.is_full {
            tracing::warn!(sink = self.name(), size, "retry queue full; delivery paused");
        }
        self.is_full = room == 0;
        room
    }

    fn remember(&mut self, result: &RoundResult) {
        self.accepted.extend(&result.accepted);
        // What the sink has passed does not come again, and the set must not grow.
        self.accepted.retain(|id| id.sequence > result.through);
        self.breaker.suspect(result.failed.iter().copied());
        self.breaker.advance(result.through);
    }

    /// Writes the result of the round. The relay commits it together with the progress of the sink, so a crash before
    /// that leaves nothing of it.
    async fn write(
        &self,
        lease: &mut Lease,
        now: Timestamp,
        Written { result, retries, has_closed }: Written<'_>,
    ) -> Result<()> {
        if result.to_retry.is_empty() && result.dead_letters.is_empty() && retries.is_empty() && !has_closed {
            return Ok(());
        }
        // Opened only now: during the requests, a transaction would hold its snapshot and locks for seconds.
        let (sink, connection) = (self.name(), lease.begin().await?);
        let bytes = self.database.statement_bytes();
        let insert = db::retry_queue::insert_batch(connection, bytes, sink, &result.to_retry);
        db::within_limit(INSERT_TIMEOUT, insert).await?;
        for letter in &result.dead_letters {
            db::within(db::dead_letters::insert(connection, letter, now)).await?;
            dead_letters::report(sink, &letter.key, &letter.reason);
        }
        for outgoing in retries {
            self.write_retry(connection, outgoing, now).await?;
        }
        if has_closed {
            db::within(db::retry_queue::restart_all(connection, sink, now)).await?;
        }
        Ok(())
    }

    async fn write_retry(&self, connection: &mut MySqlConnection, outgoing: &Outgoing, now: Timestamp) -> Result<()> {
        let (sink, mut message) = (self.name(), outgoing.after_attempt(now));
        match &outgoing.delivery {
            None => Ok(()),
            Some(Delivery::Accepted) => {
                if let Some(letter) = message.dead_letter {
                    let sent = Redriven::Sent { attempts: message.attempts };
                    db::within(db::dead_letters::mark_redriven(connection, letter, &sent, now)).await?;
                }
                db::within(db::retry_queue::delete(connection, sink, message.id)).await
            }
            Some(Delivery::Failed(failure)) if !self.is_expired(&message, now) => {
                message.next_attempt_at = now + retry_delay(message.attempts, failure.retry_after);
                db::within(db::retry_queue::postpone(connection, sink, &message)).await
            }
            Some(Delivery::Refused(_) | Delivery::Failed(_)) => fail_permanently(connection, sink, &message, now).await,
        }
    }

    /// Whether a message has failed for its full time. A receiver that was unreachable meanwhile says nothing about the
    /// message.
    fn is_expired(&self, message: &RetryMessage, now: Timestamp) -> bool {
        let first = message.first_attempt_at.unwrap_or(now);
        now - first >= RETRIED_FOR && self.breaker.was_reachable_since(first)
    }
}

/// What a round has to write.
struct Written<'r> {
    result: &'r RoundResult,
    retries: &'r [Outgoing],
    /// Whether the circuit closed: then all messages are due again.
    has_closed: bool,
}

async fn fail_permanently(
    connection: &mut MySqlConnection,
    sink: &'static str,
    message: &RetryMessage,
    now: Timestamp,
) -> Result<()> {
    let letter = dead_letter(sink, message);
    if let Some(id) = message.dead_letter {
        // Its letter is there since it failed for the first time.
        let dead = Redriven::Dead { reason: letter.reason.clone(), attempts: letter.attempts };
        db::within(db::dead_letters::mark_redriven(connection, id, &dead, now)).await?;
    } else {
        db::within(db::dead_letters::insert(connection, &letter, now)).await?;
    }
    dead_letters::report(sink, &letter.key, &letter.reason);
    db::within(db::retry_queue::delete(connection, sink, message.id)).await
}
