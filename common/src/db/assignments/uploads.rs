//! The table `assignment_uploads`: lists whose users are in `assignment_users` without an effect.
//!
//! A list arrives in parts, each in a transaction of its own. It has an effect when its row leaves this table and its
//! assignment is inserted, in one transaction. A list that never gets there is removed by the worker.

use std::collections::HashMap;

use chrono::TimeDelta;
use sqlx::{MySqlConnection, MySqlPool};
use uuid::Uuid;

use super::super::{Database, retrying, statements::id, with_timeout};
use super::users::{ListUser, push_users};
use crate::{
    clock::Timestamp,
    db::statements::Statements,
    error::{Error, Result},
    identifiers::{AssignmentId, CouponId},
};

/// How long after its last part an upload that is not complete is removed.
pub const UPLOAD_TIMEOUT: TimeDelta = TimeDelta::minutes(15);

/// Begins a list.
pub async fn begin(
    pool: &MySqlPool,
    upload: AssignmentId,
    coupon: CouponId,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    insert_upload(pool, upload, coupon, "ARRIVING", now + UPLOAD_TIMEOUT).await
}

async fn insert_upload(
    executor: impl sqlx::MySqlExecutor<'_>,
    upload: AssignmentId,
    coupon: CouponId,
    state: &str,
    expires_at: Timestamp,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO assignment_uploads /* assignments::insert_upload */ (assignment_id, coupon_id, state, expires_at) \
         VALUES (?, ?, ?, ?)",
    )
    .bind(upload.0)
    .bind(coupon.get())
    .bind(state)
    .bind(expires_at)
    .execute(executor)
    .await
    .map(drop)
}

/// Adds the next users of a list; the places of those that are in the list already, which are left out.
pub async fn add(database: &Database, upload: AssignmentId, users: &[ListUser], now: Timestamp) -> Result<Vec<usize>> {
    let added = retrying("add_assignment_users", || with_timeout(add_part(database, upload, users, now)));
    // It was silent for too long.
    added.await?.ok_or(Error::RequestTimeout(UPLOAD_TIMEOUT.num_seconds().unsigned_abs()))
}

async fn add_part(
    database: &Database,
    upload: AssignmentId,
    users: &[ListUser],
    now: Timestamp,
) -> Result<Option<Vec<usize>>, sqlx::Error> {
    let mut transaction = database.begin().await?;
    // Excludes the worker that would remove it.
    let renewed = sqlx::query(
        "UPDATE assignment_uploads /* assignments::add_part */ SET expires_at = ? \
         WHERE assignment_id = ? AND state = 'ARRIVING'",
    )
    .bind(now + UPLOAD_TIMEOUT)
    .bind(upload.0)
    .execute(&mut *transaction)
    .await?;
    if renewed.rows_affected() == 0 {
        return Ok(None);
    }
    let mut statements = Statements::new(database.statement_bytes());
    push_users(&mut statements, upload, users);
    let inserted = statements.send(&mut transaction).await?;
    let repeated = if inserted == users.len() as u64 {
        Vec::new()
    } else {
        find_repeated(&mut transaction, upload, users).await?
    };
    transaction.commit().await?;
    Ok(Some(repeated))
}

/// The places of users who have a row with another claim.
async fn find_repeated(
    connection: &mut MySqlConnection,
    upload: AssignmentId,
    users: &[ListUser],
) -> Result<Vec<usize>, sqlx::Error> {
    let listed: Vec<String> = users.iter().map(|listed| listed.user.get().to_string()).collect();
    let sql = format!(
        "SELECT /* assignments::find_repeated */ user_id, claim_id FROM assignment_users \
         WHERE assignment_id = {} AND user_id IN ({})",
        id(upload.0),
        listed.join(",")
    );
    let rows: Vec<(u64, Uuid)> = sqlx::query_as(sqlx::AssertSqlSafe(sql)).fetch_all(connection).await?;
    let claims: HashMap<u64, Uuid> = rows.into_iter().collect();
    let is_repeated = |listed: &ListUser| claims.get(&listed.user.get()) != Some(&listed.claim.0);
    Ok(users.iter().enumerate().filter(|(_, listed)| is_repeated(listed)).map(|(place, _)| place).collect())
}

/// Takes a complete list out of the table, in the transaction that gives it its effect. False when it was removed.
pub async fn complete(connection: &mut MySqlConnection, upload: AssignmentId) -> Result<bool, sqlx::Error> {
    let sql =
        "DELETE FROM assignment_uploads /* assignments::complete */ WHERE assignment_id = ? AND state = 'ARRIVING'";
    let deleted = sqlx::query(sql).bind(upload.0).execute(connection).await?;
    Ok(deleted.rows_affected() == 1)
}

/// Lets the worker remove a list that was refused.
pub async fn abandon(pool: &MySqlPool, upload: AssignmentId, now: Timestamp) -> Result<(), sqlx::Error> {
    let sql = "UPDATE assignment_uploads /* assignments::abandon */ SET state = 'REMOVING', expires_at = ? WHERE assignment_id = ?";
    sqlx::query(sql).bind(now).bind(upload.0).execute(pool).await.map(drop)
}

/// Lets the worker remove the list of an assignment that never has an effect, in the transaction that decides so.
pub async fn discard(
    connection: &mut MySqlConnection,
    assignment: AssignmentId,
    coupon: CouponId,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    insert_upload(connection, assignment, coupon, "REMOVING", now).await
}

/// At most `limit` lists that are to be removed. None of them can be completed any more.
pub async fn list_expired(pool: &MySqlPool, now: Timestamp, limit: u32) -> Result<Vec<AssignmentId>, sqlx::Error> {
    // Marked before they are listed: a part or an end that comes now finds no list that is arriving.
    let mark = "UPDATE assignment_uploads /* assignments::list_expired */ SET state = 'REMOVING' \
                WHERE expires_at <= ? AND state = 'ARRIVING' LIMIT ?";
    sqlx::query(mark).bind(now).bind(limit).execute(pool).await?;
    let sql = "SELECT /* assignments::list_expired */ assignment_id FROM assignment_uploads \
               WHERE expires_at <= ? AND state = 'REMOVING' ORDER BY expires_at LIMIT ?";
    let found: Vec<Uuid> = sqlx::query_scalar(sql).bind(now).bind(limit).fetch_all(pool).await?;
    Ok(found.into_iter().map(AssignmentId).collect())
}

/// Deletes at most `limit` users of a list that is to be removed. Returns whether the list is gone.
pub async fn remove(pool: &MySqlPool, upload: AssignmentId, limit: u32) -> Result<bool, sqlx::Error> {
    let sql = "DELETE FROM assignment_users /* assignments::remove */ WHERE assignment_id = ? LIMIT ?";
    let deleted = sqlx::query(sql).bind(upload.0).bind(limit).execute(pool).await?.rows_affected();
    if deleted == u64::from(limit) {
        return Ok(false);
    }
    // Last, so that the next run goes on when this one dies before.
    let sql = "DELETE FROM assignment_uploads /* assignments::remove */ WHERE assignment_id = ? AND state = 'REMOVING'";
    sqlx::query(sql).bind(upload.0).execute(pool).await.map(|_| true)
}
