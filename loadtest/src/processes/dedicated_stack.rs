//! The stack of a fault run: its own API, worker and Redis, and its own database.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use dibs_common::fault_proxy::FaultProxy;
use secrecy::{ExposeSecret, SecretString};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, MySqlConnection, mysql::MySqlConnectOptions};

use super::{ExtraSettings, Stack, StackSettings, StoreServer, WorkDirectory};
use crate::{
    faults::{Cut, Fault, FaultArguments},
    output,
    stores::StoreArguments,
    wait,
};

const RECOVERY_TIMEOUT: Duration = Duration::from_mins(1);
const RECOVERY_POLL_INTERVAL: Duration = Duration::from_millis(10);
/// Longer than the API waits for a server, so that clients receive a 503 and must retry.
const OUTAGE: Duration = Duration::from_millis(1500);
/// Longer than most time limits of the programs.
const FREEZE: Duration = Duration::from_secs(4);
const CUT: Duration = Duration::from_secs(4);

/// Dropping it without [`DedicatedStack::stop`] kills its processes.
pub struct DedicatedStack {
    stack: Stack,
    redis: StoreServer,
    /// A database server of its own, when it is to be killed.
    database_server: Option<StoreServer>,
    database: DedicatedDatabase,
    stores: StoreArguments,
    /// Between the programs and their servers, when networks are to be cut: database and Redis.
    networks: Option<[FaultProxy; 2]>,
    // Fields are dropped in order: the folder is deleted after the processes that write into it are killed.
    folder: WorkDirectory,
}

impl DedicatedStack {
    /// Starts Redis, API and worker, and what `faults` need. `database_url` names the MySQL server and the base name of
    /// the new database, unless the run kills a server of its own.
    pub async fn start(database_url: &SecretString, faults: &FaultArguments, extra: ExtraSettings) -> Result<Self> {
        let folder = WorkDirectory::new("faults")?;
        let redis = StoreServer::start_redis(folder.path()).await?;
        let database_server =
            if faults.database_kills > 0 { Some(StoreServer::start_database(folder.path()).await?) } else { None };
        let beside = database_server.as_ref().map_or_else(|| database_url.clone(), StoreServer::url);
        let database = DedicatedDatabase::create(&beside).await?;
        let stores = StoreArguments {
            database_url: database.url.clone(),
            redis_url: redis.url(),
            redis_key_prefix: String::new(),
        };
        // The run itself reaches the servers directly: its audit must not depend on the networks that it cuts.
        let mut cuttable = stores.clone();
        let networks = if faults.cuts > 0 {
            let StoreArguments { database_url, redis_url, .. } = &mut cuttable;
            Some([cut_into(database_url).await?, cut_into(redis_url).await?])
        } else {
            None
        };
        let settings = StackSettings { stores: cuttable, folder: folder.path().to_owned(), extra };
        let mut stack = Stack::start(settings).await?;
        stack.start_worker().await?;
        Ok(Self { stack, redis, database_server, database, stores, networks, folder })
    }

    /// API and worker.
    pub fn stack(&self) -> &Stack {
        &self.stack
    }

    /// MySQL and Redis.
    pub fn stores(&self) -> &StoreArguments {
        &self.stores
    }

    /// Injects a fault, and waits until the stack is ready again.
    pub async fn inject(&mut self, fault: Fault) -> Result<()> {
        match fault {
            Fault::Kill(program) => self.stack.kill_and_restart(program).await?,
            Fault::RedisKill => self.redis.kill_and_restart(OUTAGE).await?,
            Fault::DatabaseKill => {
                if let Some(server) = &mut self.database_server {
                    server.kill_and_restart(OUTAGE).await?;
                }
            }
            Fault::Freeze(program) => self.stack.freeze(program, FREEZE).await?,
            Fault::Cut(server, cut) => {
                if let Some(networks) = &self.networks {
                    cut_for_a_while(&networks[server as usize], cut).await;
                }
            }
        }
        // The next fault must hit a stack that works: two kills of a worker that never became ready would test one
        // restart only.
        self.until_recovered(fault).await
    }

    async fn until_recovered(&mut self, fault: Fault) -> Result<()> {
        let what = format!("API and worker to recover from: {}", fault.kind().describe());
        wait::until(what, RECOVERY_TIMEOUT, RECOVERY_POLL_INTERVAL, async || {
            self.stack.expect_alive()?;
            Ok(self.stack.is_ready().await)
        })
        .await
    }

    /// Fails when a process exited unexpectedly.
    pub fn expect_alive(&mut self) -> Result<()> {
        self.stack.expect_alive()
    }

    /// Keeps data and logs for an investigation, however the run ends.
    pub fn keep(&mut self) {
        self.folder.keep();
        let (database, folder) = (&self.database.name, self.folder.path().display());
        output::note(&format!("kept for an investigation: database {database}; data and logs in {folder}"));
    }

    /// Stops everything. Data and logs are deleted unless `keep`.
    pub async fn stop(mut self, keep: bool) -> Result<()> {
        // Before anything that can fail.
        if keep {
            self.keep();
        }
        self.stack.stop().await?;
        self.redis.stop().await?;
        match &mut self.database_server {
            // Its data is in the folder.
            Some(server) => server.stop().await,
            None if keep => Ok(()),
            None => self.database.remove().await,
        }
    }
}

/// Leads a URL through a proxy.
async fn cut_into(url: &mut SecretString) -> Result<FaultProxy> {
    let (proxy, through) = FaultProxy::before(url.expose_secret()).await.context("starting a proxy")?;
    *url = through.into();
    Ok(proxy)
}

async fn cut_for_a_while(network: &FaultProxy, cut: Cut) {
    match cut {
        Cut::Break => network.shut(),
        Cut::Silence => network.silence(),
        Cut::Forget => network.forget(),
    }
    tokio::time::sleep(CUT).await;
    network.open();
}

/// A database of the run's own: workers of another stack would confirm its claims, and would rebuild its campaigns in
/// their Redis. Its name is fixed, so that the next run replaces one that was left behind. A lock keeps two runs apart.
struct DedicatedDatabase {
    url: SecretString,
    name: String,
    connection: MySqlConnection,
}

impl DedicatedDatabase {
    async fn create(beside: &SecretString) -> Result<Self> {
        let options: MySqlConnectOptions = beside.expose_secret().parse().context("DATABASE_URL")?;
        let given = options.get_database().unwrap_or_default().to_owned();
        let name = format!("{given}_faults");
        let url = renamed(beside.expose_secret(), &given, &name)?;
        let mut connection = options.connect().await.context("connecting to the database")?;
        // The lock belongs to the connection, so it ends with the process, however that ends.
        let lock: Option<i64> = sqlx::query_scalar("SELECT GET_LOCK(?, 0)")
            .bind(&name)
            .fetch_one(&mut connection)
            .await
            .context("locking the database of fault runs")?;
        if lock != Some(1) {
            bail!("another fault run uses the database {name}");
        }
        // Identifiers cannot be bound as parameters. The name comes from DATABASE_URL and a constant.
        for statement in ["DROP DATABASE IF EXISTS", "CREATE DATABASE"] {
            let sql = AssertSqlSafe(format!("{statement} `{name}`"));
            let executed = sqlx::raw_sql(sql).execute(&mut connection).await;
            executed.with_context(|| format!("{statement} {name}: a fault run needs a database of its own"))?;
        }
        Ok(Self { url: url.into(), name, connection })
    }

    async fn remove(mut self) -> Result<()> {
        let sql = AssertSqlSafe(format!("DROP DATABASE `{}`", self.name));
        sqlx::raw_sql(sql).execute(&mut self.connection).await.context("dropping the database of the run")?;
        self.connection.close().await.context("closing the connection")
    }
}

/// `url` with another database.
fn renamed(url: &str, given: &str, name: &str) -> Result<String> {
    let (address, parameters) = url.split_once('?').map_or((url, None), |(address, rest)| (address, Some(rest)));
    let server = address.strip_suffix(given).filter(|server| server.ends_with('/'));
    let server = server.context("DATABASE_URL: expected mysql://user:password@host:port/database")?;
    let parameters = parameters.map(|parameters| format!("?{parameters}")).unwrap_or_default();
    Ok(format!("{server}{name}{parameters}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_database_is_renamed() {
        let renamed = |url| renamed(url, "dibs", "dibs_faults").ok();
        assert_eq!(renamed("mysql://u:p@h:1/dibs").as_deref(), Some("mysql://u:p@h:1/dibs_faults"));
        assert_eq!(
            renamed("mysql://h/dibs?ssl-mode=DISABLED").as_deref(),
            Some("mysql://h/dibs_faults?ssl-mode=DISABLED")
        );
        assert_eq!(renamed("mysql://h/other"), None);
    }

    #[tokio::test]
    async fn two_fault_runs_on_one_server_exclude_each_other() {
        let environment = dibs_common::testing::TestEnvironment::new().await;
        let url = &environment.settings.database_url;
        let database = DedicatedDatabase::create(url).await.expect("created");
        let name = database.name.clone();
        let exists = format!("SELECT COUNT(*) FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = '{name}'");
        assert_eq!((environment.count(&exists).await, database.url.expose_secret().contains(&name)), (1, true));
        let error = DedicatedDatabase::create(url).await.err().expect("locked").to_string();
        assert_eq!(error, format!("another fault run uses the database {name}"));
        database.remove().await.expect("removed");
        assert_eq!(environment.count(&exists).await, 0);
        environment.end().await;
    }

    #[tokio::test]
    async fn a_database_that_an_earlier_run_left_behind_is_replaced() {
        let environment = dibs_common::testing::TestEnvironment::new().await;
        let url = &environment.settings.database_url;
        let database = DedicatedDatabase::create(url).await.expect("created");
        environment.execute(&format!("CREATE TABLE `{}`.remains (id INT)", database.name)).await;
        // Without `remove`: the connection is closed, and with it the lock is released.
        database.connection.close().await.expect("closed");
        let database = DedicatedDatabase::create(url).await.expect("created again");
        let tables = format!("SELECT COUNT(*) FROM information_schema.TABLES WHERE TABLE_SCHEMA = '{}'", database.name);
        assert_eq!(environment.count(&tables).await, 0);
        database.remove().await.expect("removed");
        environment.end().await;
    }
}
