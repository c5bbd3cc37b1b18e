use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::Lease;
use crate::{db::Database, error::Result, retry};

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
        // Nothing is kept for a next round, so that other processes need not wait until it expires.
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
        // Boxed: it is large, and rounds are part of other large futures.
        let done = Box::pin(work(&mut lease)).await;
        self.finish(lease, done).await.map(Some)
    }

    /// The lease for one round, which ends with [`Self::finish`]; none while another process holds it.
    pub async fn begin(&mut self) -> Result<Option<Lease>> {
        // Taken out: when the round is dropped half way, the lease ends, and no half-done transaction is found by the
        // next round.
        match self.lease.take() {
            Some(lease) if lease.is_held() => Ok(Some(lease)),
            _ => Box::pin(self.database.try_lease(&self.name)).await,
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
            // It expires by itself.
            tracing::debug!(lease = self.name, cause = error.chain(), "lease lost before its release");
        }
    }
}
