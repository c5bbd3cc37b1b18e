//! The tables `outbox_events`, `outbox_sequence` and `sinks`: what happened, in the order in which it is told, and how
//! far each receiver was told.
//!
//! Event ids are given when rows are written, not when they are committed: a row can appear after one of a higher id.
//! So committed rows are numbered anew, without gaps, by one process at a time. A row that appears late gets a later
//! sequence. Events of one aggregate keep their order, as they are written under its lock.

use sqlx::{MySqlConnection, MySqlPool};

use super::{Database, retrying, statements::Statements, with_timeout};
use crate::{clock::Timestamp, error::Result};

/// How many events are numbered in one transaction.
pub const SEQUENCE_BATCH_SIZE: u32 = 5_000;

/// A row of the outbox that has its sequence.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct OutboxEvent {
    /// Its place in the order of delivery.
    pub sequence: u64,
    /// ORDER, COUPON, POINTS or PRODUCT.
    pub aggregate_type: String,
    /// The id of what it is about.
    pub aggregate_id: String,
    /// What happened, such as `order.paid`.
    #[sqlx(rename = "type")]
    pub kind: String,
    /// The thing after it happened, as JSON.
    pub payload: String,
    /// When.
    pub created_at: Timestamp,
}

/// Gives sequences to events that are committed and have none, at most [`SEQUENCE_BATCH_SIZE`] of them; how many. None
/// are given while another process does so.
pub async fn sequence_events(database: &Database) -> Result<usize> {
    retrying("sequence_events", || with_timeout(sequence_batch(database))).await
}

async fn sequence_batch(database: &Database) -> Result<usize, sqlx::Error> {
    let mut transaction = database.begin().await?;
    let last: Option<u64> = sqlx::query_scalar(
        "SELECT /* outbox::sequence_events: one numbers at a time */ last_sequence FROM outbox_sequence FOR UPDATE SKIP LOCKED",
    )
    .fetch_optional(&mut *transaction)
    .await?;
    let Some(last) = last else { return Ok(0) };
    // Without a lock: rows of transactions that still run are neither seen nor waited for.
    let events: Vec<u64> = sqlx::query_scalar(
        "SELECT /* outbox::sequence_events */ event_id FROM outbox_events FORCE INDEX (in_sequence) WHERE sequence IS NULL \
         ORDER BY event_id LIMIT ?",
    )
    .bind(SEQUENCE_BATCH_SIZE)
    .fetch_all(&mut *transaction)
    .await?;
    if events.is_empty() {
        return Ok(0);
    }
    let mut statements = Statements::new(database.statement_bytes());
    let mut next = last + 1;
    // Ids mostly follow each other; a statement numbers all that do.
    for run in events.chunk_by(|one, other| one + 1 == *other) {
        let (Some(first), Some(end)) = (run.first(), run.last()) else { continue };
        statements.push(&format!(
            "UPDATE outbox_events /* outbox::sequence_events */ SET sequence = {next} + (event_id - {first}) \
             WHERE event_id BETWEEN {first} AND {end}"
        ));
        next += run.len() as u64;
    }
    statements.push(&format!("UPDATE outbox_sequence /* outbox::sequence_events */ SET last_sequence = {}", next - 1));
    let affected = statements.send(&mut transaction).await?;
    if affected != events.len() as u64 + 1 {
        return Err(sqlx::Error::Encode(
            format!("{} events were to be numbered, {affected} rows were", events.len()).into(),
        ));
    }
    transaction.commit().await?;
    Ok(events.len())
}

/// Makes a sink known. A new one is told what happens from now on.
pub async fn register_sink(pool: &MySqlPool, sink: &str, now: Timestamp) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO sinks /* outbox::register_sink */ (name, delivered_through, registered_through, updated_at) \
         SELECT ?, last_sequence, last_sequence, ? FROM outbox_sequence ON DUPLICATE KEY UPDATE name = sinks.name",
    )
    .bind(sink)
    .bind(now)
    .execute(pool)
    .await
    .map(drop)
}

/// How far a sink is, and how far it can go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct SinkProgress {
    /// It has taken every event up to this sequence.
    pub delivered_through: u64,
    /// The highest sequence given.
    pub last_sequence: u64,
    /// When the oldest event that it has not taken was written; none when it has taken all.
    pub waiting_since: Option<Timestamp>,
}

/// How far a sink is; none when it is not known.
pub async fn find_sink_progress(
    connection: &mut MySqlConnection,
    sink: &str,
) -> Result<Option<SinkProgress>, sqlx::Error> {
    sqlx::query_as(
        "SELECT /* outbox::find_sink_progress */ s.delivered_through, q.last_sequence, e.created_at AS waiting_since \
         FROM sinks s JOIN outbox_sequence q LEFT JOIN outbox_events e ON e.sequence = s.delivered_through + 1 \
         WHERE s.name = ?",
    )
    .bind(sink)
    .fetch_optional(connection)
    .await
}

/// What is still to be told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Since when the oldest event waits for its sequence; none when all have theirs.
    pub unnumbered_since: Option<Timestamp>,
    /// For each sink: how many events it has not taken that have their sequence, and since when the oldest of them waits.
    pub sinks: Vec<(String, u64, Option<Timestamp>)>,
}

/// What is still to be told, to all sinks.
pub async fn find_backlog(pool: &MySqlPool) -> Result<Backlog, sqlx::Error> {
    let unnumbered_since = sqlx::query_scalar(
        "SELECT /* outbox::find_backlog */ created_at FROM outbox_events FORCE INDEX (in_sequence) WHERE sequence IS NULL \
         ORDER BY event_id LIMIT 1",
    )
    .fetch_optional(pool)
    .await?;
    let sinks = sqlx::query_as(
        "SELECT /* outbox::find_backlog */ s.name, q.last_sequence - s.delivered_through, e.created_at FROM sinks s \
         JOIN outbox_sequence q LEFT JOIN outbox_events e ON e.sequence = s.delivered_through + 1",
    )
    .fetch_all(pool)
    .await?;
    Ok(Backlog { unnumbered_since, sinks })
}

/// Events of sequence `first` to `last`, in order, only those of these kinds; all when none is named.
pub async fn list_between(
    connection: &mut MySqlConnection,
    (first, last): (u64, u64),
    kinds: &[&str],
) -> Result<Vec<OutboxEvent>, sqlx::Error> {
    let places = vec!["?"; kinds.len()].join(",");
    let only = if kinds.is_empty() { String::new() } else { format!("AND type IN ({places})") };
    let sql = format!(
        "SELECT /* outbox::list_between */ sequence, aggregate_type, aggregate_id, type, CAST(payload AS CHAR) AS payload, \
         created_at FROM outbox_events WHERE sequence BETWEEN ? AND ? {only} ORDER BY sequence"
    );
    let query = sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(first).bind(last);
    kinds.iter().fold(query, |query, kind| query.bind(*kind)).fetch_all(connection).await
}

/// Notes that a sink that had taken events up to `from` has taken them up to `to`; whether it still was where it was.
pub async fn advance_sink(
    connection: &mut MySqlConnection,
    sink: &str,
    (from, to): (u64, u64),
    now: Timestamp,
) -> Result<bool, sqlx::Error> {
    let moved = sqlx::query(
        "UPDATE sinks /* outbox::advance_sink */ SET delivered_through = ?, updated_at = ? WHERE name = ? AND delivered_through = ?",
    )
    .bind(to)
    .bind(now)
    .bind(sink)
    .bind(from)
    .execute(connection)
    .await?;
    Ok(moved.rows_affected() == 1)
}

/// Notes that a sink is served, though it does not move.
pub async fn mark_sink_active(connection: &mut MySqlConnection, sink: &str, now: Timestamp) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE sinks /* outbox::mark_sink_active */ SET updated_at = ? WHERE name = ?")
        .bind(now)
        .bind(sink)
        .execute(connection)
        .await
        .map(drop)
}

/// Sinks that nobody has served since `served_since`, by name.
pub async fn list_idle_sinks(pool: &MySqlPool, served_since: Timestamp) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar("SELECT /* outbox::list_idle_sinks */ name FROM sinks WHERE updated_at < ? ORDER BY name")
        .bind(served_since)
        .fetch_all(pool)
        .await
}

/// Deletes at most `limit` events that were written before `before` and that every sink has taken that was served
/// since `served_since`; how many. None while no sink is.
pub async fn purge(
    pool: &MySqlPool,
    before: Timestamp,
    served_since: Timestamp,
    limit: u32,
) -> Result<u64, sqlx::Error> {
    // In the order of delivery, so that one look at the first tells that there is none.
    let rows: Vec<(u64, Timestamp)> = sqlx::query_as(
        "SELECT /* outbox::purge */ e.sequence, e.created_at FROM outbox_events e \
         WHERE e.sequence <= (SELECT MIN(delivered_through) FROM sinks WHERE updated_at >= ?) \
         ORDER BY e.sequence LIMIT ?",
    )
    .bind(served_since)
    .bind(limit)
    .fetch_all(pool)
    .await?;
    let Some((last, _)) = rows.iter().take_while(|(_, created_at)| *created_at < before).last() else { return Ok(0) };
    let deleted = sqlx::query("DELETE FROM outbox_events /* outbox::purge */ WHERE sequence <= ?").bind(last);
    Ok(deleted.execute(pool).await?.rows_affected())
}
