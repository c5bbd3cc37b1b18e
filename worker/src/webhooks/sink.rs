use std::{collections::HashSet, time::Duration};

use chrono::TimeDelta;
use dibs_common::{
    clock::Timestamp,
    db::{self, Database, Lease, parked::ParkedMessage},
    domain::dead_letter::Redriven,
    error::Result,
    integrations::{
        messages::{MessageId, Receiver},
        webhooks::WebhookEndpoint,
    },
};
use sqlx::MySqlConnection;
use tokio_util::sync::CancellationToken;

use super::{
    TRIED_FOR,
    breaker::Breaker,
    outgoing::{Fate, Outgoing, dead_letter, redriven},
    pause_after,
    round::{Lane, Sending, lanes},
    round_result::{Fresh, Settled},
};
use crate::relay::{Batch, Sink};

/// Events that are looked at in a round: those of coupons are up to a hundred messages each.
const EVENTS: u64 = 200;
/// Parked messages that are looked at in a round, and how many lanes of them are sent while there are new ones: one
/// that takes its time to fail shall not hold up those.
const DUE: u32 = 200;
const DUE_LANES: usize = 16;
/// Dead letters that are parked in a round, at most.
const LETTERS: usize = 50;
/// How often dead letters are counted.
const COUNT_EVERY: TimeDelta = TimeDelta::seconds(10);
/// How long parking a round's messages may take.
const WRITTEN_WITHIN: Duration = Duration::from_secs(5);

/// How much a sink does at once, and when it stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Messages in one round.
    pub messages: usize,
    /// Requests at once.
    pub requests: usize,
    /// Messages that may be parked.
    pub parked: usize,
    /// Failures in a row after which the receiver counts as away.
    pub failures_in_a_row: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { messages: 1_000, requests: 32, parked: 1_000, failures_in_a_row: 8 }
    }
}

/// Sends what happened to one receiver.
#[derive(Clone)]
pub struct WebhookSink {
    /// Who is told.
    pub receiver: Receiver,
    /// Where.
    pub endpoint: WebhookEndpoint,
    /// Its limits.
    pub limits: Limits,
    database: Database,
    stopping: CancellationToken,
    breaker: Breaker,
    /// Taken by the receiver, though the sink has not moved that far.
    ahead: HashSet<MessageId>,
    is_full: bool,
    /// When dead letters were last counted.
    counted_at: Option<Timestamp>,
}

/// What is parked, as a round finds it.
struct Parked {
    lanes: HashSet<String>,
    count: usize,
    due: Vec<Lane>,
}

impl Sink for WebhookSink {
    fn name(&self) -> &'static str {
        self.receiver.name()
    }

    fn kinds(&self) -> &'static [&'static str] {
        self.receiver.kinds()
    }

    fn batch(&self) -> u64 {
        EVENTS
    }

    fn stand_by(&self) {
        self.show_parked(0);
        self.show_dead(0);
    }

    async fn deliver(&mut self, batch: &Batch, lock: &mut Lease) -> Result<u64> {
        let mut parked = self.look(batch, lock).await?;
        let room = self.room(parked.count);
        // At the bound the sink stops where it is, and the outbox keeps the rest.
        let messages = if room == 0 { 0 } else { self.limits.messages };
        let fresh = Fresh::of(batch, self.receiver, messages, &self.ahead, &parked.lanes);
        if !fresh.is_empty() {
            parked.due.truncate(DUE_LANES);
        }
        let was_away = self.breaker.is_away();
        let sending = Sending {
            sink: self.name(),
            endpoint: &self.endpoint,
            at: batch.at,
            at_once: self.limits.requests,
            in_a_row: self.limits.failures_in_a_row,
            has_room: room > 0,
            stopping: &self.stopping,
        };
        let to_send = parked.due.into_iter().chain(lanes(fresh.to_send())).collect();
        let sent = sending.send(to_send, &mut self.breaker).await;
        let (due, sent): (Vec<Outgoing>, Vec<Outgoing>) = sent.into_iter().partition(|outgoing| outgoing.is_parked);
        let settled = fresh.settle(sent, parked.lanes, room, self.breaker.is_away());
        self.remember(&settled);
        let is_back = was_away && !self.breaker.is_away();
        self.write(lock, batch.at, &settled, &due, is_back).await?;
        Ok(settled.through)
    }
}

impl WebhookSink {
    /// Tells `receiver` at `endpoint`, until `stopping` is cancelled.
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
            breaker: Breaker::default(),
            ahead: HashSet::new(),
            is_full: false,
            counted_at: None,
        }
    }

    /// Looks what is parked, and parks letters that were asked for, too.
    async fn look(&mut self, batch: &Batch, lock: &mut Lease) -> Result<Parked> {
        let (sink, connection) = (self.name(), lock.connection());
        let counts = db::within(db::parked::parked_lanes(connection, sink)).await?;
        let mut count = counts.iter().map(|(_, count)| usize::try_from(*count).unwrap_or(usize::MAX)).sum();
        let mut parked_lanes: HashSet<String> = counts.into_iter().map(|(lane, _)| lane).collect();
        // At least half of the bound is for new messages.
        let letters = LETTERS.min((self.limits.parked / 2).saturating_sub(count));
        for again in self.park_letters(letters, batch.at, connection).await? {
            count += 1;
            parked_lanes.insert(again.lane);
        }
        let due = db::within(db::parked::due_parked(connection, sink, batch.at, DUE)).await?;
        self.show_parked(count);
        self.count_dead(batch.at, connection).await?;
        Ok(Parked { lanes: parked_lanes, count, due: lanes(due.into_iter().map(Outgoing::parked)) })
    }

    /// Parks at most so many of the letters that were asked for, and answers them.
    async fn park_letters(
        &self,
        most: usize,
        now: Timestamp,
        connection: &mut MySqlConnection,
    ) -> Result<Vec<ParkedMessage>> {
        if most == 0 {
            return Ok(Vec::new());
        }
        let most = u32::try_from(most).unwrap_or(u32::MAX);
        let letters = db::within(db::dead_letters::list_to_retry(connection, self.name(), most)).await?;
        let mut again = Vec::new();
        for letter in letters {
            match letter.source_key.parse() {
                Ok(id) => again.push(redriven(&letter, id, self.receiver, now)),
                Err(why) => {
                    let dead = Redriven::Dead { reason: String::from(why), attempts: 0 };
                    db::within(db::dead_letters::mark_redriven(connection, letter.id, &dead, now)).await?;
                }
            }
        }
        db::within(db::parked::park(connection, self.database.statement_bytes(), self.name(), &again)).await?;
        Ok(again)
    }

    /// Counts dead letters now and then, whatever else there is to do.
    async fn count_dead(&mut self, now: Timestamp, connection: &mut MySqlConnection) -> Result<()> {
        if self.counted_at.is_some_and(|counted| now - counted < COUNT_EVERY) {
            return Ok(());
        }
        self.show_dead(db::within(db::dead_letters::count(connection, self.name())).await?);
        self.counted_at = Some(now);
        Ok(())
    }

    #[expect(clippy::cast_precision_loss, reason = "they are few")]
    fn show_parked(&self, parked: usize) {
        metrics::gauge!("dibs_webhook_retry_queue_messages", "sink" => self.name()).set(parked as f64);
    }

    #[expect(clippy::cast_precision_loss, reason = "they are few")]
    fn show_dead(&self, dead: u64) {
        metrics::gauge!("dibs_dead_letters", "source" => self.name()).set(dead as f64);
    }

    /// How many more may be parked.
    fn room(&mut self, parked: usize) -> usize {
        let room = self.limits.parked.saturating_sub(parked);
        if room == 0 && !self.is_full {
            tracing::warn!(
                sink = self.name(),
                parked,
                "too many messages wait to be sent again; the outbox keeps the rest"
            );
        }
        self.is_full = room == 0;
        room
    }

    fn remember(&mut self, settled: &Settled) {
        self.ahead.extend(&settled.ahead);
        self.ahead.retain(|id| id.sequence > settled.through);
        self.breaker.suspect(settled.failed.iter().copied());
        self.breaker.moved_to(settled.through);
    }

    /// Writes what became of the round. It is committed with the progress.
    async fn write(
        &self,
        lock: &mut Lease,
        now: Timestamp,
        settled: &Settled,
        due: &[Outgoing],
        is_back: bool,
    ) -> Result<()> {
        let nothing = settled.parked.is_empty() && settled.buried.is_empty() && due.is_empty() && !is_back;
        if nothing {
            return Ok(());
        }
        lock.begin().await?;
        let (sink, connection) = (self.name(), lock.connection());
        let parking = db::parked::park(connection, self.database.statement_bytes(), sink, &settled.parked);
        db::within_limit(WRITTEN_WITHIN, parking).await?;
        for letter in &settled.buried {
            db::within(db::dead_letters::insert(connection, letter, now)).await?;
            tell_of_dead(sink, &letter.key, &letter.reason);
        }
        for outgoing in due {
            self.write_due(lock, outgoing, now).await?;
        }
        if is_back {
            db::within(db::parked::begin_parked_anew(lock.connection(), sink, now)).await?;
        }
        Ok(())
    }

    async fn write_due(&self, lock: &mut Lease, outgoing: &Outgoing, now: Timestamp) -> Result<()> {
        let (sink, connection) = (self.name(), lock.connection());
        let mut message = outgoing.after_attempt(now);
        match &outgoing.fate {
            Fate::Waiting => Ok(()),
            Fate::Taken => {
                if let Some(letter) = message.dead_letter {
                    let sent = Redriven::Sent { attempts: message.attempts };
                    db::within(db::dead_letters::mark_redriven(connection, letter, &sent, now)).await?;
                }
                db::within(db::parked::unpark(connection, sink, message.id)).await
            }
            Fate::Failed(failure) if !self.is_over(&message, now) => {
                message.next_attempt_at = now + pause_after(message.attempts, failure.retry_after);
                db::within(db::parked::postpone_parked(connection, sink, &message)).await
            }
            Fate::Refused(_) | Fate::Failed(_) => fail_permanently(connection, sink, &message, now).await,
        }
    }

    /// Whether a message has failed for so long that it is given up. That nobody was there all the while says nothing
    /// about the message.
    fn is_over(&self, message: &ParkedMessage, now: Timestamp) -> bool {
        let first = message.first_attempt_at.unwrap_or(now);
        now - first >= TRIED_FOR && self.breaker.was_there_since(first)
    }
}

async fn fail_permanently(
    connection: &mut MySqlConnection,
    sink: &'static str,
    message: &ParkedMessage,
    now: Timestamp,
) -> Result<()> {
    let letter = dead_letter(sink, message);
    if let Some(id) = message.dead_letter {
        let dead = Redriven::Dead { reason: letter.reason.clone(), attempts: letter.attempts };
        db::within(db::dead_letters::mark_redriven(connection, id, &dead, now)).await?;
    } else {
        db::within(db::dead_letters::insert(connection, &letter, now)).await?;
    }
    tell_of_dead(sink, &letter.key, &letter.reason);
    db::within(db::parked::unpark(connection, sink, message.id)).await
}

fn tell_of_dead(sink: &'static str, message: &str, reason: &str) {
    metrics::counter!("dibs_dead_letters_total", "source" => sink).increment(1);
    tracing::warn!(sink, message, reason, "a message was not taken; it is a dead letter now");
}
