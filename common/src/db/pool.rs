use std::{
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

use super::{QUERY_TIMEOUT, database_error, within};
use crate::error::{Error, Result};

/// A connection that was idle for longer is pinged before it is used.
const PING_AFTER: Duration = Duration::from_millis(500);
/// A connection that was idle for longer is closed.
const IDLE_TIMEOUT: Duration = Duration::from_mins(1);
static MIGRATIONS: Migrator = sqlx::migrate!("../migrations");

/// Connections to the database.
#[derive(Clone)]
pub struct Database {
    pool: MySqlPool,
    is_encrypted: Arc<AtomicBool>,
}

impl Database {
    /// A pool of at most `connections` to the database at `url`. It connects when a query needs it.
    pub fn new(url: &SecretString, connections: u32) -> Result<Self> {
        let options: MySqlConnectOptions = url.expose_secret().parse().map_err(database_error)?;
        let is_encrypted = Arc::new(AtomicBool::new(true));
        let seen = Arc::clone(&is_encrypted);
        let pool = MySqlPoolOptions::new()
            .max_connections(connections)
            .acquire_timeout(QUERY_TIMEOUT)
            .test_before_acquire(false)
            .idle_timeout(IDLE_TIMEOUT)
            .before_acquire(|connection, idle| {
                Box::pin(async move {
                    // An idle connection may have lost its server, or been ended by it, without notice. An error
                    // discards it, and the pool tries the next.
                    if idle.idle_for > PING_AFTER {
                        connection.ping().await?;
                    }
                    Ok(true)
                })
            })
            .after_connect(move |connection, _| {
                let seen = Arc::clone(&seen);
                Box::pin(async move {
                    seen.store(prepare_session(connection).await?, Ordering::Relaxed);
                    Ok(())
                })
            })
            .after_release(|connection, _| {
                Box::pin(async move {
                    // A future that is dropped while BEGIN is on the wire leaves a transaction open: it would hold
                    // locks, and hide writes from other connections.
                    connection.execute("ROLLBACK").await?;
                    Ok(true)
                })
            })
            .connect_lazy_with(options);
        Ok(Self { pool, is_encrypted })
    }

    /// The longest text of statements to send at once. The client does not set `TCP_NODELAY`: over TLS a second record
    /// of 16 KiB would wait up to 40 ms for the acknowledgement of the first.
    pub fn statement_bytes(&self) -> usize {
        if self.is_encrypted.load(Ordering::Relaxed) { 16_000 } else { 500_000 }
    }

    /// The pool itself, for single statements.
    pub fn pool(&self) -> &MySqlPool {
        &self.pool
    }

    /// Begins a transaction. Run it inside [`super::retrying`].
    #[expect(clippy::disallowed_methods, reason = "the one home of bare transactions")]
    pub async fn begin(&self) -> Result<Transaction<'static, MySql>, sqlx::Error> {
        self.pool.begin().await
    }

    /// Returns when the database does.
    pub async fn ping(&self) -> Result<()> {
        within(sqlx::query("DO 1").execute(&self.pool)).await.map(drop)
    }

    /// Brings the tables up to date. Several processes may call it at once: the first migrates, the others wait.
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
        // Released before the result is looked at: the connection goes back to the pool either way.
        sqlx::query("DO RELEASE_LOCK(CONCAT(DATABASE(), '.migrate'))")
            .execute(&mut *connection)
            .await
            .map_err(database_error)?;
        migrated.map_err(Error::internal)
    }

    /// Closes all connections.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

/// Sets what Dibs relies on in every session; whether the connection is encrypted.
async fn prepare_session(connection: &mut MySqlConnection) -> Result<bool, sqlx::Error> {
    let cipher: Option<(String, String)> =
        sqlx::query_as("SHOW SESSION STATUS LIKE 'Ssl_cipher'").fetch_optional(&mut *connection).await?;
    // Dibs locks rows by their keys. The gap locks of REPEATABLE READ would only add deadlocks.
    connection.execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED").await?;
    connection.execute("SET SESSION innodb_lock_wait_timeout = 5").await?;
    Ok(cipher.is_none_or(|(_, cipher)| !cipher.is_empty()))
}
