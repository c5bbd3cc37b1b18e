//! The table `idempotency_keys`: requests that came with an `Idempotency-Key`, and what they were answered.
//!
//! A row begins with the id of its operation and a time until which it is in progress. Whoever runs it stores the
//! answer. When that time is over without an answer, the process that ran it is taken to be dead: the next repeat
//! takes the row over, and runs again with the same operation id.

use std::time::Duration;

use chrono::TimeDelta;
use sqlx::MySqlPool;
use uuid::Uuid;

use super::{errors::is_contention, is_duplicate, within_limit};
use crate::{clock::Timestamp, error::Result};

/// How long an answer is kept; after that the key counts as new.
pub const RETENTION: TimeDelta = TimeDelta::hours(24);
/// How long a request may run before its process counts as dead.
const LONGEST_RUN: TimeDelta = TimeDelta::seconds(60);
/// How often a row that others change is looked at again before the request counts as in progress.
const ROUNDS: u32 = 5;
/// Rows that one statement purges, and how long it may take.
const PURGE_BATCH: u64 = 1_000;
const LONGEST_PURGE: Duration = Duration::from_secs(10);

/// A request with a key, by its hashes.
#[derive(Clone, Copy, Debug)]
pub struct KeyedRequest {
    /// SHA-256 of method, path and key, with line feeds between them.
    pub key_hash: [u8; 32],
    /// SHA-256 of the body.
    pub body_hash: [u8; 32],
}

/// What is known of a key when a request arrives with it.
#[derive(Clone, Debug)]
pub enum KeyState {
    /// The caller runs the request, and ends the attempt by [`store_response`], [`release`] or [`discard`].
    Acquired(Attempt),
    /// An earlier attempt stored this response; it is sent again.
    Completed(StoredResponse),
    /// Another attempt runs now.
    InProgress,
    /// The key came before with another request.
    FingerprintMismatch,
}

/// One run of a request. The time tells it from those before and after it.
#[derive(Clone, Copy, Debug)]
pub struct Attempt {
    /// The id of what the request makes, the same at every attempt.
    pub operation: Uuid,
    /// Whether nobody has run it before.
    pub is_first: bool,
    key_hash: [u8; 32],
    until: Timestamp,
}

/// An answer, to be given again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredResponse {
    /// The HTTP status.
    pub status: u16,
    /// The header of that name.
    pub content_type: Option<String>,
    /// The header of that name.
    pub location: Option<String>,
    /// The body.
    pub body: Vec<u8>,
}

#[derive(sqlx::FromRow)]
struct KeyRow {
    body_hash: Vec<u8>,
    operation_id: Uuid,
    in_progress_until: Option<Timestamp>,
    status: Option<u16>,
    content_type: Option<String>,
    location: Option<String>,
    body: Option<Vec<u8>>,
    created_at: Timestamp,
}

/// Finds out what to do with a request; `operation` becomes the id of its operation when its key is new.
pub async fn begin(
    pool: &MySqlPool,
    request: &KeyedRequest,
    operation: Uuid,
    now: Timestamp,
) -> Result<KeyState, sqlx::Error> {
    for _ in 0..ROUNDS {
        // Nearly always the key is new, so it is not looked for first.
        match insert(pool, request, operation, now).await {
            Ok(attempt) => return Ok(KeyState::Acquired(attempt)),
            Err(error) if is_duplicate(&error) => {}
            Err(error) if is_contention(&error) => continue,
            Err(error) => return Err(error),
        }
        let Some(row) = find(pool, request).await? else { continue };
        if row.created_at <= now - RETENTION {
            delete_expired(pool, request, row.created_at).await?;
        } else if let Some(begun) = repeat(pool, request, row, now).await? {
            return Ok(begun);
        }
    }
    Ok(KeyState::InProgress)
}

async fn insert(
    pool: &MySqlPool,
    request: &KeyedRequest,
    operation: Uuid,
    now: Timestamp,
) -> Result<Attempt, sqlx::Error> {
    let until = now + LONGEST_RUN;
    sqlx::query(
        "INSERT INTO idempotency_keys /* idempotency::begin */ \
         (key_hash, body_hash, operation_id, in_progress_until, created_at) VALUES (?, ?, ?, ?, ?)",
    )
    .bind(&request.key_hash[..])
    .bind(&request.body_hash[..])
    .bind(operation)
    .bind(until)
    .bind(now)
    .execute(pool)
    .await?;
    Ok(Attempt { operation, is_first: true, key_hash: request.key_hash, until })
}

async fn find(pool: &MySqlPool, request: &KeyedRequest) -> Result<Option<KeyRow>, sqlx::Error> {
    sqlx::query_as(
        "SELECT /* idempotency::begin */ body_hash, operation_id, in_progress_until, status, content_type, location, body, \
         created_at FROM idempotency_keys WHERE key_hash = ?",
    )
    .bind(&request.key_hash[..])
    .fetch_optional(pool)
    .await
}

/// Nothing happens when somebody else has replaced the row meanwhile, or is about to.
async fn delete_expired(pool: &MySqlPool, request: &KeyedRequest, created_at: Timestamp) -> Result<(), sqlx::Error> {
    let deleted = sqlx::query(
        "DELETE /* idempotency::begin: it is too old */ FROM idempotency_keys WHERE key_hash = ? AND created_at = ?",
    )
    .bind(&request.key_hash[..])
    .bind(created_at)
    .execute(pool)
    .await;
    match deleted {
        Err(error) if !is_contention(&error) => Err(error),
        _ => Ok(()),
    }
}

/// What to do with a request whose key came before; none when another repeat was quicker to take it over.
async fn repeat(
    pool: &MySqlPool,
    request: &KeyedRequest,
    row: KeyRow,
    now: Timestamp,
) -> Result<Option<KeyState>, sqlx::Error> {
    if row.body_hash != request.body_hash {
        return Ok(Some(KeyState::FingerprintMismatch));
    }
    if let Some(status) = row.status {
        let (content_type, location, body) = (row.content_type, row.location, row.body.unwrap_or_default());
        return Ok(Some(KeyState::Completed(StoredResponse { status, content_type, location, body })));
    }
    if row.in_progress_until.is_some_and(|until| until > now) {
        return Ok(Some(KeyState::InProgress));
    }
    let until = now + LONGEST_RUN;
    let taken = sqlx::query(
        "UPDATE idempotency_keys /* idempotency::begin: the process that ran it is dead, or gave it back */ \
         SET in_progress_until = ? \
         WHERE key_hash = ? AND operation_id = ? AND status IS NULL AND in_progress_until <=> ?",
    )
    .bind(until)
    .bind(&request.key_hash[..])
    .bind(row.operation_id)
    .bind(row.in_progress_until)
    .execute(pool)
    .await?;
    let attempt = Attempt { operation: row.operation_id, is_first: false, key_hash: request.key_hash, until };
    Ok((taken.rows_affected() == 1).then_some(KeyState::Acquired(attempt)))
}

/// Stores the answer of an attempt; that of another attempt at the same operation stays.
pub async fn store_response(pool: &MySqlPool, attempt: &Attempt, answer: &StoredResponse) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE idempotency_keys /* idempotency::store_response */ \
         SET in_progress_until = NULL, status = ?, content_type = ?, location = ?, body = ? \
         WHERE key_hash = ? AND operation_id = ? AND status IS NULL",
    )
    .bind(answer.status)
    .bind(&answer.content_type)
    .bind(&answer.location)
    .bind(&answer.body)
    .bind(&attempt.key_hash[..])
    .bind(attempt.operation)
    .execute(pool)
    .await
    .map(drop)
}

/// Ends an attempt without an answer: a repeat runs at once, with the same operation id.
pub async fn release(pool: &MySqlPool, attempt: &Attempt, now: Timestamp) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE idempotency_keys /* idempotency::release */ SET in_progress_until = ? \
         WHERE key_hash = ? AND operation_id = ? AND status IS NULL AND in_progress_until = ?",
    )
    .bind(now)
    .bind(&attempt.key_hash[..])
    .bind(attempt.operation)
    .bind(attempt.until)
    .execute(pool)
    .await
    .map(drop)
}

/// Ends an attempt that did nothing: the key counts as new.
pub async fn discard(pool: &MySqlPool, attempt: &Attempt) -> Result<(), sqlx::Error> {
    sqlx::query(
        "DELETE /* idempotency::discard */ FROM idempotency_keys \
         WHERE key_hash = ? AND operation_id = ? AND status IS NULL AND in_progress_until = ?",
    )
    .bind(&attempt.key_hash[..])
    .bind(attempt.operation)
    .bind(attempt.until)
    .execute(pool)
    .await
    .map(drop)
}

/// Deletes what was made before that moment, a batch at a time so that nobody waits long; how many rows.
pub async fn purge(pool: &MySqlPool, before: Timestamp) -> Result<u64> {
    let mut purged = 0;
    loop {
        let batch = sqlx::query(
            "DELETE /* idempotency::purge */ FROM idempotency_keys WHERE created_at < ? ORDER BY created_at LIMIT ?",
        )
        .bind(before)
        .bind(PURGE_BATCH)
        .execute(pool);
        let deleted = within_limit(LONGEST_PURGE, batch).await?.rows_affected();
        purged += deleted;
        if deleted < PURGE_BATCH {
            return Ok(purged);
        }
    }
}
