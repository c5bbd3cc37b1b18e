//! For tests: real servers, and a place of its own on them for each test.
//!
//! Servers come from `DATABASE_URL` and `REDIS_URL` when these are set, else from containers that all tests of a
//! machine share. A place is a database and a key prefix; nothing is ever flushed.

mod containers;
mod fault_proxy;
mod faults;
mod log_capture;

use std::{future::Future, time::Duration};

use clap::Parser;
pub use fault_proxy::FaultProxy;
pub use faults::{panicking_supervisor, was_restarted};
use fred::{
    interfaces::{KeysInterface as _, StreamsInterface as _},
    types::scan::Scanner as _,
};
use futures::TryStreamExt as _;
pub use log_capture::{LogCapture, LogLine};
use secrecy::ExposeSecret as _;
use sqlx::{Connection as _, Executor as _, MySqlConnection};

use crate::{
    clock,
    config::Settings,
    db::{self, Database},
    domain::{
        campaign::{Campaign, CampaignState, CampaignTerms, Discount, DiscountType, Validity},
        product::{ProductStatus, ProductTerms},
    },
    identifiers::{Partition, ProductId, new_uuid},
    redis::{
        Redis,
        keys::{ISSUANCE_GROUP, ORDERS_GROUP},
        scripts::{CampaignCounts, campaign_put},
    },
};

/// A database and a key prefix of its own.
pub struct TestEnvironment {
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

impl TestEnvironment {
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
    pub async fn gated(&self) -> (Settings, FaultProxy, FaultProxy) {
        let database_url = self.settings.database_url.expose_secret();
        let redis_url = self.settings.redis_url.expose_secret();
        let (database_gate, database_url) = FaultProxy::before(database_url).await;
        let (redis_gate, redis_url) = FaultProxy::before(redis_url).await;
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
        let created = db::campaigns::create(self.database.pool(), &terms, partition, new_uuid(), clock::now()).await;
        let db::campaigns::CreatedCampaign { id, partition, .. } = created.expect("created");
        Campaign { id, terms, partition, state: CampaignState::Active, issued: 0, rejected: 0 }
    }

    /// A product that is for sale.
    pub async fn product(&self, price: i64, stock: i64) -> ProductId {
        let name = "커피 'Guji' \\ 200 g".into();
        let terms = ProductTerms { name, price, stock, status: ProductStatus::Selling };
        db::products::create(&self.database, &terms, new_uuid(), clock::now()).await.expect("created").id
    }

    /// Points in a user's hands, as a charge leaves them.
    pub async fn points(&self, user: u64, amount: i64) {
        let sql = format!(
            "INSERT INTO point_accounts (user_id, balance, created_at, updated_at) VALUES ({user}, {amount}, NOW(3), NOW(3)); \
             INSERT INTO point_histories (user_id, type, amount, balance_after, reference_id, created_at) \
             VALUES ({user}, 'CHARGE', {amount}, {amount}, UNHEX(REPLACE(UUID(), '-', '')), NOW(3))"
        );
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(self.database.pool()).await.expect("charged");
    }

    /// Does something to the database.
    pub async fn execute(&self, sql: &str) {
        self.database.pool().execute(sqlx::AssertSqlSafe(sql.to_owned())).await.expect("executed");
    }

    /// The texts that a query answers.
    pub async fn texts(&self, sql: &str) -> Vec<String> {
        sqlx::query_scalar(sqlx::AssertSqlSafe(sql.to_owned())).fetch_all(self.database.pool()).await.expect("texts")
    }

    /// I5, I6 and I7 on the rows, whatever was done to them.
    pub async fn expect_books_in_order(&self) {
        for (what, sql) in BOOKS {
            assert_eq!(self.count(sql).await, 0, "{what}");
        }
    }

    /// The answer of a query that counts.
    pub async fn count(&self, sql: &str) -> i64 {
        // Sums are decimals and columns unsigned; a count is neither.
        let sql = sqlx::AssertSqlSafe(format!("SELECT CAST(({sql}) AS SIGNED)"));
        sqlx::query_scalar(sql).fetch_one(self.database.pool()).await.expect("a count")
    }

    pub async fn stream_length(&self, stream: &str) -> i64 {
        self.redis.client().xlen(stream).await.expect("a length")
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
            let group = [("}:claims", ISSUANCE_GROUP), ("}:orders", ORDERS_GROUP)];
            let group = group.into_iter().find(|(stream, _)| key.ends_with(stream)).map(|(_, group)| group);
            if group.is_some() {
                let left: u64 = self.redis.client().xlen(&key).await.expect("a length");
                assert_eq!(left, 0, "entries were left on {key}");
            }
            if let Some(group) = group {
                let pending: fred::types::Value =
                    self.redis.client().xpending(&key, group, ("-", "+", 10)).await.unwrap_or(fred::types::Value::Null);
                assert_eq!(pending.into_array().len(), 0, "deliveries were left pending on {key}");
            }
        }
        let open = "SELECT COUNT(*) FROM dead_letters WHERE source IN ('claims', 'commands') \
                    AND status IN ('DEAD', 'REDRIVE')";
        assert_eq!(self.count(open).await, 0, "dead letters of claims or commands were left");
        self.lose_redis().await;
        // The pool is still there, so a transaction that was left open in it would keep its tables from going.
        let drop = format!("SET SESSION lock_wait_timeout = 5; DROP DATABASE {}", self.name);
        execute(self.settings.database_url.expose_secret(), &drop).await;
        self.database.close().await;
        self.redis.close().await;
    }
}

/// Rows that must not be, by invariant.
const BOOKS: [(&str, &str); 7] = [
    (
        "I5: units sold are those of the orders that were placed",
        "SELECT COUNT(*) FROM products p WHERE p.sold <> (SELECT COALESCE(SUM(i.quantity), 0) FROM order_items i \
         WHERE i.product_id = p.product_id)",
    ),
    (
        "I5: units given back are those of the orders that ended",
        "SELECT COUNT(*) FROM products p WHERE p.restored <> (SELECT COALESCE(SUM(i.quantity), 0) FROM order_items i \
         JOIN orders o ON o.order_id = i.order_id WHERE i.product_id = p.product_id AND o.status IN ('CANCELLED', 'EXPIRED'))",
    ),
    (
        "I6: a balance is the sum of its ledger",
        "SELECT COUNT(*) FROM point_accounts a WHERE a.balance <> (SELECT COALESCE(SUM(h.amount), 0) \
         FROM point_histories h WHERE h.user_id = a.user_id)",
    ),
    (
        "I7: an order comes to its items less the discount",
        "SELECT COUNT(*) FROM orders o WHERE o.status <> 'REJECTED' AND o.total_amount <> \
         (SELECT SUM(i.unit_price * i.quantity) FROM order_items i WHERE i.order_id = o.order_id)",
    ),
    (
        "I7: a paid order took its amount from its user, any other nothing",
        "SELECT COUNT(*) FROM orders o WHERE (SELECT COALESCE(SUM(h.amount), 0) FROM point_histories h \
         WHERE h.order_id = o.order_id AND h.user_id = o.user_id) <> \
         IF(o.status IN ('PAY_DONE', 'BUY_CONFIRM'), -o.pay_amount, 0)",
    ),
    (
        "I7: a coupon is USED while a live order has it, and only then",
        "SELECT COUNT(*) FROM user_coupons c LEFT JOIN orders o ON o.live_user_coupon_id = c.user_coupon_id \
         WHERE (c.status = 'USED') <> (o.order_id IS NOT NULL)",
    ),
    (
        "I8: a payment is what its order says",
        "SELECT COUNT(*) FROM payments p JOIN orders o ON o.order_id = p.order_id WHERE p.status <> 'FAIL' AND \
         (p.payment_id <> o.payment_id OR (p.status = 'CANCELLED') <> (o.status = 'CANCELLED'))",
    ),
];

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
