//! The processes of the bench: API, worker and baseline server; and the campaigns that it creates and deletes.

use std::{env, net::SocketAddr, time::Duration};

use anyhow::{Context as _, Result};
use dibs_common::{
    db::Database,
    identifiers::{CouponId, Partition},
    redis::campaign_state,
};
use fred::{
    interfaces::{ClientLike as _, KeysInterface as _, StreamsInterface as _},
    types::InfoKind,
};
use secrecy::SecretString;
use sqlx::{AssertSqlSafe, MySqlPool};
use tokio::{net::TcpStream, process::Command};

use super::{client::BenchRequest, cost::CpuTimes};
use crate::{
    output,
    processes::{Process, Program, ResidentBytes, ServerProcess, Stack, StackSettings, WorkDirectory, free_address},
    stores::{StoreArguments, Stores},
    wait,
};

const START_TIMEOUT: Duration = Duration::from_secs(10);
const DRAIN_TIMEOUT: Duration = Duration::from_mins(1);
const PURGE_TIMEOUT: Duration = Duration::from_secs(20);
const DELETE_BATCH: u32 = 10_000;

/// A campaign of the bench.
#[derive(Clone, Copy, Debug)]
pub struct BenchCampaign {
    pub coupon: CouponId,
    pub partition: Partition,
}

impl BenchCampaign {
    /// A claim on it.
    pub fn request(self) -> BenchRequest {
        BenchRequest::Claim { coupon: self.coupon }
    }
}

pub struct Harness {
    stack: Stack,
    baseline: Process,
    baseline_address: SocketAddr,
    arguments: StoreArguments,
    pub stores: Stores,
    // Fields are dropped in order: the folder is deleted after the processes that write into it are killed.
    folder: WorkDirectory,
}

impl Harness {
    /// Starts API and baseline server, without a worker.
    pub async fn start(arguments: &StoreArguments) -> Result<Self> {
        let folder = WorkDirectory::new("bench")?;
        // Users of a bench come again in each round. The limits are high, not off: what they cost is part of the
        // result.
        let no_rejection = ["UNPAID_ORDERS_LIMIT", "UNPAID_UNITS_LIMIT"].map(|name| (name, "1000000".to_owned()));
        let (stores, folder_path) = (arguments.clone(), folder.path().to_owned());
        let settings = StackSettings { stores, folder: folder_path, extra: no_rejection.into() };
        let stack = Stack::start(settings).await?;
        let stores = Stores::connect(arguments).await?;
        let baseline_address = free_address()?;
        let mut command = Command::new(env::current_exe().context("finding the own program")?);
        command.args(["baseline", "--address", &baseline_address.to_string()]);
        let baseline = Process::start("baseline", &mut command, folder.path())?;
        let mut harness = Self { stack, baseline, baseline_address, arguments: arguments.clone(), stores, folder };
        wait::until("the baseline server to listen", START_TIMEOUT, Duration::from_millis(10), async || {
            harness.baseline.expect_alive()?;
            Ok(TcpStream::connect(baseline_address).await.is_ok())
        })
        .await?;
        Ok(harness)
    }

    pub fn baseline_address(&self) -> SocketAddr {
        self.baseline_address
    }

    pub fn api_address(&self) -> SocketAddr {
        self.stack.api_address()
    }

    /// That of the administrator.
    pub const fn token(&self) -> &SecretString {
        self.stack.token()
    }

    /// Starts the worker and waits until it is ready.
    pub async fn start_worker(&mut self) -> Result<()> {
        self.stack.start_worker().await
    }

    /// Starts the worker without waiting for it.
    pub fn launch_worker(&mut self) -> Result<()> {
        self.stack.launch_worker()
    }

    /// Starts a job on demand.
    pub fn job(&self, name: &str) -> Result<Process> {
        self.stack.start_command(&["job", name])
    }

    /// Products on the first page of best sellers.
    pub async fn best_sellers(&self) -> Result<usize> {
        self.stack.api()?.best_sellers().await
    }

    /// Stops the worker.
    pub async fn stop_worker(&mut self) -> Result<()> {
        self.stack.stop_worker().await
    }

    /// Fails when a process exited unexpectedly.
    pub fn expect_alive(&mut self) -> Result<()> {
        self.stack.expect_alive()?;
        self.baseline.expect_alive()
    }

    /// Another pool of database connections.
    pub fn connect(&self, connections: u32) -> Result<Database> {
        Database::new(&self.arguments.database_url, connections).context("DATABASE_URL")
    }

    /// Resident memory of API and worker.
    pub fn resident_bytes(&self) -> Result<ResidentBytes> {
        self.stack.resident_bytes()
    }

    /// CPU time that each process has used so far.
    pub fn cpu_times(&self) -> Result<CpuTimes> {
        let StoreArguments { database_url, redis_url, .. } = &self.arguments;
        Ok(CpuTimes {
            bare: self.baseline.usage()?.cpu,
            api: self.stack.usage(Program::Api)?.cpu,
            worker: self.stack.usage(Program::Worker)?.cpu,
            redis: ServerProcess::of_url(redis_url, 6379)?.usage()?.cpu,
            mysql: ServerProcess::of_url(database_url, 3306)?.usage()?.cpu,
        })
    }

    /// Creates a campaign that accepts claims.
    pub async fn open_campaign(&self, quantity: u32) -> Result<BenchCampaign> {
        let coupon = self.stack.api()?.open_campaign("bench", quantity).await?;
        Ok(BenchCampaign { coupon, partition: self.stores.campaign(coupon).await?.partition })
    }

    /// Confirmed claims.
    pub async fn confirmed(&self, subject: BenchCampaign) -> Result<u64> {
        Ok(self.stores.campaign(subject.coupon).await?.issued.into())
    }

    /// Claims that Redis has accepted.
    pub async fn claimed(&self, subject: BenchCampaign) -> Result<u64> {
        let counts = campaign_state::counts(&self.stores.redis, subject.partition, subject.coupon).await?;
        Ok(counts.context("Redis does not hold the campaign")?.claimed.into())
    }

    /// Waits until the stream is empty.
    pub async fn until_drained(&self, subject: BenchCampaign) -> Result<()> {
        let every = Duration::from_millis(20);
        wait::until("an empty claim stream", DRAIN_TIMEOUT, every, async || {
            Ok(self.stores.backlog(subject.partition).await? == 0)
        })
        .await
    }

    /// `used_memory` of Redis, in bytes.
    pub async fn redis_memory(&self) -> Result<u64> {
        let info = self.stores.redis.client().info(Some(InfoKind::Memory)).await;
        let info: String = info.context("reading INFO memory")?;
        let used = info.lines().find_map(|line| line.strip_prefix("used_memory:")?.trim().parse().ok());
        used.context("INFO memory has no used_memory")
    }

    /// Deletes a campaign and its data. The worker must be stopped.
    pub async fn retire(&self, BenchCampaign { coupon, partition }: BenchCampaign) -> Result<()> {
        let (client, keys) = (self.stores.redis.client(), &self.stores.redis.keys);
        let pool = &self.stores.database.pool();
        // MySQL first: a worker rebuilds a campaign that is missing in Redis alone.
        for table in ["user_coupons", "claim_rejections", "coupons"] {
            delete_rows(pool, table, coupon).await?;
        }
        let campaign = vec![keys.campaign(partition, coupon), keys.claims(partition, coupon)];
        // UNLINK frees the memory in the background. DEL of a large hash would block Redis.
        client.unlink::<(), _>(campaign).await.context("deleting a campaign in Redis")?;
        // The stream is drained, so only the memory of its nodes is freed.
        let trimmed = client.xtrim::<(), _, _>(keys.claim_stream(partition), ("MAXLEN", "=", 0)).await;
        trimmed.context("emptying a stream")?;
        until_purged(pool).await;
        Ok(())
    }

    /// Stops all processes.
    pub async fn stop(mut self) -> Result<()> {
        self.stack.stop().await?;
        self.baseline.stop().await?;
        self.stores.close().await;
        drop(self.folder);
        Ok(())
    }
}

async fn delete_rows(pool: &MySqlPool, table: &str, coupon: CouponId) -> Result<()> {
    loop {
        // In batches: one transaction over millions of rows would fill the undo log.
        let sql = AssertSqlSafe(format!("DELETE FROM {table} WHERE coupon_id = ? LIMIT {DELETE_BATCH}"));
        let deleted = sqlx::query(sql).bind(coupon.get()).execute(pool).await.context("deleting rows of a campaign")?;
        if deleted.rows_affected() < DELETE_BATCH.into() {
            return Ok(());
        }
    }
}

/// Waits until `InnoDB` has purged the deleted rows, which would slow the next measurement down. A timeout is only
/// noted: the user of the database may lack the privilege to read the metric.
async fn until_purged(pool: &MySqlPool) {
    let every = Duration::from_millis(200);
    let purged = wait::until("InnoDB to purge deleted rows", PURGE_TIMEOUT, every, async || {
        let left: i64 = sqlx::query_scalar(
            "SELECT CAST(`count` AS SIGNED) FROM information_schema.innodb_metrics WHERE name = 'trx_rseg_history_len'",
        )
        .fetch_one(pool)
        .await
        .context("reading the length of InnoDB's history list")?;
        Ok(left < 100)
    });
    if let Err(error) = purged.await {
        output::note(&format!("the next measurement may be slowed down: {error:#}"));
    }
}
