use std::time::Duration;

use sqlx::{Connection as _, Executor as _, MySqlConnection};
use tokio_util::sync::CancellationToken;

use super::{Database, database_error, within};
use crate::{error::Result, retry};

/// A holder whose connection is silent for so long loses the lease.
const SILENCE_TIMEOUT: Duration = Duration::from_mins(1);

/// A named lock of the server (`GET_LOCK`), held by a connection of its own.
pub struct Lease {
    connection: MySqlConnection,
    in_transaction: bool,
}

impl Database {
    /// Takes the lease of that name until it is released or its holder dies; none when another holds it.
    ///
    /// A holder that is silent for a minute counts as dead, unless [`Lease::hold_for`] says otherwise: the server
    /// does not notice that a machine vanished.
    pub async fn try_lease(&self, name: &str) -> Result<Option<Lease>> {
        let mut connection = self.pool().acquire().await.map_err(database_error)?;
        // Standbys ask often. Asking on a pooled connection costs no connection of its own while another holds the
        // lease. Names are hashed because the server takes at most 64 characters, and shares them among its databases.
        let free = sqlx::query_scalar("SELECT IS_FREE_LOCK(SHA2(CONCAT(DATABASE(), '.', ?), 224))").bind(name);
        let free: Option<i64> = within(free.fetch_one(&mut *connection)).await?;
        if free != Some(1) {
            return Ok(None);
        }
        // Out of the pool: a connection that returned to it would keep the lock.
        let mut connection = connection.detach();
        // Without a wait: when another process was faster, the caller asks again later, and no connection is held up.
        let locked = sqlx::query_scalar("SELECT GET_LOCK(SHA2(CONCAT(DATABASE(), '.', ?), 224), 0)").bind(name);
        let locked: Option<i64> = within(locked.fetch_one(&mut connection)).await?;
        if locked != Some(1) {
            return Ok(None);
        }
        // The pool gave the session a shorter time-out, at which a holder that waits for its receiver would lose the
        // lease.
        let mut lease = Lease { connection, in_transaction: false };
        lease.hold_for(SILENCE_TIMEOUT).await?;
        Ok(Some(lease))
    }
}

impl Lease {
    /// The connection that holds the lease. A statement that succeeds on it was executed under the lease.
    pub fn connection(&mut self) -> &mut MySqlConnection {
        &mut self.connection
    }

    /// Begins a transaction on that connection, unless one is open. [`Self::commit`] ends it; when the lease ends
    /// first, the server rolls it back.
    pub async fn begin(&mut self) -> Result<()> {
        if !self.in_transaction {
            within(self.connection.execute("START TRANSACTION")).await?;
            self.in_transaction = true;
        }
        Ok(())
    }

    /// Commits the transaction, if one is open.
    pub async fn commit(&mut self) -> Result<()> {
        if self.in_transaction {
            within(self.connection.execute("COMMIT")).await?;
            self.in_transaction = false;
        }
        Ok(())
    }

    /// Keeps the lease though its connection is silent for up to `silence`.
    pub async fn hold_for(&mut self, silence: Duration) -> Result<()> {
        let sql = format!("SET SESSION wait_timeout = {}", silence.as_secs());
        within(sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut self.connection)).await.map(drop)
    }

    /// Rolls back what is open, and lets another process take the lease at once.
    pub async fn release(mut self) -> Result<()> {
        // First, so that the next holder finds no row locked by this one.
        within(self.connection.execute("ROLLBACK")).await?;
        // Said explicitly, as the server notices only later that a connection was closed.
        within(sqlx::query("DO RELEASE_ALL_LOCKS()").execute(&mut self.connection)).await?;
        within(self.connection.close()).await
    }
}

/// A lease that is kept over many rounds of work, as long as none fails.
pub struct HeldLease {
    database: Database,
    name: String,
    lease: Option<Lease>,
}

impl HeldLease {
    pub fn new(database: &Database, name: impl Into<String>) -> Self {
        Self { database: database.clone(), name: name.into(), lease: None }
    }

    /// Does one round of work under a lease, which it then releases; none while another process holds it.
    pub async fn once<T>(
        database: &Database,
        name: &str,
        work: impl AsyncFnOnce(&mut Lease) -> Result<T>,
    ) -> Result<Option<T>> {
        // Nothing is kept for a next round, so that other processes need not wait for the silence of this one.
        let mut held = Self::new(database, name);
        let done = held.round(work).await;
        held.release().await;
        done
    }

    /// Does a round of work every `interval` under the lease, or nothing while another process holds it, until
    /// `stopping` is cancelled. A round that fails is only logged: the next one does what it left.
    pub async fn run(
        mut self,
        interval: Duration,
        stopping: CancellationToken,
        mut work: impl AsyncFnMut(&mut Lease) -> Result<()>,
    ) {
        let mut rounds = retry::every(interval, &stopping);
        while rounds.next().await {
            if let Err(error) = self.round(&mut work).await {
                tracing::warn!(lease = self.name, cause = error.chain(), "work under a lease failed; retrying");
            }
        }
        self.release().await;
    }

    /// Does one round of work under the lease; none while another process holds it.
    pub async fn round<T>(&mut self, work: impl AsyncFnOnce(&mut Lease) -> Result<T>) -> Result<Option<T>> {
        let Some(mut lease) = self.begin().await? else { return Ok(None) };
        let done = work(&mut lease).await;
        self.finish(lease, done).await.map(Some)
    }

    /// The lease for one round, which ends with [`Self::finish`]; none while another process holds it.
    pub async fn begin(&mut self) -> Result<Option<Lease>> {
        // Taken out: when the round is dropped half way, its connection ends, and no half-done transaction is found by
        // the next round.
        match self.lease.take() {
            Some(lease) => Ok(Some(lease)),
            None => self.database.try_lease(&self.name).await,
        }
    }

    /// Keeps the lease for the next round, unless this one failed: its connection may be what failed, or another
    /// process may succeed.
    pub async fn finish<T>(&mut self, lease: Lease, done: Result<T>) -> Result<T> {
        self.lease = Some(lease);
        if done.is_err() {
            self.release().await;
        }
        done
    }

    /// Lets another process take the lease.
    pub async fn release(&mut self) {
        if let Some(lease) = self.lease.take()
            && let Err(error) = lease.release().await
        {
            // Its connection is gone, and the lease with it.
            tracing::debug!(lease = self.name, cause = error.chain(), "lease lost before its release");
        }
    }
}
