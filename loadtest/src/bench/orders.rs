//! Orders on one hot product: through the worker, one a transaction, and as bare multi-row statements.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result, bail};
use dibs_common::{
    clock,
    db::{self, Database},
    domain::{
        order::{Action, Command, Line},
        product::{ProductStatus, ProductTerms},
    },
    identifiers::{CommandId, Partition, ProductId, UserId, new_uuid},
    redis::{Redis, scripts, streams::OrderEntry},
};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use hyper::StatusCode;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};
use uuid::Uuid;

use super::{
    bare_orders,
    client::{Call, ClientPool, Extent, Measured, Target, closed_loop},
    harness::Harness,
    open_loop::open_loop,
    rates::Manner,
};
use crate::{latency::Latencies, numbers::per_second, waiting};

/// The connections of what is compared with.
const CONNECTIONS: u32 = 32;
/// What the stack is started with; see `CLAIM_PARTITIONS`.
const PARTITIONS: u16 = 16;
const LIMIT: Duration = Duration::from_mins(10);
const LOOK_EVERY: Duration = Duration::from_millis(5);
const OPEN_WARM_UP: Duration = Duration::from_secs(2);
/// More than any bench sells.
const ENDLESS: i64 = 1_000_000_000_000;

/// What the rounds gave, orders a second.
#[derive(Clone, Debug, Default)]
pub struct OrderRounds {
    /// Out of a backlog, by the worker.
    pub worker: Vec<f64>,
    /// One order a transaction, over 32 connections.
    pub one_at_a_time: Vec<f64>,
    /// The same rows as bare statements of 500 rows, on one connection.
    pub bare: Vec<f64>,
}

/// A product that never runs out.
async fn hot_product(rig: &Harness) -> Result<ProductId> {
    let terms = ProductTerms { name: "Hot".into(), price: 1_000, stock: ENDLESS, status: ProductStatus::Selling };
    let made = db::products::create(&rig.stores.database, &terms, new_uuid(), clock::now()).await;
    Ok(made.context("making a product")?.id)
}

/// One round: one at a time for `manner`'s time, then a backlog of `orders`, then the rows of it barely.
pub async fn measure(rig: &mut Harness, manner: Manner, orders: u64, rounds: &mut OrderRounds) -> Result<()> {
    let product = hot_product(rig).await?;
    rounds.one_at_a_time.push(one_at_a_time(rig.connect(CONNECTIONS)?, product, manner.time()).await?);

    let product = hot_product(rig).await?;
    let ids = fill(&rig.stores.redis, product, orders).await?;
    rig.launch_worker()?;
    rounds.worker.push(watch(rig, product, orders).await?);
    until_drained(rig).await?;
    rig.stop_worker().await?;

    rounds.bare.push(bare_orders::insert(rig.stores.database.pool(), product, &ids).await?);
    Ok(())
}

/// Puts so many commands on the streams, each of a user of its own.
async fn fill(redis: &Redis, product: ProductId, orders: u64) -> Result<Vec<Uuid>> {
    const AT_ONCE: usize = 256;
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
            };
            let id = command.id.0;
            let stream = redis.keys.order_stream(Partition::of_user(user, PARTITIONS));
            let entry = OrderEntry { answers: String::new(), request: String::new(), command };
            let fields = entry.fields().context("writing a command")?;
            scripts::enqueue(redis, stream, u64::MAX / 2, fields).await.context("putting a command on its stream")?;
            Ok(id)
        })
        .buffered(AT_ONCE)
        .try_collect()
        .await
}

async fn sold(database: &Database, product: ProductId) -> Result<u64> {
    let sold: i64 = sqlx::query_scalar("SELECT sold FROM products WHERE product_id = ?")
        .bind(product.get())
        .fetch_one(database.pool())
        .await
        .context("reading what was sold")?;
    Ok(u64::try_from(sold).unwrap_or(0))
}

/// Orders a second from the first commit seen to the last.
async fn watch(rig: &mut Harness, product: ProductId, orders: u64) -> Result<f64> {
    let end = Instant::now() + LIMIT;
    let mut first = None;
    loop {
        let done = sold(&rig.stores.database, product).await?;
        let now = Instant::now();
        if done > 0 && first.is_none() {
            first = Some((done, now));
        }
        if let (Some((before, moment)), true) = (first, done >= orders) {
            return Ok(per_second(done - before, now - moment));
        }
        if now >= end {
            bail!("{done} of {orders} orders in {} s", LIMIT.as_secs());
        }
        rig.expect_alive()?;
        sleep(LOOK_EVERY).await;
    }
}

async fn until_drained(rig: &Harness) -> Result<()> {
    waiting::until("empty streams of commands", LIMIT, Duration::from_millis(20), async || {
        Ok(rig.stores.commands_left().await?.waiting == 0)
    })
    .await
}

/// What a shop does today: lock the product, check, write, commit, for each order.
async fn one_at_a_time(database: Database, product: ProductId, time: Duration) -> Result<f64> {
    let database = Arc::new(database);
    let began = Instant::now();
    let end = began + time;
    let mut clients = JoinSet::new();
    for client in 0..u64::from(CONNECTIONS) {
        let database = Arc::clone(&database);
        clients.spawn(async move {
            let mut placed = 0;
            while Instant::now() < end {
                place_one(&database, product, client + 1).await.context("an order of its own transaction")?;
                placed += 1;
            }
            anyhow::Ok(placed)
        });
    }
    let mut placed = 0;
    while let Some(client) = clients.join_next().await {
        placed += client.context("a client of the comparison")??;
    }
    let rate = per_second(placed, began.elapsed());
    database.close().await;
    Ok(rate)
}

async fn place_one(database: &Database, product: ProductId, user: u64) -> dibs_common::Result<()> {
    db::retrying("one order a transaction", || async {
        let (now, order) = (clock::now(), CommandId::generate().0);
        let mut transaction = database.begin().await?;
        let (name, price, stock): (String, i64, i64) =
            sqlx::query_as("SELECT name, price, stock FROM products WHERE product_id = ? FOR UPDATE")
                .bind(product.get())
                .fetch_one(&mut *transaction)
                .await?;
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

/// Orders through the API: as fast as they go, and what half of that costs a caller.
pub struct OverHttp {
    /// As fast as they go.
    pub peak: Measured,
    /// Half of that, in the open model.
    pub half: Measured,
}

/// Orders over HTTP, each answered with its outcome.
pub async fn measure_over_http(rig: &mut Harness, manner: Manner) -> Result<OverHttp> {
    let product = hot_product(rig).await?;
    rig.start_worker().await?;
    let target = order_target(rig, product);
    let extent = Extent::Time { warm_up: OPEN_WARM_UP, measured: manner.time() };
    let peak = closed_loop(target, manner.crowd, extent).await?;
    until_drained(rig).await?;
    let half = open_loop(target, manner.crowd, peak.rate() / 2.0, OPEN_WARM_UP, manner.time()).await?;
    until_drained(rig).await?;
    rig.stop_worker().await?;
    Ok(OverHttp { peak, half })
}

fn order_target(rig: &Harness, product: ProductId) -> Target {
    Target { address: rig.api_address(), call: Call::Order { product }, first_user: 1, expected: StatusCode::CREATED }
}

/// Memory of API and worker while orders pass.
#[derive(Clone, Debug, Default)]
pub struct MemoryWatch {
    /// After so many orders: bytes of the API, bytes of the worker.
    pub samples: Vec<(u64, u64, u64)>,
    /// Of all orders.
    pub latencies: Latencies,
    /// Orders a second.
    pub rate: f64,
}

/// Looks at the memory of both processes again and again; an allocator keeps now more, now less of what is free.
async fn sample<T>(rig: &Harness, samples: &mut Vec<(u64, u64)>) -> Result<T> {
    loop {
        sleep(Duration::from_millis(100)).await;
        samples.push(rig.resident_bytes()?);
    }
}

/// The middle of the samples of each process; none are left.
fn middles(samples: &mut Vec<(u64, u64)>) -> (u64, u64) {
    let (mut api, mut worker): (Vec<u64>, Vec<u64>) = samples.drain(..).unzip();
    let middle = |bytes: &mut Vec<u64>| {
        bytes.sort_unstable();
        bytes.get(bytes.len() / 2).copied().unwrap_or(0)
    };
    (middle(&mut api), middle(&mut worker))
}

/// Lets `orders` orders pass in ten parts, and looks at the memory of both processes in each.
pub async fn watch_memory(rig: &mut Harness, crowd: ClientPool, orders: u64) -> Result<MemoryWatch> {
    const PARTS: u64 = 10;
    let product = hot_product(rig).await?;
    rig.start_worker().await?;
    let mut target = order_target(rig, product);
    let mut watch = MemoryWatch::default();
    let mut total = Measured::default();
    let mut samples = Vec::new();
    for part in 1..=PARTS {
        let (measured, (api, worker)) = tokio::select! {
            biased;
            never = sample(rig, &mut samples) => never?,
            measured = closed_loop(target, crowd, Extent::Count(orders / PARTS)) => (measured?, middles(&mut samples)),
        };
        target.first_user += orders / PARTS;
        total.append(&measured);
        watch.samples.push((orders / PARTS * part, api, worker));
    }
    until_drained(rig).await?;
    rig.stop_worker().await?;
    (watch.rate, watch.latencies) = (total.rate(), total.latencies);
    Ok(watch)
}
