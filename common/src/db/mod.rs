//! The way to `MySQL` and `MariaDB`: the pool, migrations, and one module for each group of tables.

pub mod assignments;
pub mod best_sellers;
pub mod campaigns;
pub mod charges;
pub mod dead_letters;
pub mod idempotency;
pub mod issuances;
pub mod job_runs;
pub mod orders;
pub mod outbox;
pub mod owned_coupons;
pub mod parked;
pub mod points;
pub mod products;
pub mod rejected_requests;

pub mod sales;
pub mod statements;

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use secrecy::{ExposeSecret, SecretString};
use sqlx::{
    Connection as _, Executor, MySql, MySqlConnection, MySqlPool, Transaction,
    migrate::Migrator,
    mysql::{MySqlConnectOptions, MySqlPoolOptions},
};
use tokio::time::timeout;

use crate::error::{Dependency, Error, Result};

/// How long a short query may take before `MySQL` counts as gone.
pub const QUERY_TIMEOUT: Duration = Duration::from_millis(800);
/// How long an idle connection is used without asking whether it still works, and how long it is kept.
const TRUSTED_FOR: Duration = Duration::from_millis(500);
const IDLE_FOR: Duration = Duration::from_mins(1);
const ATTEMPTS: u32 = 6;
/// How long the holder of a lock may say nothing.
const SILENT_FOR: Duration = Duration::from_mins(1);
static MIGRATIONS: Migrator = sqlx::migrate!("../migrations");

/// Connections to the database.
#[derive(Clone)]
pub struct Database {
    pool: MySqlPool,
    encrypted: Arc<AtomicBool>,
}

/// A lock of the database, held by a connection of its own.
pub struct Lease {
    connection: MySqlConnection,
    in_transaction: bool,
}

impl Lease {
    /// The connection that holds it. What succeeds on it was done while the lock was held.
    pub fn connection(&mut self) -> &mut MySqlConnection {
        &mut self.connection
    }

    /// Begins a transaction on that connection, unless there is one. It ends with [`Self::commit`], or with the lock
    /// and without effect.
    pub async fn begin(&mut self) -> Result<()> {
        if !self.in_transaction {
            within(self.connection.execute("START TRANSACTION")).await?;
            self.in_transaction = true;
        }
        Ok(())
    }

    /// Commits the transaction, if there is one.
    pub async fn commit(&mut self) -> Result<()> {
        if self.in_transaction {
            within(self.connection.execute("COMMIT")).await?;
            self.in_transaction = false;
        }
        Ok(())
    }

    /// Keeps it though nothing is said on its connection for so long.
    pub async fn hold_for(&mut self, silent: Duration) -> Result<()> {
        let sql = format!("SET SESSION wait_timeout = {}", silent.as_secs());
        within(sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut self.connection)).await.map(drop)
    }

    /// Lets others have it.
    pub async fn release(mut self) -> Result<()> {
        // The server notices only later that a connection was closed.
        within(self.connection.execute("ROLLBACK")).await?;
        within(sqlx::query("DO RELEASE_ALL_LOCKS()").execute(&mut self.connection)).await?;
        within(self.connection.close()).await
    }
}

/// The pause after attempt number `attempt`, 10 to 320 ms, spread so that two that collided do not meet again.
fn pause_after(attempt: u32) -> Duration {
    let base = 5 << attempt.min(6);
    Duration::from_millis(base + u64::from(crate::identifiers::random_below(u16::try_from(base).unwrap_or(u16::MAX))))
}

impl Database {
    /// A pool of at most `connections` to the database at `url`; they are made when needed.
    pub fn new(url: &SecretString, connections: u32) -> Result<Self> {
        let options: MySqlConnectOptions = url.expose_secret().parse().map_err(database_error)?;
        let encrypted = Arc::new(AtomicBool::new(true));
        let seen = Arc::clone(&encrypted);
        let pool = MySqlPoolOptions::new()
            .max_connections(connections)
            .acquire_timeout(QUERY_TIMEOUT)
            .test_before_acquire(false)
            .idle_timeout(IDLE_FOR)
            .before_acquire(|connection, idle| {
                Box::pin(async move {
                    // One that has been idle may have lost its server, or been ended by it, without knowing. An error
                    // discards it, and the next is tried.
                    if idle.idle_for > TRUSTED_FOR {
                        connection.ping().await?;
                    }
                    Ok(true)
                })
            })
            .after_connect(move |connection, _| {
                let seen = Arc::clone(&seen);
                Box::pin(async move {
                    let cipher: Option<(String, String)> = sqlx::query_as("SHOW SESSION STATUS LIKE 'Ssl_cipher'")
                        .fetch_optional(&mut *connection)
                        .await?;
                    seen.store(cipher.is_none_or(|(_, cipher)| !cipher.is_empty()), Ordering::Relaxed);
                    // Rows are locked by name, so gap locks would only add deadlocks.
                    connection.execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED").await?;
                    connection.execute("SET SESSION innodb_lock_wait_timeout = 5").await?;
                    Ok(())
                })
            })
            .after_release(|connection, _| {
                Box::pin(async move {
                    // A future dropped while BEGIN was on the wire leaves a transaction open.
                    connection.execute("ROLLBACK").await?;
                    Ok(true)
                })
            })
            .connect_lazy_with(options);
        Ok(Self { pool, encrypted })
    }

    /// How long a statement may be to be sent at once. The client does not set `TCP_NODELAY`: a second TLS record,
    /// of 16 KiB each, would wait up to 40 ms for the receipt of the first.
    pub fn statement_bytes(&self) -> usize {
        if self.encrypted.load(Ordering::Relaxed) { 16_000 } else { 500_000 }
    }

    /// The pool itself, for single statements.
    pub fn pool(&self) -> &MySqlPool {
        &self.pool
    }

    /// Begins a transaction. Run it inside [`retrying`].
    #[expect(clippy::disallowed_methods, reason = "the one home of bare transactions")]
    pub async fn begin(&self) -> Result<Transaction<'static, MySql>, sqlx::Error> {
        self.pool.begin().await
    }

    /// Takes a lock of that name, which nobody else can take until it is released, or its holder dies; none when
    /// somebody has it. A holder that says nothing for a minute counts as dead, unless [`Lease::hold_for`] says otherwise:
    /// a server hears nothing of a machine that vanished.
    pub async fn try_lease(&self, name: &str) -> Result<Option<Lease>> {
        let mut connection = self.pool.acquire().await.map_err(database_error)?;
        let free = sqlx::query_scalar("SELECT IS_FREE_LOCK(SHA2(CONCAT(DATABASE(), '.', ?), 224))").bind(name);
        let free: Option<i64> = within(free.fetch_one(&mut *connection)).await?;
        if free != Some(1) {
            return Ok(None);
        }
        // Out of the pool: a connection that went back to it would take the lock along.
        let mut connection = connection.detach();
        let locked = sqlx::query_scalar("SELECT GET_LOCK(SHA2(CONCAT(DATABASE(), '.', ?), 224), 0)").bind(name);
        let locked: Option<i64> = within(locked.fetch_one(&mut connection)).await?;
        if locked != Some(1) {
            return Ok(None);
        }
        let mut lock = Lease { connection, in_transaction: false };
        lock.hold_for(SILENT_FOR).await?;
        Ok(Some(lock))
    }

    /// Returns when the database does.
    pub async fn ping(&self) -> Result<()> {
        within(sqlx::query("DO 1").execute(&self.pool)).await.map(drop)
    }

    /// Brings the tables up to date. Several processes may do so at once: the first works, the others wait.
    pub async fn migrate(&self) -> Result<()> {
        let mut connection = self.pool.acquire().await.map_err(database_error)?;
        // sqlx's own lock does nothing on MariaDB.
        let locked: Option<i64> = sqlx::query_scalar("SELECT GET_LOCK(CONCAT(DATABASE(), '.migrate'), 60)")
            .fetch_one(&mut *connection)
            .await
            .map_err(database_error)?;
        if locked != Some(1) {
            return Err(Error::internal("another process has been migrating for a minute; try again when it is done"));
        }
        let migrated = MIGRATIONS.run(&mut *connection).await;
        sqlx::query("DO RELEASE_LOCK(CONCAT(DATABASE(), '.migrate'))")
            .execute(&mut *connection)
            .await
            .map_err(database_error)?;
        migrated.map_err(Error::internal)
    }

    /// Ends all connections.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

/// Runs a query that should be quick; one that is not counts as the database being gone.
pub async fn within<T>(query: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T> {
    within_limit(QUERY_TIMEOUT, query).await
}

/// Runs a query that may take up to `limit`.
pub async fn within_limit<T>(limit: Duration, query: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T> {
    match timeout(limit, query).await {
        Ok(answer) => answer.map_err(database_error),
        Err(elapsed) => Err(Error::unavailable(Dependency::MySql, elapsed)),
    }
}

/// A transaction that takes longer has lost its server: locks are waited for up to 5 s, and a batch of the worker is
/// well below a second.
const LONGEST_TRANSACTION: Duration = Duration::from_secs(10);

/// Ends a transaction of a few rows that does not end by itself. Run it inside [`retrying`].
pub async fn in_time<T>(transaction: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, sqlx::Error> {
    timeout(LONGEST_TRANSACTION, transaction).await.unwrap_or_else(|elapsed| Err(sqlx::Error::Io(elapsed.into())))
}

/// Runs a whole transaction, again when the database broke it to resolve a deadlock or a lock wait; at most six
/// times. `name` names it in the metrics.
pub async fn retrying<T, F>(name: &'static str, mut transaction: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Result<T, sqlx::Error>>,
{
    for attempt in 1.. {
        match transaction().await {
            Err(error) if attempt < ATTEMPTS && is_contention(&error) => {
                metrics::counter!("dibs_transaction_retries_total", "transaction" => name).increment(1);
                tracing::debug!(transaction = name, attempt, %error, "transaction begins again");
                tokio::time::sleep(pause_after(attempt)).await;
            }
            ended => return ended.map_err(database_error),
        }
    }
    unreachable!("the last attempt returns")
}

fn error_number(error: &sqlx::Error) -> Option<u16> {
    let database = error.as_database_error()?;
    Some(database.try_downcast_ref::<sqlx::mysql::MySqlDatabaseError>()?.number())
}

/// Deadlock (1213) or lock wait (1205).
fn is_contention(error: &sqlx::Error) -> bool {
    matches!(error_number(error), Some(1205 | 1213))
}

/// A row with that key is there already (1062).
pub fn is_duplicate(error: &sqlx::Error) -> bool {
    error_number(error) == Some(1062)
}

/// What the database's client said, as an error of Dibs. Data that the tables do not take is a defect of whoever
/// sent it; all else (no connection, no rights, no table yet, no disk, contention) is the server's, and may pass.
pub fn database_error(error: sqlx::Error) -> Error {
    let defect = match &error {
        sqlx::Error::Database(database) => {
            let of_data = database.code().is_some_and(|state| state.starts_with("22") || state.starts_with("23"));
            // Wrong value, no default, invalid JSON, CHECK on MySQL and on MariaDB: without a class of their own.
            of_data || matches!(error_number(&error), Some(1364 | 1366 | 3140 | 3819 | 4025))
        }
        sqlx::Error::Decode(_)
        | sqlx::Error::Encode(_)
        | sqlx::Error::ColumnDecode { .. }
        | sqlx::Error::ColumnNotFound(_)
        | sqlx::Error::RowNotFound
        | sqlx::Error::TypeNotFound { .. } => true,
        _ => false,
    };
    if defect { Error::internal(error) } else { Error::unavailable(Dependency::MySql, error) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_stay_below_a_second() {
        assert!(pause_after(1) >= Duration::from_millis(10));
        assert!(pause_after(40) < Duration::from_millis(640));
    }
}
