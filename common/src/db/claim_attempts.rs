//! The table `claim_attempts`: claims that were refused, for support. A row for each user, campaign and reason, so that
//! a user who tries a thousand times has one.

use sqlx::MySqlPool;

use super::{decode::json_rows, retention::delete_older};
use crate::{
    clock::Timestamp,
    identifiers::{CouponId, UserId},
};

/// Refused claims of a user for one reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClaimAttempt {
    pub user: UserId,
    pub coupon: CouponId,
    /// As the API names it.
    pub code: &'static str,
    pub attempts: u32,
    pub first_at: Timestamp,
    pub last_at: Timestamp,
}

/// Adds attempts to those that are stored. The rows should be in the order of user, coupon and code: two processes then
/// lock common ones in the same order.
pub async fn insert_batch(pool: &MySqlPool, attempts: &[ClaimAttempt]) -> Result<(), sqlx::Error> {
    if attempts.is_empty() {
        return Ok(());
    }
    let time = |at: Timestamp| at.format("%Y-%m-%d %H:%M:%S%.3f").to_string();
    let row = |attempt: &ClaimAttempt| {
        let ClaimAttempt { user, coupon, code, attempts, first_at, last_at } = *attempt;
        (user.get(), coupon.get(), code, attempts, time(first_at), time(last_at))
    };
    let rows: Vec<_> = attempts.iter().map(row).collect();
    // LEAST: a count beyond the column's range would be an error, which loses the whole batch.
    sqlx::query(
        "INSERT INTO claim_attempts /* claim_attempts::insert_batch */ (user_id, coupon_id, code, attempts, first_at, last_at) \
         SELECT a.user_id, a.coupon_id, a.code, a.attempts, a.first_at, a.last_at \
         FROM JSON_TABLE(?, '$[*]' COLUMNS(user_id BIGINT UNSIGNED PATH '$[0]', coupon_id BIGINT UNSIGNED PATH '$[1]', \
             code VARCHAR(40) PATH '$[2]', attempts INT UNSIGNED PATH '$[3]', first_at DATETIME(3) PATH '$[4]', \
             last_at DATETIME(3) PATH '$[5]')) AS a \
         ON DUPLICATE KEY UPDATE attempts = LEAST(claim_attempts.attempts + VALUES(attempts), 4000000000), \
             first_at = LEAST(claim_attempts.first_at, VALUES(first_at)), \
             last_at = GREATEST(claim_attempts.last_at, VALUES(last_at))",
    )
    .bind(json_rows(&rows)?)
    .execute(pool)
    .await
    .map(drop)
}

/// Deletes at most `limit` rows whose last attempt was before `before`. Returns their number.
pub async fn purge(pool: &MySqlPool, before: Timestamp, limit: u32) -> Result<u64, sqlx::Error> {
    let sql = "DELETE FROM claim_attempts /* claim_attempts::purge */ WHERE last_at < ? ORDER BY last_at LIMIT ?";
    delete_older(pool, sql, before, limit).await
}
