//! Orders of one hot product: processed by the worker, one in each transaction, and as plain multi-row statements.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use dibs_common::{
    clock,
    db::{self, Database},
    domain::{
        admin_action::ActionContext,
        order::{Action, Command, Line},
        product::{ProductStatus, ProductTerms},
    },
    identifiers::{CommandId, Partition, ProductId, UserId, new_uuid},
    redis::{Redis, scripts, streams::OrderEntry},
};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use hyper::StatusCode;
use tokio::{task::JoinSet, time::Instant};
use uuid::Uuid;

use super::{
    baseline_orders,
    client::{BenchRequest, Measurement, StopCondition, Target, closed_loop},
    harness::Harness,
    open_loop::{OpenLoad, open_loop},
    progress,
    rates::SamplingSettings,
};
use crate::{numbers::per_second, wait};

/// Connections of the comparison with one order in each transaction.
const CONNECTIONS: u32 = 32;
/// The default of `CLAIM_PARTITIONS`.
const PARTITIONS: u16 = 16;
const DRAIN_TIMEOUT: Duration = Duration::from_mins(10);
const OPEN_WARM_UP: Duration = Duration::from_secs(2);
/// More units than a bench can sell.
const UNLIMITED_STOCK: i64 = 1_000_000_000_000;
/// The first user of the comparison. Its users have thousands of unpaid orders each, unlike those of the worker.
const FIRST_COMPARED_USER: u64 = 1 << 40;

/// Orders a second of each round.
#[derive(Clone, Debug, Default)]
pub struct OrderRounds {
    /// By the worker, out of a backlog.
    pub worker: Vec<f64>,
    /// One order in each transaction, over 32 connections.
    pub single_orders: Vec<f64>,
    /// The worker's rows as plain statements of 500 orders, on one connection.
    pub baseline: Vec<f64>,
}

/// Creates a product that never sells out.
pub async fn hot_product(harness: &Harness) -> Result<ProductId> {
    let (name, stock, status) = ("Hot".into(), UNLIMITED_STOCK, ProductStatus::Selling);
    let terms = ProductTerms { name, price: 1_000, stock, status, payment_required: false };
    let created = db::products::create(
        &harness.stores.database,
        &terms,
        &ActionContext::of_process("dibs-loadtest bench", new_uuid(), clock::now()),
    )
    .await;
    Ok(created.context("creating a product")?.id)
}

/// Measures a round: single orders for the sampling time, a backlog of `orders`, and its rows as plain statements.
pub async fn measure(
    harness: &mut Harness,
    sampling: SamplingSettings,
    orders: u64,
    rounds: &mut OrderRounds,
) -> Result<()> {
    let product = hot_product(harness).await?;
    rounds.single_orders.push(place_single_orders(harness.connect(CONNECTIONS)?, product, sampling.time()).await?);

    let product = hot_product(harness).await?;
    let ids = enqueue(&harness.stores.redis, product, orders).await?;
    harness.launch_worker()?;
    let database = harness.stores.database.clone();
    let processed = async || sold(&database, product).await;
    rounds.worker.push(progress::processing_rate(harness, "processed orders", orders, processed).await?);
    until_drained(harness).await?;
    harness.stop_worker().await?;

    rounds.baseline.push(baseline_orders::insert(&harness.stores.database.pool(), product, &ids).await?);
    Ok(())
}

/// Puts the commands of so many orders on the streams, each of another user.
pub async fn enqueue(redis: &Redis, product: ProductId, orders: u64) -> Result<Vec<Uuid>> {
    const ENQUEUE_CONCURRENCY: usize = 256;
    let users = 1..=orders;
    stream::iter(users)
        .map(async |number| {
            let user = UserId::try_from(number).map_err(anyhow::Error::msg)?;
            let items = vec![Line { product_id: product, quantity: 1 }];
            let command = Command {
                id: CommandId::generate(),
                user,
                at: clock::now(),
                action: Action::Place { items, coupon: None, payment: None },
                trace: None,
            };
            let id = command.id.0;
            let stream = redis.keys.order_stream(Partition::of_user(user, PARTITIONS));
            let entry = OrderEntry { reply_channel: String::new(), request: String::new(), command };
            let fields = entry.fields().context("encoding a command")?;
            scripts::enqueue(redis, stream, u64::MAX / 2, fields).await.context("appending a command")?;
            Ok(id)
        })
        // Ordered, so that the ids are those of the users 1, 2, ..
        .buffered(ENQUEUE_CONCURRENCY)
        .try_collect()
        .await
}

pub async fn sold(database: &Database, product: ProductId) -> Result<u64> {
    let sold: i64 = sqlx::query_scalar("SELECT sold FROM products WHERE product_id = ?")
        .bind(product.get())
        .fetch_one(&database.pool())
        .await
        .context("reading the sold units")?;
    Ok(u64::try_from(sold).unwrap_or(0))
}

pub async fn until_drained(harness: &Harness) -> Result<()> {
    wait::until("empty order streams", DRAIN_TIMEOUT, Duration::from_millis(20), async || {
        Ok(harness.stores.commands_left().await?.waiting == 0)
    })
    .await
}

/// The usual implementation of a shop: lock the product, check, write and commit, for each order.
async fn place_single_orders(database: Database, product: ProductId, time: Duration) -> Result<f64> {
    let database = Arc::new(database);
    let began = Instant::now();
    let end = began + time;
    let mut clients = JoinSet::new();
    // As many clients as connections, so that none waits for the pool.
    for client in 0..u64::from(CONNECTIONS) {
        let database = Arc::clone(&database);
        clients.spawn(async move {
            let mut placed = 0;
            while Instant::now() < end {
                place_one(&database, product, FIRST_COMPARED_USER + client).await.context("placing a single order")?;
                placed += 1;
            }
            anyhow::Ok(placed)
        });
    }
    let mut placed = 0;
    while let Some(client) = clients.join_next().await {
        placed += client.context("joining a client of the comparison")??;
    }
    let rate = per_second(placed, began.elapsed());
    database.close().await;
    Ok(rate)
}

async fn place_one(database: &Database, product: ProductId, user: u64) -> dibs_common::Result<()> {
    db::retrying("place_single_order", || async {
        let (now, order) = (clock::now(), CommandId::generate().0);
        let mut transaction = database.begin().await?;
        let (name, price, stock): (String, i64, i64) =
            sqlx::query_as("SELECT name, price, stock FROM products WHERE product_id = ? FOR UPDATE")
                .bind(product.get())
                .fetch_one(&mut *transaction)
                .await?;
        // Any error will do: the product of the bench never sells out.
        if stock < 1 {
            return Err(sqlx::Error::RowNotFound);
        }
        sqlx::query("UPDATE products SET stock = stock - 1, sold = sold + 1, updated_at = ? WHERE product_id = ?")
            .bind(now)
            .bind(product.get())
            .execute(&mut *transaction)
            .await?;
        sqlx::query(
            "INSERT INTO orders (order_id, user_id, status, total_amount, discount_amount, pay_amount, created_at, \
             expires_at) VALUES (?, ?, 'DEPOSIT_WAIT', ?, 0, ?, ?, ?)",
        )
        .bind(order)
        .bind(user)
        .bind(price)
        .bind(price)
        .bind(now)
        .bind(now + chrono::TimeDelta::minutes(30))
        .execute(&mut *transaction)
        .await?;
        sqlx::query(
            "INSERT INTO order_items (order_id, product_id, name, unit_price, quantity) VALUES (?, ?, ?, ?, 1)",
        )
        .bind(order)
        .bind(product.get())
        .bind(&name)
        .bind(price)
        .execute(&mut *transaction)
        .await?;
        let payload = format!(r#"{{"orderId":"{order}","userId":{user},"productId":{product},"payAmount":{price}}}"#);
        sqlx::query(
            "INSERT INTO outbox_events (aggregate_type, aggregate_id, type, payload, created_at) \
             VALUES ('ORDER', ?, 'order.created', ?, ?)",
        )
        .bind(order.to_string())
        .bind(payload)
        .bind(now)
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await
    })
    .await
}

/// Orders through the API.
pub struct HttpOrderResults {
    /// The closed model: as many as possible.
    pub peak: Measurement,
    /// The open model at half of the peak rate.
    pub half_load: Measurement,
}

/// Measures orders over HTTP. Each response carries the outcome.
pub async fn measure_over_http(harness: &mut Harness, sampling: SamplingSettings) -> Result<HttpOrderResults> {
    let product = hot_product(harness).await?;
    harness.start_worker().await?;
    let target = order_target(harness, product);
    let stop = StopCondition::Time { warm_up: OPEN_WARM_UP, measured: sampling.time() };
    let peak = closed_loop(target, sampling.clients, stop).await?;
    until_drained(harness).await?;
    let load = OpenLoad { rate: peak.rate() / 2.0, warm_up: OPEN_WARM_UP, measured: sampling.time() };
    let half_load = open_loop(target, sampling.clients, load).await?;
    until_drained(harness).await?;
    harness.stop_worker().await?;
    Ok(HttpOrderResults { peak, half_load })
}

pub fn order_target(harness: &Harness, product: ProductId) -> Target {
    let (address, request) = (harness.api_address(), BenchRequest::Order { product });
    Target { address, request, first_user: 1, expected: StatusCode::CREATED }
}

#[cfg(test)]
mod tests {
    use dibs_common::testing::TestEnvironment;

    use super::*;

    #[tokio::test]
    async fn i5_single_orders_and_plain_statements_write_the_same_kinds_of_rows() {
        let environment = TestEnvironment::new().await;
        let product = environment.product(1_000, 100).await;
        for user in 1..=3 {
            place_one(&environment.database, product, user).await.expect("placed");
        }
        assert_eq!(sold(&environment.database, product).await.expect("units"), 3);
        environment.expect_consistent_rows().await;
        assert_eq!(environment.count("SELECT COUNT(*) FROM outbox_events WHERE type = 'order.created'").await, 3);
        let pool = &environment.database.pool();
        let orders: Vec<Uuid> =
            sqlx::query_scalar("SELECT order_id FROM orders").fetch_all(pool).await.expect("orders");
        assert!(baseline_orders::insert(pool, product, &orders).await.expect("inserted") > 0.0);
        let missing = baseline_orders::insert(pool, product, &orders[1..]).await.expect_err("another number");
        assert_eq!(missing.to_string(), "found 3 orders, expected 2");
        environment.end().await;
    }

    #[tokio::test]
    async fn a_sold_out_product_ends_the_comparison() {
        let environment = TestEnvironment::new().await;
        let product = environment.product(1_000, 1).await;
        place_one(&environment.database, product, 1).await.expect("placed");
        assert!(place_one(&environment.database, product, 2).await.is_err());
        assert_eq!(sold(&environment.database, product).await.expect("units"), 1);
        environment.end().await;
    }

    #[tokio::test]
    async fn commands_are_enqueued_for_as_many_users() {
        let environment = TestEnvironment::with_partitions(PARTITIONS).await;
        let product = environment.product(1_000, 100).await;
        let ids = enqueue(&environment.redis, product, 20).await.expect("enqueued");
        let mut entries = 0;
        for partition in (0..PARTITIONS).map(Partition) {
            entries += environment.stream_length(&environment.redis.keys.order_stream(partition)).await;
        }
        let distinct: std::collections::HashSet<Uuid> = ids.into_iter().collect();
        assert_eq!((distinct.len(), entries), (20, 20));
        environment.lose_redis().await;
        environment.end().await;
    }
}
