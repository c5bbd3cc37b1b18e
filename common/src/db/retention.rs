use sqlx::MySqlPool;

use crate::clock::Timestamp;

/// Deletes at most `limit` rows by a statement whose parameters are a moment and the limit. Returns their number.
pub(super) async fn delete_older(
    pool: &MySqlPool,
    sql: &'static str,
    before: Timestamp,
    limit: u32,
) -> Result<u64, sqlx::Error> {
    Ok(sqlx::query(sql).bind(before).bind(limit).execute(pool).await?.rows_affected())
}
