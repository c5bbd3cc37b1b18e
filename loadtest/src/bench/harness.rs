//! What is measured: a stack without or with its worker, the bare server, and the campaigns made for the purpose.

use std::{env, net::SocketAddr, time::Duration};

use anyhow::{Context as _, Result};
use dibs_common::{
    db::Database,
    identifiers::{CouponId, Partition},
};
use fred::{
    interfaces::{ClientLike as _, KeysInterface as _, StreamsInterface as _},
    types::InfoKind,
};
use sqlx::{AssertSqlSafe, MySqlPool};
use tokio::{net::TcpStream, process::Command};

use super::client::Call;
use crate::{
    output,
    processes::{Process, Stack, StackSettings, WorkFolder, free_address},
    stores::{StoreArguments, Stores},
    waiting,
};

const START_LIMIT: Duration = Duration::from_secs(10);
const DRAIN_LIMIT: Duration = Duration::from_mins(1);
const PURGE_LIMIT: Duration = Duration::from_secs(20);
const ROWS_AT_ONCE: u32 = 10_000;

/// A campaign made to be measured.
#[derive(Clone, Copy, Debug)]
pub struct Subject {
    /// Its id.
    pub coupon: CouponId,
    /// Where it lives in Redis.
    pub partition: Partition,
}

impl Subject {
    /// What a client asks for.
    pub fn call(self) -> Call {
        Call::Claim { coupon: self.coupon }
    }
}

/// Everything that is measured.
pub struct Harness {
    stack: Stack,
    bare: Process,
    bare_address: SocketAddr,
    arguments: StoreArguments,
    /// Where the stack keeps its data.
    pub stores: Stores,
    // Last, so that its processes are gone when the folder goes.
    folder: WorkFolder,
}

impl Harness {
    /// Starts API and bare server.
    pub async fn start(arguments: &StoreArguments) -> Result<Self> {
        let folder = WorkFolder::new("bench")?;
        let settings = StackSettings { stores: arguments.clone(), folder: folder.path().to_owned(), more: Vec::new() };
        let stack = Stack::start(settings).await?;
        let stores = Stores::connect(arguments).await?;
        let bare_address = free_address()?;
        let mut command = Command::new(env::current_exe().context("looking for the own program")?);
        command.args(["bare", "--address", &bare_address.to_string()]);
        let bare = Process::start("bare", &mut command, folder.path())?;
        let mut rig = Self { stack, bare, bare_address, arguments: arguments.clone(), stores, folder };
        waiting::until("the bare server", START_LIMIT, Duration::from_millis(10), async || {
            rig.bare.expect_alive()?;
            Ok(TcpStream::connect(bare_address).await.is_ok())
        })
        .await?;
        Ok(rig)
    }

    /// The bare server.
    pub fn bare_address(&self) -> SocketAddr {
        self.bare_address
    }

    /// The API.
    pub fn api_address(&self) -> SocketAddr {
        self.stack.api_address()
    }

    /// Starts the worker.
    pub async fn start_worker(&mut self) -> Result<()> {
        self.stack.start_worker().await
    }

    /// Starts the worker, without waiting for it.
    pub fn launch_worker(&mut self) -> Result<()> {
        self.stack.launch_worker()
    }

    /// Starts a job by hand, beside a worker or without one.
    pub fn job(&self, name: &str) -> Result<Process> {
        self.stack.start_command(&["job", name])
    }

    /// How many products the first page of what sold best shows.
    pub async fn best_sellers(&self) -> Result<usize> {
        self.stack.api()?.best_sellers().await
    }

    /// Stops the worker.
    pub async fn stop_worker(&mut self) -> Result<()> {
        self.stack.stop_worker().await
    }

    /// Fails when a process ended by itself.
    pub fn expect_alive(&mut self) -> Result<()> {
        self.stack.expect_alive()?;
        self.bare.expect_alive()
    }

    /// Another way to the database, for so many connections.
    pub fn connect(&self, connections: u32) -> Result<Database> {
        Database::new(&self.arguments.database_url, connections).context("DATABASE_URL")
    }

    /// Memory that API and worker have in hand, in bytes; 0 for one that does not run.
    pub fn resident_bytes(&self) -> Result<(u64, u64)> {
        self.stack.resident_bytes()
    }

    /// A new campaign that is open.
    pub async fn open_campaign(&self, quantity: u32) -> Result<Subject> {
        let coupon = self.stack.api()?.open_campaign("bench", quantity).await?;
        Ok(Subject { coupon, partition: self.stores.campaign(coupon).await?.partition })
    }

    /// Rows confirmed so far.
    pub async fn confirmed(&self, subject: Subject) -> Result<u64> {
        Ok(self.stores.campaign(subject.coupon).await?.issued.into())
    }

    /// Waits until nothing is on the stream.
    pub async fn until_drained(&self, subject: Subject) -> Result<()> {
        let every = Duration::from_millis(20);
        waiting::until("an empty stream", DRAIN_LIMIT, every, async || {
            Ok(self.stores.backlog(subject.partition).await? == 0)
        })
        .await
    }

    /// Bytes that Redis uses.
    pub async fn redis_memory(&self) -> Result<u64> {
        let answer = self.stores.redis.client().info(Some(InfoKind::Memory)).await;
        let info: String = answer.context("INFO memory")?;
        let used = info.lines().find_map(|line| line.strip_prefix("used_memory:")?.trim().parse().ok());
        used.context("INFO memory names no used_memory")
    }

    /// Removes a campaign and what it left, once the worker is stopped.
    pub async fn retire(&self, Subject { coupon, partition }: Subject) -> Result<()> {
        let (client, keys) = (self.stores.redis.client(), &self.stores.redis.keys);
        let pool = self.stores.database.pool();
        // The database first: a worker makes a campaign again that only Redis has lost.
        for table in ["user_coupons", "claim_rejections", "coupons"] {
            delete_rows(pool, table, coupon).await?;
        }
        let campaign = vec![keys.campaign(partition, coupon), keys.claims(partition, coupon)];
        client.unlink::<(), _>(campaign).await.context("removing a campaign from Redis")?;
        let trimmed = client.xtrim::<(), _, _>(keys.claim_stream(partition), ("MAXLEN", "=", 0)).await;
        trimmed.context("emptying a stream")?;
        until_purged(pool).await;
        Ok(())
    }

    /// Stops everything.
    pub async fn stop(mut self) -> Result<()> {
        self.stack.stop().await?;
        self.bare.stop().await?;
        self.stores.database.close().await;
        self.stores.redis.close().await;
        drop(self.folder);
        Ok(())
    }
}

async fn delete_rows(pool: &MySqlPool, table: &str, coupon: CouponId) -> Result<()> {
    loop {
        let sql = AssertSqlSafe(format!("DELETE FROM {table} WHERE coupon_id = ? LIMIT {ROWS_AT_ONCE}"));
        let deleted = sqlx::query(sql).bind(coupon.get()).execute(pool).await.context("removing rows")?;
        if deleted.rows_affected() < ROWS_AT_ONCE.into() {
            return Ok(());
        }
    }
}

/// Waits until the database has done with deleted rows, which it removes behind our back; for a while, since it may
/// not let us see.
async fn until_purged(pool: &MySqlPool) {
    let every = Duration::from_millis(200);
    let purged = waiting::until("purged rows", PURGE_LIMIT, every, async || {
        let left: i64 = sqlx::query_scalar(
            "SELECT CAST(`count` AS SIGNED) FROM information_schema.innodb_metrics WHERE name = 'trx_rseg_history_len'",
        )
        .fetch_one(pool)
        .await
        .context("the length of the history")?;
        Ok(left < 100)
    });
    if let Err(failure) = purged.await {
        output::note(&format!("rows removed from the database may still cost time: {failure}"));
    }
}
