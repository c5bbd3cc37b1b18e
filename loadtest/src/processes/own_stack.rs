//! The stack of a fault run: API, worker and Redis of its own, and a database of its own beside the given one.

use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use secrecy::{ExposeSecret, SecretString};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, MySqlConnection, mysql::MySqlConnectOptions};

use tokio::time::{Instant, sleep};

use super::{MoreSettings, RedisServer, Stack, StackSettings, WorkFolder};
use crate::{output, stores::StoreArguments};

const RECOVERY_LIMIT: Duration = Duration::from_mins(1);

/// The running stack. What is dropped without [`OwnStack::stop`] is killed.
pub struct OwnStack {
    stack: Stack,
    redis: RedisServer,
    database: OwnDatabase,
    stores: StoreArguments,
    // Last, so that its processes are gone when the folder goes.
    folder: WorkFolder,
}

impl OwnStack {
    /// Starts Redis, API and worker; `database_url` names the server, and the database beside which its own is made.
    /// Its programs are told the settings `more`.
    pub async fn start(database_url: &SecretString, more: MoreSettings) -> Result<Self> {
        let folder = WorkFolder::new("faults")?;
        let redis = RedisServer::start(folder.path()).await?;
        let database = OwnDatabase::create(database_url).await?;
        let stores = StoreArguments {
            database_url: database.url.clone(),
            redis_url: redis.url(),
            redis_key_prefix: String::new(),
        };
        let settings = StackSettings { stores: stores.clone(), folder: folder.path().to_owned(), more };
        let mut stack = Stack::start(settings).await?;
        stack.start_worker().await?;
        Ok(Self { stack, redis, database, stores, folder })
    }

    /// Its API and worker.
    pub fn stack(&self) -> &Stack {
        &self.stack
    }

    /// Its database and Redis.
    pub fn stores(&self) -> &StoreArguments {
        &self.stores
    }

    /// SIGKILL to the worker, and another one.
    pub async fn kill_and_restart_worker(&mut self) -> Result<()> {
        self.stack.kill_worker().await?;
        self.stack.launch_worker()
    }

    /// SIGKILL to Redis, an outage, and the same Redis again.
    pub async fn kill_and_restart_redis(&mut self, outage: Duration) -> Result<()> {
        self.redis.kill_and_restart(outage).await
    }

    /// Waits until the worker answers and Redis is back: the next kill shall hit processes that work.
    pub async fn until_worker_recovered(&mut self) -> Result<()> {
        let end = Instant::now() + RECOVERY_LIMIT;
        while !self.stack.worker_is_ready().await {
            self.expect_alive()?;
            if Instant::now() >= end {
                let limit = RECOVERY_LIMIT.as_secs();
                bail!("the worker is not ready {limit} s after a kill");
            }
            sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    /// Fails when a process ended that nobody killed.
    pub fn expect_alive(&mut self) -> Result<()> {
        self.stack.expect_alive()
    }

    /// Stops everything. Data and logs go too, unless they are `kept` for somebody to look into.
    pub async fn stop(mut self, kept: bool) -> Result<()> {
        self.stack.stop().await?;
        self.redis.stop().await?;
        if kept {
            self.folder.keep();
            let (database, folder) = (&self.database.name, self.folder.path().display());
            output::note(&format!("left to look into: database {database}; Redis data and logs in {folder}"));
            return Ok(());
        }
        self.database.remove().await
    }
}

/// A database that nobody else uses: other workers on the same server would else confirm, or rebuild, what is none
/// of theirs. Its name is fixed, so that one left behind is found; a lock keeps two runs apart.
struct OwnDatabase {
    url: SecretString,
    name: String,
    connection: MySqlConnection,
}

impl OwnDatabase {
    async fn create(beside: &SecretString) -> Result<Self> {
        let options: MySqlConnectOptions = beside.expose_secret().parse().context("DATABASE_URL")?;
        let given = options.get_database().unwrap_or_default().to_owned();
        let name = format!("{given}_faults");
        let url = renamed(beside.expose_secret(), &given, &name)?;
        let mut connection = options.connect().await.context("connecting to the database")?;
        let lock: Option<i64> = sqlx::query_scalar("SELECT GET_LOCK(?, 0)")
            .bind(&name)
            .fetch_one(&mut connection)
            .await
            .context("a lock")?;
        if lock != Some(1) {
            bail!("another fault run uses the database {name}");
        }
        for statement in ["DROP DATABASE IF EXISTS", "CREATE DATABASE"] {
            let sql = AssertSqlSafe(format!("{statement} `{name}`"));
            let made = sqlx::raw_sql(sql).execute(&mut connection).await;
            made.with_context(|| format!("{statement} {name}: a fault run needs a database of its own"))?;
        }
        Ok(Self { url: url.into(), name, connection })
    }

    async fn remove(mut self) -> Result<()> {
        let sql = AssertSqlSafe(format!("DROP DATABASE `{}`", self.name));
        sqlx::raw_sql(sql).execute(&mut self.connection).await.context("removing the database of the run")?;
        self.connection.close().await.context("leaving the database")
    }
}

/// `url` with another database.
fn renamed(url: &str, given: &str, name: &str) -> Result<String> {
    let (address, parameters) = url.split_once('?').map_or((url, None), |(address, rest)| (address, Some(rest)));
    let server = address.strip_suffix(given).filter(|server| server.ends_with('/'));
    let server = server.ok_or_else(|| anyhow!("DATABASE_URL: expected mysql://user:password@host:port/database"))?;
    let parameters = parameters.map(|parameters| format!("?{parameters}")).unwrap_or_default();
    Ok(format!("{server}{name}{parameters}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_database_is_another() {
        let renamed = |url| renamed(url, "dibs", "dibs_faults").ok();
        assert_eq!(renamed("mysql://u:p@h:1/dibs").as_deref(), Some("mysql://u:p@h:1/dibs_faults"));
        assert_eq!(
            renamed("mysql://h/dibs?ssl-mode=DISABLED").as_deref(),
            Some("mysql://h/dibs_faults?ssl-mode=DISABLED")
        );
        assert_eq!(renamed("mysql://h/other"), None);
    }
}
