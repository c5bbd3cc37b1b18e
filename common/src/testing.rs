//! For tests: real servers, and an environment of its own on them for each test.
//!
//! Servers come from `DATABASE_URL` and `REDIS_URL` when these are set, else from containers that all tests of a
//! machine share. An environment is a database and a key prefix; nothing is ever flushed.

pub mod commands;
mod consistency;
mod containers;
mod faults;
mod galera;
mod log_capture;
mod redis_cluster;
mod redis_sentinels;
mod redis_server;
mod sales;
mod saved_rows;
mod switching_proxy;

use std::{
    future::Future,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use clap::Parser;
use consistency::CONSISTENCY_QUERIES;
pub use faults::{panicking_supervisor, was_restarted};
use fred::{
    interfaces::{KeysInterface as _, StreamsInterface as _},
    types::scan::Scanner as _,
};
use futures::TryStreamExt as _;
pub use galera::Galera;
pub use log_capture::{LogCapture, LogLine};
pub use redis_cluster::RedisCluster;
pub use redis_sentinels::RedisSentinels;
pub use redis_server::RedisServer;
pub use sales::expect_windows_of_days;
pub use saved_rows::SavedRows;
use secrecy::ExposeSecret as _;
use sqlx::{Connection as _, Executor as _, MySqlConnection};
pub use switching_proxy::SwitchingProxy;
use tokio::net::TcpListener;

pub use crate::fault_proxy::{FaultProxy, MessageFault, Struck};
use crate::{
    assignments::{self, NewAssignment, UserList},
    clock,
    config::Settings,
    db::{self, Database, assignments::users::ListUser},
    domain::{
        admin_action::ActionContext,
        assignment::Assignment,
        assignment_rules::AssignmentRules,
        campaign::{Campaign, CampaignState, CampaignTerms},
        product::{ProductStatus, ProductTerms},
    },
    identifiers::{AssignmentId, CouponId, Partition, ProductId, UserId, new_uuid},
    redis::{
        Redis,
        keys::{ISSUANCE_GROUP, ORDERS_GROUP},
        scripts::{CampaignCounts, campaign_put},
    },
};

/// Without a budget and an approval.
pub const ASSIGNMENT_RULES: AssignmentRules = AssignmentRules {
    daily_budget: u32::MAX,
    approval_threshold: u32::MAX,
    approval_timeout: chrono::TimeDelta::hours(1),
    time_zone: chrono_tz::Asia::Seoul,
};

/// A database and a key prefix of its own.
pub struct TestEnvironment {
    pub settings: Settings,
    /// The database, migrated and empty.
    pub database: Database,
    pub redis: Redis,
    name: String,
    redis_was_lost: AtomicBool,
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

impl TestEnvironment {
    /// With one partition.
    pub async fn new() -> Self {
        Self::with_partitions(1).await
    }

    pub async fn with_partitions(partitions: u16) -> Self {
        // Boxed: a large future would make that of every test large.
        let (database_url, redis_url) = Box::pin(servers()).await;
        Box::pin(Self::on(&database_url, &redis_url, partitions)).await
    }

    /// With another database server, at a URL that names any database.
    pub async fn on_database(database_url: &str) -> Self {
        let (_, redis_url) = Box::pin(servers()).await;
        Box::pin(Self::on(database_url, &redis_url, 1)).await
    }

    async fn on(database_url: &str, redis_url: &str, partitions: u16) -> Self {
        let name = format!("dibs_test_{}", new_uuid().simple());
        let (server, rest) = database_url.rsplit_once('/').expect("a URL that names a database");
        let parameters = rest.split_once('?').map_or(String::new(), |(_, parameters)| format!("?{parameters}"));
        // Whatever database the URL names.
        execute(&format!("{server}/{parameters}"), &format!("CREATE DATABASE {name} CHARACTER SET utf8mb4")).await;
        let settings = settings(&format!("{server}/{name}{parameters}"), redis_url, &format!("{name}:"), partitions);
        let database = settings.database(16).expect("a pool");
        database.migrate().await.expect("migrated");
        let redis = settings.redis(2).await.expect("redis");
        Self { settings, database, redis, name, redis_was_lost: AtomicBool::new(false) }
    }

    /// Settings that lead to the same servers through proxies: to the database, and to Redis.
    pub async fn behind_proxies(&self) -> (Settings, FaultProxy, FaultProxy) {
        let database_url = self.settings.database_url.expose_secret();
        let redis_url = self.settings.redis_url.expose_secret();
        let (database_proxy, mut database_url) = FaultProxy::before(database_url).await.expect("a proxy");
        // Without TLS, so that the proxy can see what passes.
        if !database_url.contains("ssl-mode") {
            database_url.push_str(if database_url.contains('?') { "&" } else { "?" });
            database_url.push_str("ssl-mode=DISABLED");
        }
        let (redis_proxy, redis_url) = FaultProxy::before(redis_url).await.expect("a proxy");
        let partitions = self.settings.claim_partitions;
        let settings = settings(&database_url, &redis_url, &self.settings.redis_key_prefix, partitions);
        (settings, database_proxy, redis_proxy)
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

    /// A campaign that Redis does not hold yet.
    pub async fn campaign_in_database(&self, terms: CampaignTerms) -> Campaign {
        let partition = self.settings.choose_partition();
        let mut connection = self.database.pool().acquire().await.expect("a connection");
        let created = db::campaigns::create(&mut connection, &terms, partition, new_uuid(), clock::now()).await;
        let db::campaigns::CreatedCampaign { id, partition, epoch, .. } = created.expect("created");
        Campaign {
            id,
            terms,
            partition,
            state: CampaignState::Active,
            revision: 1,
            issued: 0,
            revoked: 0,
            rejected: 0,
            epoch,
            enforced_since: None,
        }
    }

    pub async fn product(&self, price: i64, stock: i64) -> ProductId {
        let name = "커피 'Guji' \\ 200 g".into();
        let terms = ProductTerms { name, price, stock, status: ProductStatus::Selling, payment_required: false };
        db::products::create(&self.database, &terms, &action()).await.expect("created").id
    }

    /// Credits points to a user, as an approved charge does.
    pub async fn points(&self, user: u64, amount: i64) {
        let sql = format!(
            "INSERT INTO point_accounts (user_id, balance, created_at, updated_at) VALUES ({user}, {amount}, NOW(3), NOW(3)); \
             INSERT INTO point_histories (user_id, type, amount, balance_after, reference_id, created_at) \
             VALUES ({user}, 'CHARGE', {amount}, {amount}, UNHEX(REPLACE(UUID(), '-', '')), NOW(3))"
        );
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&self.database.pool()).await.expect("charged");
    }

    /// An assignment of the coupon to users, in this order.
    pub async fn assign(&self, coupon: CouponId, users: impl IntoIterator<Item = u64>) -> Assignment {
        let user = |id| ListUser::new(UserId::try_from(id).expect("an id"));
        let users: Vec<ListUser> = users.into_iter().map(user).collect();
        let (id, requested) = (AssignmentId::generate(), u32::try_from(users.len()).expect("a number"));
        let list = UserList::Whole(&users);
        let new = NewAssignment { id, coupon, key: &id.into(), requested, list, list_hash: &[0; 32] };
        let created = assignments::create(&self.database, new, &ASSIGNMENT_RULES, &action()).await;
        created.expect("an assignment").state.assignment
    }

    pub async fn execute(&self, sql: &str) {
        self.database.pool().execute(sqlx::AssertSqlSafe(sql.to_owned())).await.expect("executed");
    }

    /// The rows of a query with one column of text.
    pub async fn texts(&self, sql: &str) -> Vec<String> {
        sqlx::query_scalar(sqlx::AssertSqlSafe(sql.to_owned())).fetch_all(&self.database.pool()).await.expect("texts")
    }

    /// The invariants that rows alone can show: I2, I5, I6, I7, I8.
    pub async fn expect_consistent_rows(&self) {
        for (invariant, sql) in CONSISTENCY_QUERIES {
            assert_eq!(self.count(sql).await, 0, "{invariant}");
        }
    }

    /// The number that a query returns.
    pub async fn count(&self, sql: &str) -> i64 {
        // Sums are decimals and columns unsigned; a count is neither.
        let sql = sqlx::AssertSqlSafe(format!("SELECT CAST(({sql}) AS SIGNED)"));
        sqlx::query_scalar(sql).fetch_one(&self.database.pool()).await.expect("a count")
    }

    /// Expects that each query returns its number.
    pub async fn expect_counts<const N: usize>(&self, expected: [(&str, i64); N]) {
        for (sql, number) in expected {
            assert_eq!(self.count(sql).await, number, "{sql}");
        }
    }

    pub async fn stream_length(&self, stream: &str) -> i64 {
        self.redis.client().xlen(stream).await.expect("a length")
    }

    pub async fn keys(&self) -> Vec<String> {
        let mut pages = Box::pin(self.redis.client().scan(format!("{}:*", self.name), Some(1000), None));
        let mut keys = Vec::new();
        while let Some(mut page) = pages.try_next().await.expect("a page of keys") {
            keys.extend(page.take_results().unwrap_or_default().into_iter().filter_map(fred::types::Key::into_string));
            page.next();
        }
        keys
    }

    /// Lets Redis lose all keys of this test, like a restart without data. [`Self::end`] compares the rows of MySQL
    /// then.
    pub async fn lose_redis(&self) {
        self.redis_was_lost.store(true, Ordering::Relaxed);
        self.delete_keys().await;
    }

    async fn delete_keys(&self) {
        let keys = self.keys().await;
        if !keys.is_empty() {
            self.redis.client().del::<(), _>(keys).await.expect("deleted");
        }
    }

    /// Ends the test. Fails when it leaves something behind: an entry on a stream, a dead letter, a pending delivery,
    /// an open transaction, and after a loss of Redis inconsistent rows.
    pub async fn end(self) {
        self.expect_drained_streams().await;
        if self.redis_was_lost.load(Ordering::Relaxed) {
            // What was on the streams is lost. What was durable must be whole all the same.
            self.expect_consistent_rows().await;
        }
        let open = "SELECT COUNT(*) FROM dead_letters WHERE source IN ('claims', 'commands') \
                    AND status IN ('DEAD', 'REDRIVE')";
        assert_eq!(self.count(open).await, 0, "dead letters of claims or commands were left");
        self.delete_keys().await;
        // The pool is still open: a transaction that a test left open in it keeps its tables from being dropped.
        let drop = format!("SET SESSION lock_wait_timeout = 5; DROP DATABASE {}", self.name);
        execute(self.settings.database_url.expose_secret(), &drop).await;
        self.database.close().await;
        self.redis.close().await;
    }

    /// Ends the test, and fails when rows contradict each other.
    pub async fn end_consistent(self) {
        self.expect_consistent_rows().await;
        self.end().await;
    }

    async fn expect_drained_streams(&self) {
        let client = self.redis.client();
        for key in self.keys().await {
            let group = [("}:claims", ISSUANCE_GROUP), ("}:orders", ORDERS_GROUP)];
            let group = group.into_iter().find(|(stream, _)| key.ends_with(stream)).map(|(_, group)| group);
            if group.is_some() {
                assert_eq!(self.stream_length(&key).await, 0, "entries were left on {key}");
            }
            if let Some(group) = group {
                // XPENDING of a stream that has no group is an error, and no delivery is pending then.
                let groups: Vec<fred::types::Value> = client.xinfo_groups(&key).await.expect("the groups of a stream");
                if groups.is_empty() {
                    continue;
                }
                let pending: fred::types::Value = client.xpending(&key, group, ("-", "+", 10)).await.expect("pending");
                assert_eq!(pending.into_array().len(), 0, "deliveries were left pending on {key}");
            }
        }
    }
}

async fn execute(url: &str, sql: &str) {
    let mut connection = MySqlConnection::connect(url).await.expect("a connection to the database");
    connection.execute(sqlx::AssertSqlSafe(sql)).await.expect("executed");
    connection.close().await.expect("closed");
}

/// A campaign of ten coupons for the next hour, one for each user.
pub fn open_terms() -> CampaignTerms {
    let now = clock::now();
    CampaignTerms::example(now - chrono::TimeDelta::minutes(1), now + chrono::TimeDelta::hours(1))
}

pub const FIRST: Partition = Partition(0);

/// A handle of metrics without a recorder.
/// The context of a new action of an administrator.
pub fn action() -> ActionContext {
    ActionContext::of_process("test", new_uuid(), clock::now())
}

/// A recorder of metrics that counts nothing.
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

/// Serves a router on a free port until the runtime ends. Returns the URL without a path.
pub async fn serve_router(router: axum::Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

/// URLs of the database server and of Redis.
async fn servers() -> (String, String) {
    match (std::env::var("DATABASE_URL"), std::env::var("REDIS_URL")) {
        (Ok(database), Ok(redis)) => (database, redis),
        _ => containers::shared().await,
    }
}
