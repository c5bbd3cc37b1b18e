//! The table `dead_letters`: messages and stream entries that could not be processed.
//!
//! A component that fails a message permanently inserts it, before or in the transaction in which it moves on. An
//! administrator requests a redrive. The process that serves the source, one at a time, redrives it and marks the
//! outcome.

use sqlx::{MySqlConnection, MySqlPool};

use super::{
    decode::{find_row, identifier, parse},
    is_duplicate,
};
use crate::{
    clock::Timestamp,
    domain::dead_letter::{
        DeadLetter, DeadLetterStatus, MAX_PAYLOAD_BYTES, MAX_REASON_LENGTH, NewDeadLetter, Redriven, beginning,
    },
    identifiers::DeadLetterId,
};

/// The highest count that [`count`] returns.
pub const COUNTED: u32 = 1_000;

const COLUMNS: &str = "dead_letter_id, source, source_key, kind, aggregate_id, payload, payload_bytes, \
                       redrivable <> 0 AS redrivable, reason, attempts, status, dead_lettered_at, redrive_at, sent_at, \
                       dropped_at";
/// The same with only the beginning of the payload.
const COLUMNS_SHORT: &str = "dead_letter_id, source, source_key, kind, aggregate_id, LEFT(payload, 300) AS payload, \
                             payload_bytes, redrivable <> 0 AS redrivable, reason, attempts, status, \
                             dead_lettered_at, redrive_at, sent_at, dropped_at";

#[derive(sqlx::FromRow)]
struct DeadLetterRow {
    dead_letter_id: u64,
    source: String,
    source_key: String,
    kind: String,
    aggregate_id: Option<String>,
    payload: String,
    payload_bytes: u32,
    redrivable: bool,
    reason: String,
    attempts: u32,
    status: String,
    dead_lettered_at: Timestamp,
    redrive_at: Option<Timestamp>,
    sent_at: Option<Timestamp>,
    dropped_at: Option<Timestamp>,
}

impl DeadLetterRow {
    fn decode(self) -> Result<DeadLetter, sqlx::Error> {
        Ok(DeadLetter {
            id: identifier(self.dead_letter_id)?,
            source: self.source,
            source_key: self.source_key,
            kind: self.kind,
            aggregate_id: self.aggregate_id,
            payload: self.payload,
            payload_bytes: self.payload_bytes,
            redrivable: self.redrivable,
            reason: self.reason,
            attempts: self.attempts,
            status: parse("dead_letters.status", &self.status)?,
            dead_lettered_at: self.dead_lettered_at,
            redrive_at: self.redrive_at,
            sent_at: self.sent_at,
            dropped_at: self.dropped_at,
        })
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeadLettersPage {
    /// Only those of this source.
    pub source: Option<String>,
    /// Only those of this status.
    pub status: Option<DeadLetterStatus>,
    /// Only those with a lower id.
    pub before: Option<DeadLetterId>,
    pub limit: u32,
    /// Of each payload only the first 300 characters.
    pub is_short: bool,
}

/// Inserts a dead letter; whether it is new. One that its source has inserted before stays unchanged, whatever its
/// status.
pub async fn insert(
    connection: &mut MySqlConnection,
    letter: &NewDeadLetter,
    now: Timestamp,
) -> Result<bool, sqlx::Error> {
    insert_truncated(connection, letter, letter.payload.len(), now).await
}

/// As [`insert`], of a payload of so many bytes of which the letter has the beginning or all.
pub async fn insert_truncated(
    connection: &mut MySqlConnection,
    letter: &NewDeadLetter,
    payload_bytes: usize,
    now: Timestamp,
) -> Result<bool, sqlx::Error> {
    let payload = beginning(&letter.payload, MAX_PAYLOAD_BYTES);
    let whole = payload.len() == payload_bytes;
    // Not INSERT IGNORE, which would also turn a value that is too long into a mere warning.
    let inserted = sqlx::query(
        "INSERT INTO dead_letters /* dead_letters::insert */ (source, source_key, kind, aggregate_id, payload, payload_bytes, \
         redrivable, reason, attempts, status, dead_lettered_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 'DEAD', ?)",
    )
    .bind(&letter.source)
    .bind(&letter.key)
    .bind(&letter.kind)
    .bind(&letter.aggregate_id)
    .bind(payload)
    .bind(u32::try_from(payload_bytes).unwrap_or(u32::MAX))
    // What was cut cannot be sent again.
    .bind(letter.redrivable && whole)
    .bind(reason_of(&letter.reason))
    .bind(letter.attempts)
    .bind(now)
    .execute(connection)
    .await;
    match inserted {
        Ok(_) => Ok(true),
        Err(error) if is_duplicate(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

fn reason_of(reason: &str) -> String {
    // A longer text would be an error in strict mode.
    reason.chars().take(MAX_REASON_LENGTH).collect()
}

/// The newest first.
pub async fn list(pool: &MySqlPool, page: &DeadLettersPage) -> Result<Vec<DeadLetter>, sqlx::Error> {
    // Conditions are added only where they are given: `? IS NULL OR ..` would keep the server from its indexes.
    let mut only = String::new();
    for (given, condition) in [
        (page.source.is_some(), " AND source = ?"),
        (page.status.is_some(), " AND status = ?"),
        (page.before.is_some(), " AND dead_letter_id < ?"),
    ] {
        only.push_str(if given { condition } else { "" });
    }
    let columns = if page.is_short { COLUMNS_SHORT } else { COLUMNS };
    let sql = format!(
        "SELECT /* dead_letters::list */ {columns} FROM dead_letters WHERE TRUE{only} ORDER BY dead_letter_id DESC LIMIT ?"
    );
    let mut query = sqlx::query_as(sqlx::AssertSqlSafe(sql));
    if let Some(source) = &page.source {
        query = query.bind(source);
    }
    if let Some(status) = page.status {
        query = query.bind(status.into_str());
    }
    if let Some(before) = page.before {
        query = query.bind(before.get());
    }
    let rows: Vec<DeadLetterRow> = query.bind(page.limit).fetch_all(pool).await?;
    rows.into_iter().map(DeadLetterRow::decode).collect()
}

pub async fn find(pool: &MySqlPool, id: DeadLetterId) -> Result<Option<DeadLetter>, sqlx::Error> {
    let sql = format!("SELECT /* dead_letters::find */ {COLUMNS} FROM dead_letters WHERE dead_letter_id = ?");
    find_row(pool, sql, id.get()).await?.map(DeadLetterRow::decode).transpose()
}

/// Requests a redrive of a DEAD letter that is redrivable; whether it was one.
pub async fn request_redrive(
    connection: &mut MySqlConnection,
    id: DeadLetterId,
    now: Timestamp,
) -> Result<bool, sqlx::Error> {
    let requested = sqlx::query(
        // The condition decides, and no read before it: of two requests at once, one finds the letter DEAD.
        "UPDATE dead_letters /* dead_letters::request_redrive */ SET status = 'REDRIVE', redrive_at = ? \
         WHERE dead_letter_id = ? AND status = 'DEAD' AND redrivable",
    );
    Ok(requested.bind(now).bind(id.get()).execute(connection).await?.rows_affected() == 1)
}

/// Requests a redrive of the next DEAD letters of a source that are redrivable: at most `limit` with a higher id than
/// `after`. Returns the id of the last, and how many there were; none at the end.
pub async fn request_redrive_of_source(
    connection: &mut MySqlConnection,
    source: &str,
    after: Option<DeadLetterId>,
    now: Timestamp,
    limit: u32,
) -> Result<Option<(DeadLetterId, u64)>, sqlx::Error> {
    let after = after.map_or(0, DeadLetterId::get);
    // The range first: an UPDATE with LIMIT does not say where it stopped.
    let last: Option<u64> = sqlx::query_scalar(
        "SELECT /* dead_letters::request_redrive_of_source */ MAX(dead_letter_id) FROM (SELECT dead_letter_id FROM dead_letters \
         WHERE status = 'DEAD' AND source = ? AND dead_letter_id > ? AND redrivable \
         ORDER BY dead_letter_id LIMIT ?) AS next",
    )
    .bind(source)
    .bind(after)
    .bind(limit)
    .fetch_one(&mut *connection)
    .await?;
    let Some(last) = last else { return Ok(None) };
    let asked = sqlx::query(
        "UPDATE dead_letters /* dead_letters::request_redrive_of_source */ SET status = 'REDRIVE', redrive_at = ? \
         WHERE status = 'DEAD' AND source = ? AND dead_letter_id > ? AND dead_letter_id <= ? AND redrivable",
    )
    .bind(now)
    .bind(source)
    .bind(after)
    .bind(last)
    .execute(connection)
    .await?;
    Ok(Some((identifier(last)?, asked.rows_affected())))
}

/// At most `limit` letters of a source whose redrive is requested, with a higher id than `after`, in the order of ids.
/// They are listed until [`mark_redriven`]: the caller holds the lease of the source.
pub async fn list_to_redrive(
    connection: &mut MySqlConnection,
    source: &str,
    after: Option<DeadLetterId>,
    limit: u32,
) -> Result<Vec<DeadLetter>, sqlx::Error> {
    let sql = format!(
        "SELECT /* dead_letters::list_to_redrive */ {COLUMNS} FROM dead_letters WHERE status = 'REDRIVE' AND source = ? \
         AND dead_letter_id > ? ORDER BY dead_letter_id LIMIT ?"
    );
    let rows: Vec<DeadLetterRow> = sqlx::query_as(sqlx::AssertSqlSafe(sql))
        .bind(source)
        .bind(after.map_or(0, DeadLetterId::get))
        .bind(limit)
        .fetch_all(connection)
        .await?;
    rows.into_iter().map(DeadLetterRow::decode).collect()
}

/// The same for a sink with a retry queue: only letters that are not in it yet.
pub async fn list_to_retry(
    connection: &mut MySqlConnection,
    sink: &str,
    limit: u32,
) -> Result<Vec<DeadLetter>, sqlx::Error> {
    let sql = format!(
        "SELECT /* dead_letters::list_to_retry */ {COLUMNS} FROM dead_letters d WHERE status = 'REDRIVE' AND source = ? \
         AND NOT EXISTS (SELECT 1 FROM webhook_retry_queue q WHERE q.dead_letter_id = d.dead_letter_id) \
         ORDER BY dead_letter_id LIMIT ?"
    );
    let rows: Vec<DeadLetterRow> =
        sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(sink).bind(limit).fetch_all(connection).await?;
    rows.into_iter().map(DeadLetterRow::decode).collect()
}

/// Marks the outcome of a redrive.
pub async fn mark_redriven(
    connection: &mut MySqlConnection,
    id: DeadLetterId,
    redriven: &Redriven,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    let query = match redriven {
        Redriven::Sent { attempts } => sqlx::query(
            "UPDATE dead_letters /* dead_letters::mark_redriven */ SET status = 'SENT', sent_at = ?, attempts = attempts + ? \
             WHERE dead_letter_id = ? AND status = 'REDRIVE'",
        )
        .bind(now)
        .bind(attempts),
        Redriven::Dead { reason, attempts } => sqlx::query(
            "UPDATE dead_letters /* dead_letters::mark_redriven */ SET status = 'DEAD', dead_lettered_at = ?, reason = ?, \
             attempts = attempts + ? WHERE dead_letter_id = ? AND status = 'REDRIVE'",
        )
        .bind(now)
        .bind(reason_of(reason))
        .bind(attempts),
    };
    query.bind(id.get()).execute(connection).await.map(drop)
}

/// Drops a DEAD letter; whether it was one.
pub async fn mark_dropped(
    connection: &mut MySqlConnection,
    id: DeadLetterId,
    now: Timestamp,
) -> Result<bool, sqlx::Error> {
    let dropped = sqlx::query(
        "UPDATE dead_letters /* dead_letters::mark_dropped */ SET status = 'DROPPED', dropped_at = ? \
         WHERE dead_letter_id = ? AND status = 'DEAD'",
    );
    Ok(dropped.bind(now).bind(id.get()).execute(connection).await?.rows_affected() == 1)
}

/// The payloads of a source's letters about one aggregate that are neither sent nor dropped.
pub async fn list_open_payloads(
    pool: &MySqlPool,
    source: &str,
    aggregate_id: &str,
) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT /* dead_letters::list_open_payloads */ payload FROM dead_letters \
         WHERE source = ? AND aggregate_id = ? AND status IN ('DEAD', 'REDRIVE')",
    )
    .bind(source)
    .bind(aggregate_id)
    .fetch_all(pool)
    .await
}

/// Every source that has a letter, of any status.
pub async fn list_sources(connection: &mut MySqlConnection) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar("SELECT /* dead_letters::list_sources */ DISTINCT source FROM dead_letters")
        .fetch_all(connection)
        .await
}

/// How many letters of a source are DEAD, up to [`COUNTED`].
pub async fn count(connection: &mut MySqlConnection, source: &str) -> Result<u64, sqlx::Error> {
    // The inner LIMIT ends the scan. A gauge of millions is no more useful than one of a thousand.
    let count: i64 = sqlx::query_scalar(
        "SELECT /* dead_letters::count */ COUNT(*) FROM \
         (SELECT 1 FROM dead_letters WHERE status = 'DEAD' AND source = ? LIMIT ?) AS dead",
    )
    .bind(source)
    .bind(COUNTED)
    .fetch_one(connection)
    .await?;
    Ok(count.unsigned_abs())
}

/// Deletes at most `limit` letters that were sent, and as many that were dropped, before this moment; how many.
pub async fn purge(pool: &MySqlPool, before: Timestamp, limit: u32) -> Result<u64, sqlx::Error> {
    // Two statements: with OR, neither index would serve.
    let sent = "DELETE FROM dead_letters /* dead_letters::purge */ WHERE sent_at < ? \
                ORDER BY sent_at, dead_letter_id LIMIT ?";
    let dropped = "DELETE FROM dead_letters /* dead_letters::purge */ WHERE dropped_at < ? \
                   ORDER BY dropped_at, dead_letter_id LIMIT ?";
    let mut deleted = 0;
    for sql in [sent, dropped] {
        deleted += sqlx::query(sql).bind(before).bind(limit).execute(pool).await?.rows_affected();
    }
    Ok(deleted)
}
