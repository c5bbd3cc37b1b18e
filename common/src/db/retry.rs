use std::time::Duration;

use tokio::time::timeout;

use super::errors::{database_error, is_contention, is_lock_wait_timeout};
use crate::{
    error::{Dependency, Error, Result},
    retry::{Backoff, RetryPolicy},
};

/// A short query that takes longer counts as an unreachable server.
pub const QUERY_TIMEOUT: Duration = Duration::from_millis(800);
/// A transaction that takes longer has lost its server: a lock is waited for up to 5 s, and a batch of the worker is
/// well below a second.
const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(10);
// All delays together are at most 620 ms, so contention ends as such and not as a time-out.
const MAX_ATTEMPTS: u32 = 6;
/// Half of each delay is random, so that two transactions that collided do not collide again.
const CONTENTION: RetryPolicy = RetryPolicy::exponential(Duration::from_millis(20), Duration::from_millis(320));

/// Runs a query that should be short.
pub async fn within<T>(query: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T> {
    within_limit(QUERY_TIMEOUT, query).await
}

/// The row that such a query finds; `missing` when there is none.
pub async fn found<T>(query: impl Future<Output = Result<Option<T>, sqlx::Error>>, missing: Error) -> Result<T> {
    within(query).await?.ok_or(missing)
}

/// Runs a query that may take up to `limit`.
pub async fn within_limit<T>(limit: Duration, query: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T> {
    match timeout(limit, query).await {
        Ok(result) => result.map_err(database_error),
        Err(elapsed) => Err(Error::unavailable(Dependency::MySql, elapsed)),
    }
}

/// Ends a transaction of a few rows that does not end by itself. Run it inside [`retrying`].
// Not async: a future around the future would double its size.
pub fn with_timeout<T>(
    transaction: impl Future<Output = Result<T, sqlx::Error>>,
) -> impl Future<Output = Result<T, sqlx::Error>> {
    with_limit(TRANSACTION_TIMEOUT, transaction)
}

/// The same with another limit.
pub(super) async fn with_limit<T>(
    limit: Duration,
    transaction: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, sqlx::Error> {
    timeout(limit, transaction).await.unwrap_or_else(|elapsed| Err(sqlx::Error::Io(elapsed.into())))
}

/// Runs a whole transaction, at most six times, as long as the server breaks it to resolve a deadlock or a lock wait.
/// `name` names it in the metrics.
pub async fn retrying<T, F>(name: &'static str, transaction: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Result<T, sqlx::Error>>,
{
    retry_while(name, is_contention, transaction).await
}

/// Like [`retrying`], for a batch: a lock wait timeout ends it, as the rest of the batch must not wait for a locked
/// row. Begin it with [`super::Database::begin_batch`].
pub async fn retrying_batch<T, F>(name: &'static str, transaction: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Result<T, sqlx::Error>>,
{
    retry_while(name, |error| is_contention(error) && !is_lock_wait_timeout(error), transaction).await
}

async fn retry_while<T, F>(
    name: &'static str,
    is_retried: impl Fn(&sqlx::Error) -> bool,
    mut transaction: impl FnMut() -> F,
) -> Result<T>
where
    F: Future<Output = Result<T, sqlx::Error>>,
{
    let mut backoff = Backoff::new(CONTENTION);
    for attempt in 1.. {
        match transaction().await {
            // Only what the server has certainly rolled back. After a broken connection it is unknown whether the
            // transaction was committed, and the caller has to be idempotent.
            Err(error) if attempt < MAX_ATTEMPTS && is_retried(&error) => {
                metrics::counter!("dibs_transaction_retries_total", "transaction" => name).increment(1);
                tracing::debug!(transaction = name, attempt, %error, "transaction is retried");
                backoff.pause().await;
            }
            result => return result.map_err(database_error),
        }
    }
    unreachable!("the last attempt returns")
}
