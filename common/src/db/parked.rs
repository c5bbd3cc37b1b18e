//! The table `parked_messages`: messages that a receiver did not take at once, and those behind them in their lane.

use sqlx::MySqlConnection;

use super::{
    decode::identifier,
    statements::{Statements, moment, or_null, text, write_into},
};
use crate::{
    clock::Timestamp, domain::dead_letter::LONGEST_REASON, identifiers::DeadLetterId, integrations::messages::MessageId,
};

/// A message that is to be sent again, or waits for one of its lane that is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParkedMessage {
    /// Its id.
    pub id: MessageId,
    /// Messages of one lane are sent one after the other, in the order of their ids; at most 120 characters.
    pub lane: String,
    /// What it tells, such as `order.paid`.
    pub kind: String,
    /// The id of what it is about.
    pub aggregate_id: String,
    /// As it is sent.
    pub payload: String,
    /// How often it was sent.
    pub attempts: u32,
    /// When it was first sent since its receiver was last away; none when it was not.
    pub first_attempt_at: Option<Timestamp>,
    /// When it is sent next.
    pub next_attempt_at: Timestamp,
    /// What it was answered.
    pub last_answer: Option<String>,
    /// The dead letter that is sent again by it.
    pub dead_letter: Option<DeadLetterId>,
}

#[derive(sqlx::FromRow)]
struct ParkedRow {
    sequence: u64,
    place: u32,
    lane: String,
    kind: String,
    aggregate_id: String,
    payload: String,
    attempts: u32,
    first_attempt_at: Option<Timestamp>,
    next_attempt_at: Timestamp,
    last_answer: Option<String>,
    dead_letter_id: Option<u64>,
}

impl TryFrom<ParkedRow> for ParkedMessage {
    type Error = sqlx::Error;

    fn try_from(row: ParkedRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            id: MessageId { sequence: row.sequence, place: row.place },
            lane: row.lane,
            kind: row.kind,
            aggregate_id: row.aggregate_id,
            payload: row.payload,
            attempts: row.attempts,
            first_attempt_at: row.first_attempt_at,
            next_attempt_at: row.next_attempt_at,
            last_answer: row.last_answer,
            dead_letter: row.dead_letter_id.map(identifier).transpose()?,
        })
    }
}

/// Parks messages. What is parked already stays as it is.
pub async fn park(
    connection: &mut MySqlConnection,
    longest_statement: usize,
    sink: &str,
    messages: &[ParkedMessage],
) -> Result<(), sqlx::Error> {
    let head = "INSERT INTO parked_messages /* park */ (sink, sequence, place, lane, kind, aggregate_id, payload, \
                attempts, first_attempt_at, next_attempt_at, last_answer, dead_letter_id) VALUES ";
    let mut statements = Statements::new(longest_statement);
    statements.push_rows(head, " ON DUPLICATE KEY UPDATE sink = parked_messages.sink", messages, |sql, message| {
        sql.push('(');
        text(sql, sink);
        write_into(sql, format_args!(",{},{}", message.id.sequence, message.id.place));
        for value in [&message.lane, &message.kind, &message.aggregate_id, &message.payload] {
            sql.push(',');
            text(sql, value);
        }
        let (first, next) = (or_null(message.first_attempt_at, moment), moment(message.next_attempt_at));
        let answer = or_null(message.last_answer.as_deref(), |answer| {
            let mut literal = String::new();
            text(&mut literal, &cut(answer));
            literal
        });
        let letter = or_null(message.dead_letter, |letter| letter.to_string());
        write_into(sql, format_args!(",{},{first},{next},{answer},{letter})", message.attempts));
    });
    statements.send(connection).await.map(drop)
}

fn cut(answer: &str) -> String {
    answer.chars().take(LONGEST_REASON).collect()
}

/// The lanes in which messages of a sink are parked, with their number.
pub async fn parked_lanes(connection: &mut MySqlConnection, sink: &str) -> Result<Vec<(String, i64)>, sqlx::Error> {
    sqlx::query_as("SELECT /* parked_lanes */ lane, COUNT(*) FROM parked_messages WHERE sink = ? GROUP BY lane")
        .bind(sink)
        .fetch_all(connection)
        .await
}

/// At most `limit` parked messages of a sink, in the order of their ids, of lanes whose first is due.
pub async fn due_parked(
    connection: &mut MySqlConnection,
    sink: &str,
    now: Timestamp,
    limit: u32,
) -> Result<Vec<ParkedMessage>, sqlx::Error> {
    // Only the first of a lane is ever postponed, so a lane in which none waits for later is due.
    let rows: Vec<ParkedRow> = sqlx::query_as(
        "SELECT /* due_parked */ sequence, place, lane, kind, aggregate_id, payload, attempts, first_attempt_at, \
         next_attempt_at, last_answer, dead_letter_id FROM parked_messages p WHERE sink = ? AND NOT EXISTS \
         (SELECT 1 FROM parked_messages l WHERE l.sink = p.sink AND l.lane = p.lane AND l.next_attempt_at > ?) \
         ORDER BY sequence, place LIMIT ?",
    )
    .bind(sink)
    .bind(now)
    .bind(limit)
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(ParkedMessage::try_from).collect()
}

/// Notes an attempt that failed: the message as it is now.
pub async fn postpone_parked(
    connection: &mut MySqlConnection,
    sink: &str,
    message: &ParkedMessage,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE parked_messages /* postpone_parked */ SET attempts = ?, first_attempt_at = ?, next_attempt_at = ?, \
         last_answer = ? WHERE sink = ? AND sequence = ? AND place = ?",
    )
    .bind(message.attempts)
    .bind(message.first_attempt_at)
    .bind(message.next_attempt_at)
    .bind(message.last_answer.as_deref().map(cut))
    .bind(sink)
    .bind(message.id.sequence)
    .bind(message.id.place)
    .execute(connection)
    .await
    .map(drop)
}

/// Makes all parked messages of a sink due, as its receiver is back. They are tried anew: that it was away says nothing
/// about them.
pub async fn begin_parked_anew(
    connection: &mut MySqlConnection,
    sink: &str,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE parked_messages /* begin_parked_anew */ SET next_attempt_at = LEAST(next_attempt_at, ?), \
         first_attempt_at = NULL WHERE sink = ?",
    )
    .bind(now)
    .bind(sink)
    .execute(connection)
    .await
    .map(drop)
}

/// Takes a message away that was taken, or given up.
pub async fn unpark(connection: &mut MySqlConnection, sink: &str, id: MessageId) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM parked_messages /* unpark */ WHERE sink = ? AND sequence = ? AND place = ?")
        .bind(sink)
        .bind(id.sequence)
        .bind(id.place)
        .execute(connection)
        .await
        .map(drop)
}
