use std::{
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use secrecy::{ExposeSecret, SecretString};
use sqlx::{
    Connection as _, Executor, MySql, MySqlConnection, MySqlPool, Transaction,
    mysql::{MySqlConnectOptions, MySqlPoolOptions},
};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use super::{QUERY_TIMEOUT, database_error};
use crate::error::Result;

/// A connection that was idle for longer is pinged before it is used.
const PING_AFTER: Duration = Duration::from_millis(500);
/// A connection that was idle for longer is closed: before the server does, as [`SESSION_TIMEOUT`] says.
const IDLE_TIMEOUT: Duration = Duration::from_secs(8);
/// The server ends a session that is silent for longer, rolls back and releases its locks. So a client that is frozen,
/// or whose machine vanished, holds up others for no longer than this.
pub(super) const SESSION_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection may take to come back to the pool. It keeps its place in the pool meanwhile.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(1);
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

#[derive(Clone)]
pub struct Database {
    shared: Arc<Shared>,
}

struct Shared {
    options: MySqlConnectOptions,
    connections: u32,
    is_encrypted: Arc<AtomicBool>,
    /// Counts connections that came back to the pool in order.
    released: Arc<AtomicU64>,
    pool: RwLock<MySqlPool>,
    /// Tasks that renew leases, and remove their rows in the end.
    renewals: TaskTracker,
}

impl Database {
    /// A pool of at most `connections` to the database at `url`. It connects when a query needs it.
    pub fn new(url: &SecretString, connections: u32) -> Result<Self> {
        let options: MySqlConnectOptions = url.expose_secret().parse().map_err(database_error)?;
        let (is_encrypted, released) = (Arc::new(AtomicBool::new(true)), Arc::default());
        let pool = RwLock::new(open(&options, connections, &is_encrypted, &released));
        Ok(Self {
            shared: Arc::new(Shared {
                options,
                connections,
                is_encrypted,
                released,
                pool,
                renewals: TaskTracker::new(),
            }),
        })
    }

    /// The longest text of statements to send at once. The client does not set `TCP_NODELAY`: over TLS a second record
    /// of 16 KiB would wait up to 40 ms for the acknowledgement of the first.
    pub fn statement_bytes(&self) -> usize {
        // As the last connection was. All connections have the same options, so they agree.
        if self.shared.is_encrypted.load(Ordering::Relaxed) { 16_000 } else { 500_000 }
    }

    /// The pool itself, for single statements. Ask for it each time: [`Self::watch`] may replace it.
    pub fn pool(&self) -> MySqlPool {
        self.shared.pool.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Begins a transaction. Run it inside [`super::retrying`].
    #[expect(clippy::disallowed_methods, reason = "the one home of bare transactions")]
    pub async fn begin(&self) -> Result<Transaction<'static, MySql>, sqlx::Error> {
        self.pool().begin().await
    }

    /// Begins the transaction of a batch, which waits for a lock for a second only. In one round trip; the session's
    /// own limit is restored when the connection is released. Run it inside [`super::retrying_batch`].
    pub async fn begin_batch(&self) -> Result<Transaction<'static, MySql>, sqlx::Error> {
        self.pool().begin_with("SET SESSION innodb_lock_wait_timeout = 1; BEGIN").await
    }

    /// The most that the pool opens.
    pub fn connections(&self) -> u32 {
        self.shared.connections
    }

    pub(super) fn options(&self) -> &MySqlConnectOptions {
        &self.shared.options
    }

    /// How many connections have come back to the pool in order.
    pub(super) fn released(&self) -> u64 {
        self.shared.released.load(Ordering::Relaxed)
    }

    /// Closes the pool, with all its connections, for a new one.
    pub(super) fn replace_pool(&self) {
        let Shared { options, connections, is_encrypted, released, pool, .. } = &*self.shared;
        let new = open(options, *connections, is_encrypted, released);
        let old = std::mem::replace(&mut *pool.write().unwrap_or_else(PoisonError::into_inner), new);
        // Callers that wait for one of its connections get an error at once; those in use end with their time-outs.
        tokio::spawn(async move { old.close().await });
    }

    pub(super) fn renewals(&self) -> &TaskTracker {
        &self.shared.renewals
    }

    pub async fn close(&self) {
        // A lease that was dropped and not released would be held until it expires.
        self.shared.renewals.close();
        if timeout(CLOSE_TIMEOUT, self.shared.renewals.wait()).await.is_err() {
            tracing::debug!("leases were left to expire");
        }
        // A connection that leads nowhere must not hold up the end of the process.
        if timeout(CLOSE_TIMEOUT, self.pool().close()).await.is_err() {
            tracing::debug!("database connections were not closed cleanly");
        }
    }
}

fn open(
    options: &MySqlConnectOptions,
    connections: u32,
    is_encrypted: &Arc<AtomicBool>,
    released: &Arc<AtomicU64>,
) -> MySqlPool {
    let (is_encrypted, released) = (Arc::clone(is_encrypted), Arc::clone(released));
    MySqlPoolOptions::new()
        .max_connections(connections)
        // A caller that gets no connection learns it as soon as one whose query hangs.
        .acquire_timeout(QUERY_TIMEOUT)
        // Not before each use: that would double the round trips of a busy pool. Only idle connections are pinged,
        // below.
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
            let is_encrypted = Arc::clone(&is_encrypted);
            Box::pin(async move {
                is_encrypted.store(prepare_session(connection).await?, Ordering::Relaxed);
                Ok(())
            })
        })
        .after_release(move |connection, _| {
            let released = Arc::clone(&released);
            Box::pin(async move {
                // A future that is dropped while BEGIN is on the wire leaves a transaction open: it would hold
                // locks, and hide writes from other connections. An error discards the connection.
                let ending = async {
                    // A future that is dropped while a statement is prepared leaves a reply on the wire. A statement
                    // may take it for its own, and the client library panic; a ping fails.
                    connection.ping().await?;
                    connection.execute("ROLLBACK; SET SESSION innodb_lock_wait_timeout = 5").await
                };
                match timeout(RELEASE_TIMEOUT, ending).await {
                    Ok(ended) => ended?,
                    Err(elapsed) => return Err(sqlx::Error::Io(elapsed.into())),
                };
                released.fetch_add(1, Ordering::Relaxed);
                Ok(true)
            })
        })
        // Lazy: a process starts while the database is unreachable, and reports itself as not ready.
        .connect_lazy_with(options.clone())
}

/// Sets what Dibs relies on in every session; whether the connection is encrypted.
async fn prepare_session(connection: &mut MySqlConnection) -> Result<bool, sqlx::Error> {
    let cipher: Option<(String, String)> =
        sqlx::query_as("SHOW SESSION STATUS LIKE 'Ssl_cipher'").fetch_optional(&mut *connection).await?;
    // Dibs locks rows by their keys. The gap locks of REPEATABLE READ would only add deadlocks.
    connection.execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED").await?;
    // The server's default lock wait of 50 s would outlast every time-out of Dibs, which then could not distinguish a
    // lock that is held from a server that is gone.
    let timeout = SESSION_TIMEOUT.as_secs();
    // A statement that a frozen client has sent half of counts as silence, too.
    let limits =
        format!("SET SESSION innodb_lock_wait_timeout = 5, wait_timeout = {timeout}, net_read_timeout = {timeout}");
    sqlx::raw_sql(sqlx::AssertSqlSafe(limits)).execute(&mut *connection).await?;
    Ok(cipher.is_none_or(|(_, cipher)| !cipher.is_empty()))
}
