//! The table `job_runs`: runs of jobs, one row for each job and day.

use std::collections::BTreeMap;

use chrono::NaiveDate;
use sqlx::{MySqlExecutor, MySqlPool};

use crate::clock::Timestamp;

/// In characters, as the column is.
const MAX_DETAIL: usize = 300;

/// Records that a run begins. It replaces an earlier run for the same day, whose `as_of` stays until this one is done.
pub async fn begin(
    executor: impl MySqlExecutor<'_>,
    name: &str,
    day: NaiveDate,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    // VALUES(): MariaDB knows no row alias, and MySQL still accepts the function.
    sqlx::query(
        "INSERT INTO job_runs /* job_runs::begin */ (name, day, status, started_at) VALUES (?, ?, 'RUNNING', ?) \
         ON DUPLICATE KEY UPDATE status = VALUES(status), started_at = VALUES(started_at), ended_at = NULL, detail = NULL",
    )
    .bind(name)
    .bind(day)
    .bind(now)
    .execute(executor)
    .await
    .map(drop)
}

/// Records what a run did, or why it failed.
pub async fn end(
    executor: impl MySqlExecutor<'_>,
    name: &str,
    day: NaiveDate,
    outcome: Result<&str, &str>,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    let (status, detail) = match outcome {
        Ok(detail) => ("DONE", detail),
        Err(detail) => ("FAILED", detail),
    };
    // A longer text would be an error in strict mode, and the run would stay RUNNING.
    let detail: String = detail.chars().take(MAX_DETAIL).collect();
    sqlx::query(
        "UPDATE job_runs /* job_runs::end */ SET as_of = IF(? = 'DONE', started_at, as_of), status = ?, ended_at = ?, \
         detail = ? WHERE name = ? AND day = ?",
    )
    .bind(status)
    .bind(status)
    .bind(now)
    .bind(detail)
    .bind(name)
    .bind(day)
    .execute(executor)
    .await
    .map(drop)
}

/// The days from `first` on with a completed run, each with the start of the last completed one: its result contains
/// everything committed before that.
pub async fn list_done(
    pool: &MySqlPool,
    name: &str,
    first: NaiveDate,
) -> Result<BTreeMap<NaiveDate, Timestamp>, sqlx::Error> {
    let done: Vec<(NaiveDate, Timestamp)> = sqlx::query_as(
        "SELECT /* job_runs::list_done */ day, as_of FROM job_runs WHERE name = ? AND day >= ? AND as_of IS NOT NULL",
    )
    .bind(name)
    .bind(first)
    .fetch_all(pool)
    .await?;
    Ok(done.into_iter().collect())
}
