use std::time::Duration;

use metrics::counter;
use sqlx::{ConnectOptions as _, Connection as _};
use tokio_util::sync::CancellationToken;

use super::{Database, login::needs_tls, within};
use crate::{
    error::{Dependency, Error, Result},
    retry,
    supervisor::{Lifetime, Task},
};

/// How often the pool is checked.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// After so many failed checks in a row, and no progress of others meanwhile, a new connection is tried.
const MAX_FAILED_CHECKS: u32 = 2;
/// What the error about a server that takes no writes says.
const READ_ONLY: &str = "the server is read-only";

impl Database {
    /// Returns when the database answers and takes writes.
    pub async fn ping(&self) -> Result<()> {
        let is_read_only: i64 =
            // A primary that was replaced still answers, and refuses every write.
            within(sqlx::query_scalar("SELECT /* ping */ @@global.read_only").fetch_one(&self.pool())).await?;
        if is_read_only == 0 { Ok(()) } else { Err(read_only()) }
    }

    /// Logs in once with TLS while the server refuses a login without. Replaces the pool while it cannot serve and a
    /// new connection can: its connections lead to a server that was made read-only, or into a network that has
    /// forgotten them. They are noticed by no other means, as nothing is heard on them.
    pub async fn watch(&self, stopping: &CancellationToken) {
        let mut failed_checks = 0;
        let mut seen = self.released();
        while retry::sleep(CHECK_INTERVAL, stopping).await {
            let Err(error) = self.ping().await else {
                failed_checks = 0;
                continue;
            };
            if needs_tls(&error) {
                self.log_in_with_tls().await;
                continue;
            }
            // A pool that is merely busy makes progress.
            let released = self.released();
            let is_stuck = released == std::mem::replace(&mut seen, released);
            failed_checks = if is_stuck || is_read_only(&error) { failed_checks + 1 } else { 0 };
            // Tried first: while the server itself is unreachable, a new pool would be no better than the old one.
            if failed_checks >= MAX_FAILED_CHECKS && self.can_connect().await {
                failed_checks = 0;
                self.replace_pool();
                tracing::warn!(cause = error.chain(), "database connections replaced");
                counter!("dibs_database_pools_replaced_total").increment(1);
            }
        }
    }

    /// Whether a new connection reaches a server that takes writes.
    async fn can_connect(&self) -> bool {
        let check = async {
            let mut connection = self.options().connect().await?;
            let is_read_only: i64 =
                sqlx::query_scalar("SELECT /* can_connect */ @@global.read_only").fetch_one(&mut connection).await?;
            // Nothing was written, so there is no need to close cleanly to the server and wait for it once more.
            connection.close_hard().await?;
            Ok(is_read_only == 0)
        };
        within(check).await.unwrap_or(false)
    }

    pub fn watch_task(&self, stopping: &CancellationToken) -> Task {
        let (database, stopping) = (self.clone(), stopping.clone());
        Task::new("database_watch", Lifetime::UntilStopping, move || {
            let (database, stopping) = (database.clone(), stopping.clone());
            async move {
                database.watch(&stopping).await;
                Ok(())
            }
        })
    }
}

fn read_only() -> Error {
    Error::unavailable(Dependency::MySql, READ_ONLY)
}

fn is_read_only(error: &Error) -> bool {
    error.chain().contains(READ_ONLY)
}
