//! The table `webhook_retry_queue`: messages that a receiver did not accept at once, and those behind them with the
//! same ordering key.

use sqlx::{MySqlConnection, MySqlPool};

use super::{
    decode::identifier,
    statements::{Statements, moment, or_null, text, write_into},
};
use crate::{
    clock::Timestamp,
    domain::{
        dead_letter::MAX_REASON_LENGTH,
        event::{Epoch, MessageId},
    },
    identifiers::DeadLetterId,
};

/// A message that is sent again, or waits for one of its ordering key that is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryMessage {
    pub id: MessageId,
    /// Messages of one key are sent one after the other, in the order of their ids; at most 120 characters.
    pub ordering_key: String,
    /// The type of its event, such as `order.paid`.
    pub kind: String,
    pub aggregate_id: String,
    /// The body of the request.
    pub payload: String,
    /// How often it was sent.
    pub attempts: u32,
    /// When it was first sent since the circuit of its receiver last closed; none when it was not.
    pub first_attempt_at: Option<Timestamp>,
    pub next_attempt_at: Timestamp,
    /// Why the last attempt failed.
    pub last_response: Option<String>,
    pub dead_letter: Option<DeadLetterId>,
}

#[derive(sqlx::FromRow)]
struct RetryMessageRow {
    epoch: u64,
    sequence: u64,
    place: u32,
    ordering_key: String,
    kind: String,
    aggregate_id: String,
    payload: String,
    attempts: u32,
    first_attempt_at: Option<Timestamp>,
    next_attempt_at: Timestamp,
    last_response: Option<String>,
    dead_letter_id: Option<u64>,
}

impl RetryMessageRow {
    fn decode(self) -> Result<RetryMessage, sqlx::Error> {
        Ok(RetryMessage {
            id: MessageId { epoch: Epoch(self.epoch), sequence: self.sequence, place: self.place },
            ordering_key: self.ordering_key,
            kind: self.kind,
            aggregate_id: self.aggregate_id,
            payload: self.payload,
            attempts: self.attempts,
            first_attempt_at: self.first_attempt_at,
            next_attempt_at: self.next_attempt_at,
            last_response: self.last_response,
            dead_letter: self.dead_letter_id.map(identifier).transpose()?,
        })
    }
}

/// Inserts messages. Those that are in the queue already stay unchanged: a round whose commit was lost inserts again.
pub async fn insert_batch(
    connection: &mut MySqlConnection,
    longest_statement: usize,
    sink: &str,
    messages: &[RetryMessage],
) -> Result<(), sqlx::Error> {
    let head = "INSERT INTO webhook_retry_queue /* retry_queue::insert_batch */ (sink, epoch, sequence, place, ordering_key, \
                kind, aggregate_id, payload, attempts, first_attempt_at, next_attempt_at, last_response, \
                dead_letter_id) VALUES ";
    // Not INSERT IGNORE: that would also turn errors, such as a text that is too long, into warnings.
    let mut statements = Statements::new(longest_statement);
    statements.push_rows(head, " ON DUPLICATE KEY UPDATE sink = webhook_retry_queue.sink", messages, |sql, message| {
        sql.push('(');
        text(sql, sink);
        write_into(sql, format_args!(",{},{},{}", message.id.epoch, message.id.sequence, message.id.place));
        for value in [&message.ordering_key, &message.kind, &message.aggregate_id, &message.payload] {
            sql.push(',');
            text(sql, value);
        }
        let (first, next) = (or_null(message.first_attempt_at, moment), moment(message.next_attempt_at));
        let response = or_null(message.last_response.as_deref(), |response| {
            let mut literal = String::new();
            text(&mut literal, &truncate(response));
            literal
        });
        let letter = or_null(message.dead_letter, |letter| letter.to_string());
        write_into(sql, format_args!(",{},{first},{next},{response},{letter})", message.attempts));
    });
    statements.send(connection).await.map(drop)
}

fn truncate(response: &str) -> String {
    // A longer text would be an error in strict mode.
    response.chars().take(MAX_REASON_LENGTH).collect()
}

/// The ordering keys of a sink's messages, each with the number of its messages.
pub async fn count_by_ordering_key(
    connection: &mut MySqlConnection,
    sink: &str,
) -> Result<Vec<(String, i64)>, sqlx::Error> {
    sqlx::query_as(
        "SELECT /* retry_queue::count_by_ordering_key */ ordering_key, COUNT(*) FROM webhook_retry_queue \
         WHERE sink = ? GROUP BY ordering_key",
    )
    .bind(sink)
    .fetch_all(connection)
    .await
}

/// The number of messages of each sink that has any.
pub async fn count_by_sink(pool: &MySqlPool) -> Result<Vec<(String, i64)>, sqlx::Error> {
    sqlx::query_as("SELECT /* retry_queue::count_by_sink */ sink, COUNT(*) FROM webhook_retry_queue GROUP BY sink")
        .fetch_all(pool)
        .await
}

/// At most `limit` messages of a sink, in the order of their ids, of ordering keys whose first message is due.
pub async fn list_due(
    connection: &mut MySqlConnection,
    sink: &str,
    now: Timestamp,
    limit: u32,
) -> Result<Vec<RetryMessage>, sqlx::Error> {
    // Only the first message of a key is ever postponed, so a key none of whose messages waits for later is due.
    let rows: Vec<RetryMessageRow> = sqlx::query_as(
        "SELECT /* retry_queue::list_due */ epoch, sequence, place, ordering_key, kind, aggregate_id, payload, attempts, \
         first_attempt_at, next_attempt_at, last_response, dead_letter_id FROM webhook_retry_queue q \
         WHERE sink = ? AND NOT EXISTS (SELECT 1 FROM webhook_retry_queue l WHERE l.sink = q.sink \
         AND l.ordering_key = q.ordering_key AND l.next_attempt_at > ?) ORDER BY sequence, place LIMIT ?",
    )
    .bind(sink)
    .bind(now)
    .bind(limit)
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(RetryMessageRow::decode).collect()
}

/// Writes the state of a message after a failed attempt.
pub async fn postpone(connection: &mut MySqlConnection, sink: &str, message: &RetryMessage) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE webhook_retry_queue /* retry_queue::postpone */ SET attempts = ?, first_attempt_at = ?, \
         next_attempt_at = ?, last_response = ? WHERE sink = ? AND sequence = ? AND place = ?",
    )
    .bind(message.attempts)
    .bind(message.first_attempt_at)
    .bind(message.next_attempt_at)
    .bind(message.last_response.as_deref().map(truncate))
    .bind(sink)
    .bind(message.id.sequence)
    .bind(message.id.place)
    .execute(connection)
    .await
    .map(drop)
}

/// Makes all messages of a sink due, because its circuit closed. Each is tried for the full time again: failures while
/// the receiver was unreachable say nothing about the message.
pub async fn restart_all(connection: &mut MySqlConnection, sink: &str, now: Timestamp) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE webhook_retry_queue /* retry_queue::restart_all */ SET next_attempt_at = LEAST(next_attempt_at, ?), \
         first_attempt_at = NULL WHERE sink = ?",
    )
    .bind(now)
    .bind(sink)
    .execute(connection)
    .await
    .map(drop)
}

/// Deletes a message that was accepted or dead-lettered.
pub async fn delete(connection: &mut MySqlConnection, sink: &str, id: MessageId) -> Result<(), sqlx::Error> {
    sqlx::query(
        "DELETE FROM webhook_retry_queue /* retry_queue::delete */ WHERE sink = ? AND sequence = ? AND place = ?",
    )
    .bind(sink)
    .bind(id.sequence)
    .bind(id.place)
    .execute(connection)
    .await
    .map(drop)
}
