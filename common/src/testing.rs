//! For tests: real servers, and a place of its own on them for each test.
//!
//! Servers come from `DATABASE_URL` and `REDIS_URL` when these are set, else from containers that all tests of a
//! machine share. A place is a database and a key prefix; nothing is ever flushed.

mod containers;
mod gate;

use std::{future::Future, time::Duration};

use clap::Parser;
use fred::{
    interfaces::{KeysInterface as _, StreamsInterface as _},
    types::scan::Scanner as _,
};
use futures::TryStreamExt as _;
pub use gate::Gate;
use secrecy::ExposeSecret as _;
use sqlx::{Connection as _, Executor as _, MySqlConnection};

use crate::{
    clock,
    config::Settings,
    db::{self, Database},
    domain::campaign::{Campaign, CampaignState, CampaignTerms, Discount, DiscountType, Validity},
    identifiers::new_uuid,
    keys::{ISSUANCE_GROUP, Partition},
    redis::Redis,
    scripts::{CampaignCounts, campaign_put},
};

/// A database and a key prefix of its own.
pub struct Place {
    /// Settings that lead there.
    pub settings: Settings,
    /// The database, migrated and empty.
    pub database: Database,
    /// Redis, with the prefix.
    pub redis: Redis,
    name: String,
}

#[derive(Parser)]
struct Given {
    #[command(flatten)]
    settings: Settings,
}

fn settings(database_url: &str, redis_url: &str, prefix: &str, partitions: u16) -> Settings {
    let partitions = partitions.to_string();
    let given = Given::try_parse_from([
        "test",
        "--database-url",
        database_url,
        "--redis-url",
        redis_url,
        "--redis-key-prefix",
        prefix,
        "--claim-partitions",
        &partitions,
    ]);
    given.expect("the settings of a test").settings
}

impl Place {
    /// A new place, with one partition.
    pub async fn new() -> Self {
        Self::with_partitions(1).await
    }

    /// A new place.
    pub async fn with_partitions(partitions: u16) -> Self {
        let (database_url, redis_url) = servers().await;
        let name = format!("dibs_test_{}", new_uuid().simple());
        let (server, rest) = database_url.rsplit_once('/').expect("a URL that names a database");
        let parameters = rest.split_once('?').map_or(String::new(), |(_, parameters)| format!("?{parameters}"));
        execute(&database_url, &format!("CREATE DATABASE {name} CHARACTER SET utf8mb4")).await;
        let settings = settings(&format!("{server}/{name}{parameters}"), &redis_url, &format!("{name}:"), partitions);
        let database = settings.database(16).expect("a pool");
        database.migrate().await.expect("migrated");
        let redis = settings.redis(2).await.expect("redis");
        Self { settings, database, redis, name }
    }

    /// The same place, seen through gates that can be shut: on the way to the database, and to Redis.
    pub async fn gated(&self) -> (Settings, Gate, Gate) {
        let database_url = self.settings.database_url.expose_secret();
        let redis_url = self.settings.redis_url.expose_secret();
        let (database_gate, database_url) = Gate::before(database_url).await;
        let (redis_gate, redis_url) = Gate::before(redis_url).await;
        let partitions = self.settings.claim_partitions;
        let settings = settings(&database_url, &redis_url, &self.settings.redis_key_prefix, partitions);
        (settings, database_gate, redis_gate)
    }

    /// A campaign that is open, in the database and in Redis.
    pub async fn campaign(&self, total_quantity: u32) -> Campaign {
        self.campaign_of(CampaignTerms { total_quantity, ..open_terms() }).await
    }

    /// A campaign of these terms, in the database and in Redis.
    pub async fn campaign_of(&self, terms: CampaignTerms) -> Campaign {
        let campaign = self.campaign_in_database(terms).await;
        campaign_put(&self.redis, &campaign, CampaignCounts::default()).await.expect("known to redis");
        campaign
    }

    /// A campaign that Redis does not know yet.
    pub async fn campaign_in_database(&self, terms: CampaignTerms) -> Campaign {
        let partition = self.settings.choose_partition();
        let created = db::create_campaign(self.database.pool(), &terms, partition, clock::now()).await;
        let id = created.expect("created");
        Campaign { id, terms, partition, state: CampaignState::Active, issued: 0, rejected: 0 }
    }

    /// The answer of a query that counts.
    pub async fn count(&self, sql: &str) -> i64 {
        // Sums are decimals and columns unsigned; a count is neither.
        let sql = sqlx::AssertSqlSafe(format!("SELECT CAST(({sql}) AS SIGNED)"));
        sqlx::query_scalar(sql).fetch_one(self.database.pool()).await.expect("a count")
    }

    /// Does something to the database that no part of Dibs does.
    pub async fn execute(&self, sql: &str) {
        let sql = sqlx::AssertSqlSafe(sql.to_owned());
        sqlx::query(sql).execute(self.database.pool()).await.expect("executed");
    }

    /// Every key of this place.
    pub async fn keys(&self) -> Vec<String> {
        let mut pages = Box::pin(self.redis.client().scan(format!("{}:*", self.name), Some(1000), None));
        let mut keys = Vec::new();
        while let Some(mut page) = pages.try_next().await.expect("a page of keys") {
            keys.extend(page.take_results().unwrap_or_default().into_iter().filter_map(fred::types::Key::into_string));
            page.next();
        }
        keys
    }

    /// Lets Redis lose everything of this place, as after a restart without data.
    pub async fn lose_redis(&self) {
        let keys = self.keys().await;
        if !keys.is_empty() {
            self.redis.client().del::<(), _>(keys).await.expect("deleted");
        }
    }

    /// Ends the place. Fails when a test leaves something behind: an entry on a stream, a dead letter, a pending
    /// delivery, an open transaction.
    pub async fn end(self) {
        for key in self.keys().await {
            if key.ends_with("}:claims") || key.ends_with(":dead") {
                let left: u64 = self.redis.client().xlen(&key).await.expect("a length");
                assert_eq!(left, 0, "entries were left on {key}");
            }
            if key.ends_with("}:claims") {
                let pending: fred::types::Value = self
                    .redis
                    .client()
                    .xpending(&key, ISSUANCE_GROUP, ("-", "+", 10))
                    .await
                    .unwrap_or(fred::types::Value::Null);
                assert_eq!(pending.into_array().len(), 0, "deliveries were left pending on {key}");
            }
        }
        self.lose_redis().await;
        // The pool is still there, so a transaction that was left open in it would keep its tables from going.
        let drop = format!("SET SESSION lock_wait_timeout = 5; DROP DATABASE {}", self.name);
        execute(self.settings.database_url.expose_secret(), &drop).await;
        self.database.close().await;
        self.redis.close().await;
    }
}

async fn execute(url: &str, sql: &str) {
    let mut connection = MySqlConnection::connect(url).await.expect("a connection to the database");
    connection.execute(sqlx::AssertSqlSafe(sql)).await.expect("executed");
    connection.close().await.expect("closed");
}

/// Ten coupons for the next hour, one a user.
pub fn open_terms() -> CampaignTerms {
    let now = clock::now();
    CampaignTerms {
        name: "autumn".into(),
        discount: Discount { kind: DiscountType::Fixed, value: 1000, max_amount: None },
        minimum_order_amount: 0,
        total_quantity: 10,
        per_user_limit: 1,
        opens_at: now - chrono::TimeDelta::minutes(1),
        closes_at: now + chrono::TimeDelta::hours(1),
        validity: Validity::Days(30),
    }
}

/// A partition that every test place has.
pub const FIRST: Partition = Partition(0);

/// Metrics that are gathered nowhere.
pub fn no_metrics() -> metrics_exporter_prometheus::PrometheusHandle {
    metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder().handle()
}

/// Waits until `condition` holds; fails after `limit` with what was waited for.
pub async fn eventually<F: Future<Output = bool>>(what: &str, limit: Duration, mut condition: impl FnMut() -> F) {
    let deadline = tokio::time::Instant::now() + limit;
    while !condition().await {
        assert!(tokio::time::Instant::now() < deadline, "not within {limit:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// URLs of the database server and of Redis.
async fn servers() -> (String, String) {
    match (std::env::var("DATABASE_URL"), std::env::var("REDIS_URL")) {
        (Ok(database), Ok(redis)) => (database, redis),
        _ => containers::shared().await,
    }
}
