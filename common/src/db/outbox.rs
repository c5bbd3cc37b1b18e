//! The tables `outbox_events`, `outbox_sequence` and `sinks`: the transactional outbox, and how far each sink has
//! delivered it.
//!
//! A row gets its event id when it is inserted, not when it is committed, so a row may become visible after one with a
//! higher id. A reader that remembers the last id would miss it. Therefore one process at a time gives committed rows a
//! sequence, without gaps. A row that commits late gets a later sequence. Events of one aggregate keep their order,
//! because they are inserted under the aggregate's lock.

use std::ops::RangeInclusive;

use sqlx::{MySqlConnection, MySqlPool};

use super::{Database, epochs, retrying, statements::Statements, with_timeout};
use crate::{
    clock::Timestamp,
    domain::event::{Epoch, OutboxEvent, Position},
    error::Result,
};

/// How many events get their sequence in one transaction.
pub const SEQUENCE_BATCH_SIZE: u32 = 5_000;

#[derive(sqlx::FromRow)]
struct OutboxRow {
    sequence: u64,
    aggregate_type: String,
    aggregate_id: String,
    #[sqlx(rename = "type")]
    kind: String,
    payload: String,
    created_at: Timestamp,
    traces: Option<String>,
}

/// The outcome of giving sequences.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sequencing {
    /// Another process does the same.
    Busy,
    /// So many events got theirs; `position` is that of the last.
    Done { events: usize, position: Position },
    /// None got one: `MySQL` is behind the position that is remembered, as it was restored to an earlier state.
    Behind,
}

/// Gives sequences to at most [`SEQUENCE_BATCH_SIZE`] committed events without one. Returns their number: 0 while
/// another process does the same.
pub async fn sequence_events(database: &Database) -> Result<usize> {
    match sequence_events_after(database, Position::default()).await? {
        Sequencing::Done { events, .. } => Ok(events),
        Sequencing::Busy | Sequencing::Behind => Ok(0),
    }
}

/// The same, unless `MySQL` is behind `remembered`: events would get sequences that others have had.
pub async fn sequence_events_after(database: &Database, remembered: Position) -> Result<Sequencing> {
    retrying("sequence_events", || with_timeout(sequence_batch(database, remembered))).await
}

async fn sequence_batch(database: &Database, remembered: Position) -> Result<Sequencing, sqlx::Error> {
    let mut transaction = database.begin().await?;
    // SKIP LOCKED, as a process that waits here would hold a connection for nothing: the holder of the lock does the
    // work.
    let last: Option<(u64, u64)> = sqlx::query_as(
        "SELECT /* outbox::sequence_batch: one process at a time */ last_sequence, (SELECT MAX(epoch) FROM epochs) AS epoch \
         FROM outbox_sequence FOR UPDATE SKIP LOCKED",
    )
    .fetch_optional(&mut *transaction)
    .await?;
    let Some((last, epoch)) = last else { return Ok(Sequencing::Busy) };
    let position = |sequence| Position { epoch: Epoch(epoch), sequence };
    if position(last) < remembered {
        return Ok(Sequencing::Behind);
    }
    // A plain read: it neither sees nor waits for rows of open transactions.
    let events: Vec<u64> = sqlx::query_scalar(
        "SELECT /* outbox::sequence_batch */ event_id FROM outbox_events FORCE INDEX (in_sequence) WHERE sequence IS NULL \
         ORDER BY event_id LIMIT ?",
    )
    .bind(SEQUENCE_BATCH_SIZE)
    .fetch_all(&mut *transaction)
    .await?;
    if events.is_empty() {
        return Ok(Sequencing::Done { events: 0, position: position(last) });
    }
    let mut statements = Statements::new(database.statement_bytes());
    let mut next = last + 1;
    // Ids are mostly consecutive, and one statement updates a run of them.
    for run in events.chunk_by(|one, other| one + 1 == *other) {
        let (Some(first), Some(end)) = (run.first(), run.last()) else { continue };
        statements.push(&format!(
            "UPDATE outbox_events /* outbox::sequence_batch */ SET sequence = {next} + (event_id - {first}) \
             WHERE event_id BETWEEN {first} AND {end}"
        ));
        next += run.len() as u64;
    }
    statements.push(&format!("UPDATE outbox_sequence /* outbox::sequence_batch */ SET last_sequence = {}", next - 1));
    let affected = statements.send(&mut transaction).await?;
    // The lock excludes other writers, so this is a defect. The rollback keeps the sequences free of gaps.
    if affected != events.len() as u64 + 1 {
        return Err(sqlx::Error::Encode(
            format!("expected to give {} sequences, {affected} rows changed", events.len()).into(),
        ));
    }
    transaction.commit().await?;
    Ok(Sequencing::Done { events: events.len(), position: position(next - 1) })
}

/// Registers a sink. A new sink receives only events that get their sequence after its registration.
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

/// How far a sink has delivered, and how far it can.
#[derive(Clone, Copy, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct SinkProgress {
    /// Every event up to this sequence is delivered.
    pub delivered_through: u64,
    /// The highest sequence given.
    pub last_sequence: u64,
    /// When the oldest undelivered event was inserted; none when all are delivered.
    pub waiting_since: Option<Timestamp>,
    /// The current epoch.
    #[sqlx(try_from = "u64")]
    pub epoch: Epoch,
}

/// The progress of a sink, if it is registered.
pub async fn find_sink_progress(
    connection: &mut MySqlConnection,
    sink: &str,
) -> Result<Option<SinkProgress>, sqlx::Error> {
    sqlx::query_as(
        "SELECT /* outbox::find_sink_progress */ s.delivered_through, q.last_sequence, e.created_at AS waiting_since, \
         (SELECT MAX(epoch) FROM epochs) AS epoch FROM sinks s JOIN outbox_sequence q LEFT JOIN outbox_events e ON e.sequence = s.delivered_through + 1 \
         WHERE s.name = ?",
    )
    .bind(sink)
    .fetch_optional(connection)
    .await
}

/// Undelivered events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// When the oldest event without a sequence was inserted.
    pub unsequenced_since: Option<Timestamp>,
    pub sinks: Vec<SinkBacklog>,
}

/// Undelivered events of one sink that have a sequence.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct SinkBacklog {
    pub sink: String,
    pub events: u64,
    /// When the oldest of them was inserted.
    pub waiting_since: Option<Timestamp>,
}

/// The undelivered events of all sinks.
pub async fn find_backlog(pool: &MySqlPool) -> Result<Backlog, sqlx::Error> {
    let unsequenced_since = sqlx::query_scalar(
        "SELECT /* outbox::find_backlog */ created_at FROM outbox_events FORCE INDEX (in_sequence) WHERE sequence IS NULL \
         ORDER BY event_id LIMIT 1",
    )
    .fetch_optional(pool)
    .await?;
    // Sequences have no gaps, so the oldest undelivered event of a sink is the next one.
    let sinks = sqlx::query_as(
        "SELECT /* outbox::find_backlog */ s.name AS sink, q.last_sequence - s.delivered_through AS events, \
         e.created_at AS waiting_since FROM sinks s \
         JOIN outbox_sequence q LEFT JOIN outbox_events e ON e.sequence = s.delivered_through + 1",
    )
    .fetch_all(pool)
    .await?;
    Ok(Backlog { unsequenced_since, sinks })
}

/// Events of these sequences in order, only those of `kinds`; all when it is empty.
pub async fn list_between(
    connection: &mut MySqlConnection,
    sequences: RangeInclusive<u64>,
    kinds: &[&str],
) -> Result<Vec<OutboxEvent>, sqlx::Error> {
    // The cast gives text on both servers: MySQL keeps JSON in a binary form.
    // Each sink has fixed kinds, so its statement is prepared once.
    let places = vec!["?"; kinds.len()].join(",");
    let only = if kinds.is_empty() { String::new() } else { format!("AND type IN ({places})") };
    let sql = format!(
        "SELECT /* outbox::list_between */ sequence, aggregate_type, aggregate_id, type, CAST(payload AS CHAR) AS payload, \
         created_at, traces FROM outbox_events WHERE sequence BETWEEN ? AND ? {only} ORDER BY sequence"
    );
    let query = sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(*sequences.start()).bind(*sequences.end());
    let query = kinds.iter().fold(query, |query, kind| query.bind(*kind));
    let rows: Vec<OutboxRow> = query.fetch_all(&mut *connection).await?;
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let epochs = epochs::list(connection).await?;
    let event = |row: OutboxRow| OutboxEvent {
        epoch: epochs.of(row.sequence),
        sequence: row.sequence,
        aggregate_type: row.aggregate_type,
        aggregate_id: row.aggregate_id,
        kind: row.kind,
        payload: row.payload,
        created_at: row.created_at,
        // What cannot be read is no trace: it must not hold up the event.
        traces: row.traces.and_then(|traces| serde_json::from_str(&traces).ok()).unwrap_or_default(),
    };
    Ok(rows.into_iter().map(event).collect())
}

/// Records that a sink has delivered the events after `from` up to `to`. Returns false, and changes nothing, when it is
/// not at `from`: another process has moved it.
pub async fn advance_sink(
    connection: &mut MySqlConnection,
    sink: &str,
    from: u64,
    to: u64,
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

/// Records that a process serves a sink, also while there is nothing to deliver.
pub async fn mark_sink_active(connection: &mut MySqlConnection, sink: &str, now: Timestamp) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE sinks /* outbox::mark_sink_active */ SET updated_at = ? WHERE name = ?")
        .bind(now)
        .bind(sink)
        .execute(connection)
        .await
        .map(drop)
}

/// Sinks that no process has served since `served_since`, by name.
pub async fn list_idle_sinks(pool: &MySqlPool, served_since: Timestamp) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar("SELECT /* outbox::list_idle_sinks */ name FROM sinks WHERE updated_at < ? ORDER BY name")
        .bind(served_since)
        .fetch_all(pool)
        .await
}

/// Deletes at most `limit` events that were inserted before `before` and that every sink served since `served_since`
/// has delivered. Returns their number: 0 while no sink is served.
pub async fn purge(
    pool: &MySqlPool,
    before: Timestamp,
    served_since: Timestamp,
    limit: u32,
) -> Result<u64, sqlx::Error> {
    // A sink without a worker does not count: a receiver that was switched off for good would keep every event for
    // ever. In the order of delivery, so that one row shows that nothing is old enough. The DELETE then needs one range
    // of one index, and locks nothing beyond it.
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
