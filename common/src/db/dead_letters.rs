//! The table `dead_letters`: what was given up on, until it is sent again.
//!
//! Whoever gives something up buries it, in the transaction in which it moves on. An administrator asks for a letter to
//! be sent again. Whoever serves its source, one process at a time, then takes it and notes what became of it.

use sqlx::{MySqlConnection, MySqlPool};

use super::{decode::identifier, is_duplicate};
use crate::{
    clock::Timestamp,
    domain::dead_letter::{
        DeadLetter, DeadLetterStatus, LONGEST_PAYLOAD, LONGEST_REASON, NewDeadLetter, Redriven, beginning,
    },
    identifiers::DeadLetterId,
};

/// How far dead letters are counted.
pub const COUNTED: u32 = 1_000;

const COLUMNS: &str = "dead_letter_id, source, source_key, kind, aggregate_id, payload, payload_bytes, \
                       redrivable <> 0 AS redrivable, reason, attempts, status, buried_at, redrive_at, sent_at";
/// The same, and of the payload no more than its beginning.
const COLUMNS_SHORT: &str = "dead_letter_id, source, source_key, kind, aggregate_id, LEFT(payload, 300) AS payload, \
                             payload_bytes, redrivable <> 0 AS redrivable, reason, attempts, status, buried_at, \
                             redrive_at, sent_at";

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
    buried_at: Timestamp,
    redrive_at: Option<Timestamp>,
    sent_at: Option<Timestamp>,
}

impl TryFrom<DeadLetterRow> for DeadLetter {
    type Error = sqlx::Error;

    fn try_from(row: DeadLetterRow) -> Result<Self, sqlx::Error> {
        let id: DeadLetterId = identifier(row.dead_letter_id)?;
        let strange = || sqlx::Error::Decode(format!("dead letter {id}: unknown status").into());
        Ok(Self {
            id,
            source: row.source,
            source_key: row.source_key,
            kind: row.kind,
            aggregate_id: row.aggregate_id,
            payload: row.payload,
            payload_bytes: row.payload_bytes,
            redrivable: row.redrivable,
            reason: row.reason,
            attempts: row.attempts,
            status: DeadLetterStatus::from_spelling(&row.status).ok_or_else(strange)?,
            buried_at: row.buried_at,
            redrive_at: row.redrive_at,
            sent_at: row.sent_at,
        })
    }
}

/// Which dead letters are asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeadLettersPage {
    /// Only those of this source.
    pub source: Option<String>,
    /// Only those of this status.
    pub status: Option<DeadLetterStatus>,
    /// Only those that were buried before this one for the first time.
    pub before: Option<DeadLetterId>,
    /// At most so many.
    pub limit: u32,
    /// Of each payload only the first 300 characters.
    pub is_short: bool,
}

/// Gives something up; whether that is new. What its source has given up before stays as it is: twice is once, whatever
/// became of it since.
pub async fn bury(
    connection: &mut MySqlConnection,
    letter: &NewDeadLetter,
    now: Timestamp,
) -> Result<bool, sqlx::Error> {
    dead_letter_truncated(connection, letter, letter.payload.len(), now).await
}

/// Gives something up of whose payload, so many bytes, the letter has the beginning or all; as [`bury`].
pub async fn dead_letter_truncated(
    connection: &mut MySqlConnection,
    letter: &NewDeadLetter,
    payload_bytes: usize,
    now: Timestamp,
) -> Result<bool, sqlx::Error> {
    let payload = beginning(&letter.payload, LONGEST_PAYLOAD);
    let whole = payload.len() == payload_bytes;
    let buried = sqlx::query(
        "INSERT INTO dead_letters /* bury */ (source, source_key, kind, aggregate_id, payload, payload_bytes, \
         redrivable, reason, attempts, status, buried_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 'DEAD', ?)",
    )
    .bind(&letter.source)
    .bind(&letter.key)
    .bind(&letter.kind)
    .bind(&letter.aggregate_id)
    .bind(payload)
    .bind(u32::try_from(payload_bytes).unwrap_or(u32::MAX))
    .bind(letter.redrivable && whole)
    .bind(reason_of(&letter.reason))
    .bind(letter.attempts)
    .bind(now)
    .execute(connection)
    .await;
    match buried {
        Ok(_) => Ok(true),
        Err(error) if is_duplicate(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

fn reason_of(reason: &str) -> String {
    reason.chars().take(LONGEST_REASON).collect()
}

/// A page of dead letters, the newest first.
pub async fn dead_letters(pool: &MySqlPool, page: &DeadLettersPage) -> Result<Vec<DeadLetter>, sqlx::Error> {
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
        "SELECT /* dead_letters */ {columns} FROM dead_letters WHERE TRUE{only} ORDER BY dead_letter_id DESC LIMIT ?"
    );
    let mut query = sqlx::query_as(sqlx::AssertSqlSafe(sql));
    if let Some(source) = &page.source {
        query = query.bind(source);
    }
    if let Some(status) = page.status {
        query = query.bind(status.as_str());
    }
    if let Some(before) = page.before {
        query = query.bind(before.get());
    }
    let rows: Vec<DeadLetterRow> = query.bind(page.limit).fetch_all(pool).await?;
    rows.into_iter().map(DeadLetter::try_from).collect()
}

/// Asks for a letter to be sent again, unless that was asked before or it was sent. Returns the letter as it is then,
/// DEAD when it cannot be sent again; none when there is no such letter.
pub async fn request_redrive(
    pool: &MySqlPool,
    id: DeadLetterId,
    now: Timestamp,
) -> Result<Option<DeadLetter>, sqlx::Error> {
    sqlx::query(
        "UPDATE dead_letters /* request_redrive */ SET status = 'REDRIVE', redrive_at = ? \
         WHERE dead_letter_id = ? AND status = 'DEAD' AND redrivable",
    )
    .bind(now)
    .bind(id.get())
    .execute(pool)
    .await?;
    let sql = format!("SELECT /* request_redrive */ {COLUMNS} FROM dead_letters WHERE dead_letter_id = ?");
    let row: Option<DeadLetterRow> =
        sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(id.get()).fetch_optional(pool).await?;
    row.map(DeadLetter::try_from).transpose()
}

/// Asks for the next letters of a source to be sent again, of those that nobody has asked for and that can be: at most
/// `limit` with a higher id than `after`. Returns the id of the last, and how many there were; none at the end.
pub async fn request_redrive_of_source(
    pool: &MySqlPool,
    source: &str,
    after: Option<DeadLetterId>,
    now: Timestamp,
    limit: u32,
) -> Result<Option<(DeadLetterId, u64)>, sqlx::Error> {
    let after = after.map_or(0, DeadLetterId::get);
    let last: Option<u64> = sqlx::query_scalar(
        "SELECT /* request_redrive_of_source */ MAX(dead_letter_id) FROM (SELECT dead_letter_id FROM dead_letters \
         WHERE status = 'DEAD' AND source = ? AND dead_letter_id > ? AND redrivable \
         ORDER BY dead_letter_id LIMIT ?) AS next",
    )
    .bind(source)
    .bind(after)
    .bind(limit)
    .fetch_one(pool)
    .await?;
    let Some(last) = last else { return Ok(None) };
    let asked = sqlx::query(
        "UPDATE dead_letters /* request_redrive_of_source */ SET status = 'REDRIVE', redrive_at = ? \
         WHERE status = 'DEAD' AND source = ? AND dead_letter_id > ? AND dead_letter_id <= ? AND redrivable",
    )
    .bind(now)
    .bind(source)
    .bind(after)
    .bind(last)
    .execute(pool)
    .await?;
    Ok(Some((identifier(last)?, asked.rows_affected())))
}

/// At most `limit` letters of a source that are to be sent again and have a higher id than `after`, in the order in
/// which they were buried. They are there again until [`note_redriven`]: only one process may send those of a source.
pub async fn letters_to_redrive(
    connection: &mut MySqlConnection,
    source: &str,
    after: Option<DeadLetterId>,
    limit: u32,
) -> Result<Vec<DeadLetter>, sqlx::Error> {
    let sql = format!(
        "SELECT /* letters_to_redrive */ {COLUMNS} FROM dead_letters WHERE status = 'REDRIVE' AND source = ? \
         AND dead_letter_id > ? ORDER BY dead_letter_id LIMIT ?"
    );
    let rows: Vec<DeadLetterRow> = sqlx::query_as(sqlx::AssertSqlSafe(sql))
        .bind(source)
        .bind(after.map_or(0, DeadLetterId::get))
        .bind(limit)
        .fetch_all(connection)
        .await?;
    rows.into_iter().map(DeadLetter::try_from).collect()
}

/// The same for a sink that parks what it sends: only letters that are not parked yet.
pub async fn letters_to_retry(
    connection: &mut MySqlConnection,
    sink: &str,
    limit: u32,
) -> Result<Vec<DeadLetter>, sqlx::Error> {
    let sql = format!(
        "SELECT /* letters_to_retry */ {COLUMNS} FROM dead_letters d WHERE status = 'REDRIVE' AND source = ? \
         AND NOT EXISTS (SELECT 1 FROM parked_messages p WHERE p.dead_letter_id = d.dead_letter_id) \
         ORDER BY dead_letter_id LIMIT ?"
    );
    let rows: Vec<DeadLetterRow> =
        sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(sink).bind(limit).fetch_all(connection).await?;
    rows.into_iter().map(DeadLetter::try_from).collect()
}

/// Notes what became of a letter that was sent again.
pub async fn note_redriven(
    connection: &mut MySqlConnection,
    id: DeadLetterId,
    redriven: &Redriven,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    let query = match redriven {
        Redriven::Sent { attempts } => sqlx::query(
            "UPDATE dead_letters /* note_redriven */ SET status = 'SENT', sent_at = ?, attempts = attempts + ? \
             WHERE dead_letter_id = ? AND status = 'REDRIVE'",
        )
        .bind(now)
        .bind(attempts),
        Redriven::Dead { reason, attempts } => sqlx::query(
            "UPDATE dead_letters /* note_redriven */ SET status = 'DEAD', buried_at = ?, reason = ?, \
             attempts = attempts + ? WHERE dead_letter_id = ? AND status = 'REDRIVE'",
        )
        .bind(now)
        .bind(reason_of(reason))
        .bind(attempts),
    };
    query.bind(id.get()).execute(connection).await.map(drop)
}

/// How many letters of a source nobody has asked for, up to [`COUNTED`].
pub async fn count_dead_letters(connection: &mut MySqlConnection, source: &str) -> Result<u64, sqlx::Error> {
    let count: i64 = sqlx::query_scalar(
        "SELECT /* count_dead_letters */ COUNT(*) FROM \
         (SELECT 1 FROM dead_letters WHERE status = 'DEAD' AND source = ? LIMIT ?) AS dead",
    )
    .bind(source)
    .bind(COUNTED)
    .fetch_one(connection)
    .await?;
    Ok(count.unsigned_abs())
}

/// Deletes at most `limit` letters that were sent before this moment; how many.
pub async fn purge_dead_letters(pool: &MySqlPool, before: Timestamp, limit: u32) -> Result<u64, sqlx::Error> {
    let deleted = sqlx::query(
        "DELETE FROM dead_letters /* purge_dead_letters */ WHERE sent_at < ? ORDER BY sent_at, dead_letter_id LIMIT ?",
    )
    .bind(before)
    .bind(limit)
    .execute(pool)
    .await?;
    Ok(deleted.rows_affected())
}
