//! The table `idempotency_keys`: requests with an `Idempotency-Key` and their responses, as in the IETF draft
//! `draft-ietf-httpapi-idempotency-key-header`.
//!
//! A row begins with the id of its operation and a time until which it is in progress. The process that runs the
//! request renews that time and stores the response. If it passes without a response, the process counts as dead: the
//! next repeat acquires the row and runs the request again with the same operation id.

use std::time::Duration;

use chrono::TimeDelta;
use sqlx::{MySql, MySqlPool, mysql::MySqlArguments, query::Query};
use uuid::Uuid;

use super::{errors::is_contention, is_duplicate, within_limit};
use crate::{clock::Timestamp, error::Result};

/// How long a response is kept. After that the key counts as new.
pub const RETENTION: TimeDelta = TimeDelta::hours(24);
/// A request whose attempt was not renewed for so long counts as abandoned by a dead process. Callers wait for as long.
const ATTEMPT_TIMEOUT: TimeDelta = TimeDelta::seconds(10);
/// How often an attempt is renewed while its request runs.
pub const RENEWAL_INTERVAL: Duration = Duration::from_secs(3);
/// How often a row that other requests change is read again before the request counts as in progress.
const MAX_ROUNDS: u32 = 5;
/// Rows of one DELETE: few enough that no insert waits long for its locks.
const PURGE_BATCH_SIZE: u64 = 1_000;
const PURGE_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, Debug)]
pub struct KeyedRequest {
    /// SHA-256 of method, path and key, with line feeds between them.
    pub key_hash: [u8; 32],
    /// Under which hash the version before stored this key, where that is another one: with the quotes around the key.
    pub quoted_key_hash: Option<[u8; 32]>,
    /// SHA-256 of the bytes of the body, and of the query where there is one.
    pub body_hash: [u8; 32],
    /// SHA-256 of the JSON value of the body, and of the query where there is one; none when the body is no JSON.
    pub value_hash: Option<[u8; 32]>,
}

impl KeyedRequest {
    /// Whether a request with this key is the one that the row began with.
    fn is_repeat_of(&self, row: &KeyRow) -> bool {
        // Rows of the version before have no hash of the value, and it compares bytes alone: their own repeats match.
        row.body_hash == self.body_hash
            || self.value_hash.is_some_and(|hash| row.value_hash.as_deref() == Some(&hash[..]))
    }
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

/// One run of a request. Its deadline distinguishes it from earlier and later attempts.
#[derive(Clone, Copy, Debug)]
pub struct Attempt {
    /// The id of what the request creates, the same for every attempt.
    pub operation: Uuid,
    /// Whether no attempt was made before.
    pub is_first: bool,
    key_hash: [u8; 32],
    until: Timestamp,
}

/// A response that repeats receive again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredResponse {
    pub status: u16,
    pub content_type: Option<String>,
    pub location: Option<String>,
    pub body: Vec<u8>,
}

#[derive(sqlx::FromRow)]
struct KeyRow {
    body_hash: Vec<u8>,
    value_hash: Option<Vec<u8>>,
    operation_id: Uuid,
    in_progress_until: Option<Timestamp>,
    status: Option<u16>,
    content_type: Option<String>,
    location: Option<String>,
    body: Option<Vec<u8>>,
    created_at: Timestamp,
}

/// Looks a request's key up, and acquires it when it is new or abandoned. A new key gets `operation` as the id of its
/// operation.
pub async fn begin(
    pool: &MySqlPool,
    request: &KeyedRequest,
    operation: Uuid,
    now: Timestamp,
) -> Result<KeyState, sqlx::Error> {
    let request = &known_by(pool, request, now).await?;
    let mut is_uncertain = false;
    // Each step below may lose a race against another request with the same key; then the row is read again.
    for _ in 0..MAX_ROUNDS {
        // Nearly always the key is new, so the insert comes first, without a read before it.
        match insert(pool, request, operation, now).await {
            Ok(attempt) => return Ok(KeyState::Acquired(attempt)),
            Err(error) if is_duplicate(&error) => {}
            Err(error) if is_contention(&error) => continue,
            // The row may be there all the same. Left behind, it would keep the caller out until it counts as
            // abandoned, so another connection finds out.
            Err(sqlx::Error::Io(_)) if !is_uncertain => {
                is_uncertain = true;
                continue;
            }
            Err(error) => return Err(error),
        }
        let Some(row) = find(pool, request).await? else { continue };
        let until = now + ATTEMPT_TIMEOUT;
        if row.operation_id == operation && row.in_progress_until == Some(until) {
            return Ok(KeyState::Acquired(Attempt { operation, is_first: true, key_hash: request.key_hash, until }));
        }
        // The purge runs in intervals, so a row may still be here although its response is no longer promised.
        if row.created_at <= now - RETENTION {
            delete_expired(pool, request, row.created_at).await?;
        } else if let Some(state) = repeat(pool, request, row, now).await? {
            return Ok(state);
        }
    }
    Ok(KeyState::InProgress)
}

/// The request by the hash under which its key is stored. The version before took a quoted key for another than the bare
/// one; what it has stored stays valid for as long as it was promised.
async fn known_by(pool: &MySqlPool, request: &KeyedRequest, now: Timestamp) -> Result<KeyedRequest, sqlx::Error> {
    let Some(quoted) = request.quoted_key_hash else { return Ok(*request) };
    let before = KeyedRequest { key_hash: quoted, ..*request };
    let row = find(pool, &before).await?;
    Ok(row.filter(|row| row.created_at > now - RETENTION).map_or(*request, |_| before))
}

async fn insert(
    pool: &MySqlPool,
    request: &KeyedRequest,
    operation: Uuid,
    now: Timestamp,
) -> Result<Attempt, sqlx::Error> {
    let until = now + ATTEMPT_TIMEOUT;
    sqlx::query(
        "INSERT INTO idempotency_keys /* idempotency::insert */ \
         (key_hash, body_hash, value_hash, operation_id, in_progress_until, created_at) VALUES (?, ?, ?, ?, ?, ?)",
    )
    .bind(&request.key_hash[..])
    .bind(&request.body_hash[..])
    .bind(request.value_hash.as_ref().map(|hash| &hash[..]))
    .bind(operation)
    .bind(until)
    .bind(now)
    .execute(pool)
    .await?;
    Ok(Attempt { operation, is_first: true, key_hash: request.key_hash, until })
}

async fn find(pool: &MySqlPool, request: &KeyedRequest) -> Result<Option<KeyRow>, sqlx::Error> {
    sqlx::query_as(
        "SELECT /* idempotency::find */ body_hash, value_hash, operation_id, in_progress_until, status, content_type, \
         location, body, created_at FROM idempotency_keys WHERE key_hash = ?",
    )
    .bind(&request.key_hash[..])
    .fetch_optional(pool)
    .await
}

/// Deletes a row whose response is no longer kept, unless another request has replaced it meanwhile.
async fn delete_expired(pool: &MySqlPool, request: &KeyedRequest, created_at: Timestamp) -> Result<(), sqlx::Error> {
    let deleted = sqlx::query(
        "DELETE /* idempotency::delete_expired */ FROM idempotency_keys WHERE key_hash = ? AND created_at = ?",
    )
    .bind(&request.key_hash[..])
    .bind(created_at)
    .execute(pool)
    .await;
    match deleted {
        // Contention: another request is deleting it.
        Err(error) if !is_contention(&error) => Err(error),
        _ => Ok(()),
    }
}

/// The state of a key that came before; none when another repeat acquired it first.
async fn repeat(
    pool: &MySqlPool,
    request: &KeyedRequest,
    row: KeyRow,
    now: Timestamp,
) -> Result<Option<KeyState>, sqlx::Error> {
    // Before the stored response, which must not reach a request with another body.
    if !request.is_repeat_of(&row) {
        return Ok(Some(KeyState::FingerprintMismatch));
    }
    if let Some(status) = row.status {
        let (content_type, location, body) = (row.content_type, row.location, row.body.unwrap_or_default());
        return Ok(Some(KeyState::Completed(StoredResponse { status, content_type, location, body })));
    }
    if row.in_progress_until.is_some_and(|until| until > now) {
        return Ok(Some(KeyState::InProgress));
    }
    let until = now + ATTEMPT_TIMEOUT;
    // Conditional on the deadline that was read, so that only one of several repeats acquires the key.
    let taken = sqlx::query(
        "UPDATE idempotency_keys /* idempotency::repeat: its attempt was abandoned or released */ \
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

/// Stores the response of an attempt, unless another attempt at the same operation stored its response first.
pub async fn store_response(pool: &MySqlPool, attempt: &Attempt, response: &StoredResponse) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE idempotency_keys /* idempotency::store_response */ \
         SET in_progress_until = NULL, status = ?, content_type = ?, location = ?, body = ? \
         WHERE key_hash = ? AND operation_id = ? AND status IS NULL",
    )
    .bind(response.status)
    .bind(&response.content_type)
    .bind(&response.location)
    .bind(&response.body)
    .bind(&attempt.key_hash[..])
    .bind(attempt.operation)
    .execute(pool)
    .await
    .map(drop)
}

/// Ends an attempt without a response: a repeat may run at once, with the same operation id.
pub async fn release(pool: &MySqlPool, attempt: &Attempt, now: Timestamp) -> Result<(), sqlx::Error> {
    let sql = "UPDATE idempotency_keys /* idempotency::release */ SET in_progress_until = ? \
               WHERE key_hash = ? AND operation_id = ? AND status IS NULL AND in_progress_until = ?";
    change(pool, sqlx::query(sql).bind(now), attempt).await
}

/// Keeps the key of a request that goes on.
pub async fn renew(pool: &MySqlPool, attempt: &mut Attempt, now: Timestamp) -> Result<(), sqlx::Error> {
    let until = now + ATTEMPT_TIMEOUT;
    let sql = "UPDATE idempotency_keys /* idempotency::renew */ SET in_progress_until = ? \
               WHERE key_hash = ? AND operation_id = ? AND status IS NULL AND in_progress_until = ?";
    change(pool, sqlx::query(sql).bind(until), attempt).await?;
    attempt.until = until;
    Ok(())
}

/// Ends an attempt that had no effect: the key counts as new.
pub async fn discard(pool: &MySqlPool, attempt: &Attempt) -> Result<(), sqlx::Error> {
    let sql = "DELETE /* idempotency::discard */ FROM idempotency_keys \
               WHERE key_hash = ? AND operation_id = ? AND status IS NULL AND in_progress_until = ?";
    change(pool, sqlx::query(sql), attempt).await
}

/// Changes the row of an attempt, unless a later attempt has it: then it says so by another end of its time.
async fn change<'q>(
    pool: &MySqlPool,
    query: Query<'q, MySql, MySqlArguments>,
    attempt: &'q Attempt,
) -> Result<(), sqlx::Error> {
    let query = query.bind(&attempt.key_hash[..]).bind(attempt.operation).bind(attempt.until);
    query.execute(pool).await.map(drop)
}

/// Deletes rows that were created before `before`, in batches. Returns their number.
pub async fn purge(pool: &MySqlPool, before: Timestamp) -> Result<u64> {
    let mut purged = 0;
    loop {
        let batch = sqlx::query(
            "DELETE /* idempotency::purge */ FROM idempotency_keys WHERE created_at < ? ORDER BY created_at LIMIT ?",
        )
        .bind(before)
        .bind(PURGE_BATCH_SIZE)
        .execute(pool);
        let deleted = within_limit(PURGE_TIMEOUT, batch).await?.rows_affected();
        purged += deleted;
        if deleted < PURGE_BATCH_SIZE {
            return Ok(purged);
        }
    }
}
