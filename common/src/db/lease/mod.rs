//! Leases: work that one process at a time does, such as serving a sink. Decision 0033.
//!
//! A lease is a row with an epoch, which is higher each time the lease is taken. Its holder renews it; a holder that
//! does not, loses it. What the lease protects is written in transactions that begin with a renewal of that epoch: the
//! transaction of a holder that was frozen and overtaken fails, however late it comes.

mod held;
mod renewal;

use std::{sync::Arc, time::Duration};

pub use held::HeldLease;
use renewal::{Renewer, RenewerState};
use sqlx::{Executor as _, MySql, MySqlConnection, MySqlExecutor, Transaction, pool::PoolConnection};

use super::{Database, database_error, errors::is_contention, within};
use crate::{
    error::{Error, Result},
    identifiers::new_uuid,
};

/// A holder that has not renewed its lease for so long loses it.
pub const LEASE_TIME: Duration = Duration::from_secs(9);
const RENEWAL_INTERVAL: Duration = Duration::from_secs(3);

/// A lease that this process has taken. It ends when it is released or dropped, or when it is not renewed for
/// [`LEASE_TIME`].
pub struct Lease {
    database: Database,
    key: LeaseKey,
    transaction: Option<Transaction<'static, MySql>>,
    renewer: Renewer,
}

/// One turn of a lease.
#[derive(Clone, Debug)]
struct LeaseKey {
    name: Arc<str>,
    epoch: u64,
}

impl Database {
    /// Takes the lease of that name; none when another holds it.
    pub async fn try_lease(&self, name: &str) -> Result<Option<Lease>> {
        // Standbys ask often, so a plain read comes first.
        if within(is_held(&self.pool(), name)).await? {
            return Ok(None);
        }
        let taken = match within(async { Ok(take(self, name).await) }).await? {
            // Another process takes it at this moment.
            Err(error) if is_contention(&error) => None,
            taken => taken.map_err(database_error)?,
        };
        let Some(epoch) = taken else { return Ok(None) };
        let key = LeaseKey { name: name.into(), epoch };
        let renewer = Box::pin(Renewer::start(self, key.clone())).await?;
        Ok(renewer.map(|renewer| Lease { database: self.clone(), key, transaction: None, renewer }))
    }
}

impl Lease {
    /// Begins a transaction, unless one is open, and returns its connection. What is written in it becomes durable only
    /// if no other process has taken the lease since. [`Self::commit`] ends it.
    pub async fn begin(&mut self) -> Result<&mut MySqlConnection> {
        let transaction = match self.transaction.take() {
            Some(transaction) => transaction,
            None => self.fence().await?,
        };
        Ok(self.transaction.insert(transaction))
    }

    async fn fence(&self) -> Result<Transaction<'static, MySql>> {
        let mut transaction = within(self.database.begin()).await?;
        // A write and not only a lock: a Galera cluster compares what transactions on different nodes have written.
        if !within(renew(&mut *transaction, &self.key)).await? {
            return Err(self.lost());
        }
        self.state().set_in_transaction(true);
        Ok(transaction)
    }

    /// Commits the transaction, if one is open.
    pub async fn commit(&mut self) -> Result<()> {
        let Some(transaction) = self.transaction.take() else { return Ok(()) };
        let committed = within(transaction.commit()).await;
        self.state().set_in_transaction(false);
        committed
    }

    /// A connection for reads. Whatever is written because of them is written in a transaction of the lease.
    pub async fn reader(&self) -> Result<PoolConnection<MySql>> {
        self.database.pool().acquire().await.map_err(database_error)
    }

    /// A connection of its own for a snapshot, between whose reads it may be silent for a minute.
    pub async fn long_reader(&self) -> Result<MySqlConnection> {
        let mut connection = self.reader().await?.detach();
        within(connection.execute("SET SESSION wait_timeout = 60")).await?;
        Ok(connection)
    }

    /// Fails when the lease is known to be lost. For work whose effects are not in the database.
    pub fn ensure_held(&self) -> Result<()> {
        if self.is_held() { Ok(()) } else { Err(self.lost()) }
    }

    /// Fails unless the database says that the lease is held: right before an effect in Redis.
    pub async fn confirm(&self) -> Result<()> {
        let is_held = within(renew(&self.database.pool(), &self.key)).await?;
        if is_held { Ok(()) } else { Err(self.lost()) }
    }

    /// Rolls back what is open, and lets another process take the lease at once.
    ///
    /// # Errors
    /// The lease was lost before: another process may have done the same work.
    pub async fn release(mut self) -> Result<()> {
        // First, so that the next holder finds no row locked by this one.
        if let Some(transaction) = self.transaction.take() {
            within(transaction.rollback()).await?;
        }
        if self.renewer.release().await? { Ok(()) } else { Err(self.lost()) }
    }

    fn is_held(&self) -> bool {
        !self.state().is_lost()
    }

    fn state(&self) -> &RenewerState {
        self.renewer.state()
    }

    fn lost(&self) -> Error {
        Error::internal(LeaseLost(self.key.name.to_string()))
    }
}

#[derive(Debug, thiserror::Error)]
#[error("the lease '{0}' was lost: this process did not renew it in time")]
struct LeaseLost(String);

async fn is_held(executor: impl MySqlExecutor<'_>, name: &str) -> Result<bool, sqlx::Error> {
    let sql = "SELECT /* lease::is_held */ CAST(expires_at > UTC_TIMESTAMP(6) AS SIGNED) FROM leases WHERE name = ?";
    let held: Option<i64> = sqlx::query_scalar(sql).bind(name).fetch_optional(executor).await?;
    Ok(held == Some(1))
}

/// The epoch, when no process holds the lease.
async fn take(database: &Database, name: &str) -> Result<Option<u64>, sqlx::Error> {
    let mut transaction = database.begin().await?;
    let expired: Option<i64> = sqlx::query_scalar(
        "SELECT /* lease::take */ CAST(expires_at <= UTC_TIMESTAMP(6) AS SIGNED) FROM leases WHERE name = ?",
    )
    .bind(name)
    .fetch_optional(&mut *transaction)
    .await?;
    let holder = new_uuid();
    let taking = match expired {
        // Begins with the time, as a lease that was released has no row: a later epoch must be higher than this one.
        None => {
            "INSERT IGNORE INTO leases /* lease::take */ (epoch, holder, expires_at, name) \
             VALUES (CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS UNSIGNED), ?, UTC_TIMESTAMP(6) + INTERVAL ? SECOND, ?)"
        }
        Some(0) => return Ok(None),
        Some(_) => {
            // A row that is locked belongs to a holder in a transaction: it is not waited for.
            let free = "SELECT /* lease::take */ epoch FROM leases WHERE name = ? AND expires_at <= UTC_TIMESTAMP(6) \
                        FOR UPDATE SKIP LOCKED";
            let free: Option<u64> = sqlx::query_scalar(free).bind(name).fetch_optional(&mut *transaction).await?;
            if free.is_none() {
                return Ok(None);
            }
            "UPDATE leases /* lease::take */ SET epoch = epoch + 1, holder = ?, \
             expires_at = UTC_TIMESTAMP(6) + INTERVAL ? SECOND WHERE name = ?"
        }
    };
    sqlx::query(taking).bind(holder).bind(LEASE_TIME.as_secs()).bind(name).execute(&mut *transaction).await?;
    let epoch = sqlx::query_scalar("SELECT /* lease::take */ epoch FROM leases WHERE name = ? AND holder = ?")
        .bind(name)
        .bind(holder)
        .fetch_optional(&mut *transaction)
        .await?;
    transaction.commit().await?;
    Ok(epoch)
}

/// False when another process has taken the lease since.
async fn renew(executor: impl MySqlExecutor<'_>, key: &LeaseKey) -> Result<bool, sqlx::Error> {
    // Also when it has expired: no process has taken it, or its epoch would be another.
    let renewed = sqlx::query(
        "UPDATE leases /* lease::renew */ SET expires_at = UTC_TIMESTAMP(6) + INTERVAL ? SECOND \
         WHERE name = ? AND epoch = ?",
    )
    .bind(LEASE_TIME.as_secs())
    .bind(&*key.name)
    .bind(key.epoch)
    .execute(executor)
    .await?;
    Ok(renewed.rows_affected() == 1)
}

/// Lets another process take it. False when one has.
async fn remove(executor: impl MySqlExecutor<'_>, key: &LeaseKey) -> Result<bool, sqlx::Error> {
    let removed = sqlx::query("DELETE FROM leases /* lease::remove */ WHERE name = ? AND epoch = ?")
        .bind(&*key.name)
        .bind(key.epoch)
        .execute(executor)
        .await?;
    Ok(removed.rows_affected() == 1)
}

/// Removes the rows of processes that died, for names that no process asks for any more. Returns how many.
pub async fn purge_leases(executor: impl MySqlExecutor<'_>) -> Result<u64, sqlx::Error> {
    let sql = "DELETE FROM leases /* lease::purge_leases */ WHERE expires_at < UTC_TIMESTAMP(6) - INTERVAL 1 DAY";
    sqlx::query(sql).execute(executor).await.map(|purged| purged.rows_affected())
}
