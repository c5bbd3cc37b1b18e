use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use sqlx::{ConnectOptions as _, Connection as _, MySqlConnection};
use tokio::{task::JoinHandle, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{LEASE_TIME, LeaseKey, RENEWAL_INTERVAL, remove, renew};
use crate::{
    db::{Database, within, within_limit},
    error::{Error, Result},
    retry,
};

/// A renewal may wait for a transaction of the lease that begins at this moment.
const RENEWAL_TIMEOUT: Duration = Duration::from_secs(2);
/// How soon a renewal that failed is repeated.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);

/// The task that renews a lease, on a connection of its own: the pool may be busy.
pub(super) struct Renewer {
    state: Arc<RenewerState>,
    /// Cancelled when the lease is released or dropped.
    releasing: CancellationToken,
    /// Taken when it is awaited.
    task: Option<JoinHandle<Result<bool>>>,
}

#[derive(Default)]
pub(super) struct RenewerState {
    is_lost: AtomicBool,
    in_transaction: AtomicBool,
}

impl RenewerState {
    pub fn is_lost(&self) -> bool {
        self.is_lost.load(Ordering::Relaxed)
    }

    pub fn set_in_transaction(&self, is_open: bool) {
        self.in_transaction.store(is_open, Ordering::Relaxed);
    }
}

impl Renewer {
    /// Renews a lease that was taken just now; none when a worker of an older version holds it.
    pub async fn start(database: &Database, key: LeaseKey) -> Result<Option<Self>> {
        let until = Instant::now() + LEASE_TIME;
        let mut connection = connect(database).await?;
        if !within(take_previous_lock(&mut connection, &key)).await? {
            within(remove(&mut connection, &key)).await?;
            return Ok(None);
        }
        let (state, releasing) = (Arc::new(RenewerState::default()), CancellationToken::new());
        let connection = Some(connection);
        let renewal = Renewal { database: database.clone(), key, state: Arc::clone(&state), connection };
        let task = database.renewals().spawn(renewal.run(until, releasing.clone()));
        Ok(Some(Self { state, releasing, task: Some(task) }))
    }

    pub const fn state(&self) -> &Arc<RenewerState> {
        &self.state
    }

    /// Ends the lease; false when it was lost before.
    pub async fn release(&mut self) -> Result<bool> {
        self.releasing.cancel();
        match self.task.take() {
            Some(task) => task.await.map_err(Error::internal)?,
            None => Ok(false),
        }
    }
}

impl Drop for Renewer {
    fn drop(&mut self) {
        // The task removes the row, so that another process need not wait until it expires.
        self.releasing.cancel();
    }
}

struct Renewal {
    database: Database,
    key: LeaseKey,
    state: Arc<RenewerState>,
    /// None after it broke.
    connection: Option<MySqlConnection>,
}

impl Renewal {
    /// Renews the lease, which is held `until` then, until it is released or lost; then ends it.
    async fn run(mut self, mut until: Instant, releasing: CancellationToken) -> Result<bool> {
        let mut interval = RENEWAL_INTERVAL;
        while retry::sleep(interval, &releasing).await {
            let began = Instant::now();
            interval = match self.renew().await {
                Ok(true) => {
                    until = began + LEASE_TIME;
                    RENEWAL_INTERVAL
                }
                Err(error) if Instant::now() < until => {
                    tracing::debug!(lease = &*self.key.name, cause = error.chain(), "lease not renewed; retrying");
                    RETRY_INTERVAL
                }
                Ok(false) | Err(_) => {
                    self.state.is_lost.store(true, Ordering::Relaxed);
                    tracing::warn!(lease = &*self.key.name, "lease lost");
                    return Ok(false);
                }
            };
        }
        self.end().await
    }

    async fn renew(&mut self) -> Result<bool> {
        let mut connection = self.connection().await?;
        let renewed = if self.state.in_transaction.load(Ordering::Relaxed) {
            // The transaction has renewed it and locks its row, so no other process can take it; this only keeps the connection.
            within_limit(RENEWAL_TIMEOUT, connection.ping()).await.map(|()| true)
        } else {
            within_limit(RENEWAL_TIMEOUT, renew(&mut connection, &self.key)).await
        }?;
        self.connection = Some(connection);
        Ok(renewed)
    }

    /// The connection. It is put back only when what it is used for succeeds.
    async fn connection(&mut self) -> Result<MySqlConnection> {
        if let Some(connection) = self.connection.take() {
            return Ok(connection);
        }
        let mut connection = connect(&self.database).await?;
        // When the server has not noticed yet that the other connection broke, that one still has it.
        within(take_previous_lock(&mut connection, &self.key)).await?;
        Ok(connection)
    }

    async fn end(mut self) -> Result<bool> {
        match self.try_end().await {
            // The connection was broken, which is noticed when it is used.
            Err(_) => self.try_end().await,
            ended => ended,
        }
    }

    async fn try_end(&mut self) -> Result<bool> {
        let mut connection = self.connection().await?;
        // Said explicitly, as the server notices only later that a connection was closed. Before the row, so that the
        // next holder of the row gets the lock as well. Where there are no locks, this fails.
        let _unlocked = within(sqlx::query("DO RELEASE_ALL_LOCKS()").execute(&mut connection)).await;
        let removed = within_limit(RENEWAL_TIMEOUT, remove(&mut connection, &self.key)).await?;
        within(connection.close()).await?;
        Ok(removed)
    }
}

/// A connection that ends itself when the process is frozen.
async fn connect(database: &Database) -> Result<MySqlConnection> {
    let mut connection = Box::pin(within(database.options().connect())).await?;
    let silence = format!("SET SESSION wait_timeout = {}", LEASE_TIME.as_secs());
    within(sqlx::raw_sql(sqlx::AssertSqlSafe(silence)).execute(&mut connection)).await?;
    Ok(connection)
}

/// The lock that older versions have in place of the row: while versions are mixed, a lease has one holder among all of
/// them. To be removed with the next version. False when another session has it.
async fn take_previous_lock(connection: &mut MySqlConnection, key: &LeaseKey) -> Result<bool, sqlx::Error> {
    let lock = sqlx::query_scalar("SELECT GET_LOCK(SHA2(CONCAT(DATABASE(), '.', ?), 224), 0)").bind(&*key.name);
    let locked: Result<Option<i64>, sqlx::Error> = lock.fetch_one(connection).await;
    match locked {
        Ok(locked) => Ok(locked == Some(1)),
        // A server that has no such locks, as a Galera cluster: no older version ever ran there.
        Err(sqlx::Error::Database(_)) => Ok(true),
        Err(error) => Err(error),
    }
}
