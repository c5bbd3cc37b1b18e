//! The ranking: how fast it is read, what the hourly job costs that adds it up, and how fast the relay feeds it.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use chrono::{Datelike as _, NaiveDate};
use chrono_tz::Tz;
use dibs_common::{
    clock,
    db::{self, Database},
    domain::{
        product::{ProductStatus, ProductTerms},
        ranking::{Scores, business_day, days_after, last_days, start_of},
    },
    identifiers::{ProductId, new_uuid},
    redis::{sales, scripts},
};
use fred::interfaces::ClientLike as _;
use hyper::StatusCode;
use sqlx::{AssertSqlSafe, MySqlPool};
use tokio::time::{Instant, sleep};

use super::{
    client::{Call, Target},
    harness::Harness,
    rates::{self, Manner, Rounds},
};
use crate::{latency::Latencies, numbers::per_second, waiting};

/// What the stack is started with; see `TIME_ZONE`.
const ZONE: Tz = chrono_tz::Asia::Seoul;
/// The longest window.
const DAYS: u64 = 7;
/// Products that are sold and ranked where it is measured how fast that is read, or fed.
const RANKED: u64 = 1_000;
const LIMIT: Duration = Duration::from_mins(10);
const LOOK_EVERY: Duration = Duration::from_millis(5);

fn today() -> NaiveDate {
    business_day(clock::now(), ZONE)
}

/// Lets Redis hold sales of these products on each of the last seven days.
async fn fill_days(rig: &Harness, products: impl Iterator<Item = ProductId> + Clone) -> Result<()> {
    let (redis, making, mut put) = (&rig.stores.redis, new_uuid(), Vec::new());
    for day in last_days(today(), DAYS) {
        let mut scores = Scores::new();
        for (number, product) in (i64::from(day.ordinal())..).zip(products.clone()) {
            scores.insert(product, number * 7_919 % 997 + 1);
        }
        let staged = redis.keys.staged(&redis.keys.daily_sales(day), making);
        sales::stage(redis, &staged, &scores, 1).await.context("filling a day")?;
        put.push((day, start_of(days_after(day, DAYS), ZONE)));
    }
    sales::forget(redis).await.context("filling days")?;
    scripts::sales_put(redis, making, 0, &put).await.context("filling days").map(drop)
}

/// Makes products, and answers them.
async fn make_products(database: &Database, products: u64) -> Result<Vec<ProductId>> {
    let mut made = Vec::new();
    for number in 0..products {
        let name = format!("Bench product {number}");
        let terms = ProductTerms { name, price: 12_000, stock: 1_000, status: ProductStatus::Selling };
        let product = db::products::create(database, &terms, new_uuid(), clock::now()).await;
        made.push(product.context("making a product")?.id);
    }
    Ok(made)
}

/// Readers of what sold best, beside the bare server.
#[derive(Clone, Debug, Default)]
pub struct ReadRounds {
    /// The bare server, which answers as much.
    pub bare: Rounds,
    /// `GET /products/best-sellers`.
    pub read: Rounds,
}

/// Lets there be something to read, and measures how fast it is.
pub async fn measure_reads(rig: &mut Harness, manner: Manner, rounds: u16) -> Result<ReadRounds> {
    let products = make_products(&rig.stores.database, RANKED).await?;
    fill_days(rig, products.into_iter()).await?;
    rig.job("warm-ranking")?.until_ended().await?;
    let (address, call) = (rig.api_address(), Call::BestSellers);
    let target = Target { address, call, first_user: 1, expected: StatusCode::OK };
    waiting::until("a page of what sold best", Duration::from_secs(10), Duration::from_millis(100), async || {
        Ok(rig.best_sellers().await? == 10)
    })
    .await?;
    let mut measured = ReadRounds::default();
    for _ in 0..rounds {
        let bare = Target { address: rig.bare_address(), ..target };
        rates::in_turn(manner, (bare, target), (&mut measured.bare, &mut measured.read)).await?;
    }
    Ok(measured)
}

/// What the hourly job costs, and what it costs others.
#[derive(Clone, Debug)]
pub struct JobWatch {
    /// Products sold on each day.
    pub products: u64,
    /// How long the process took.
    pub time: Duration,
    /// Its memory at most, in bytes.
    pub worker_bytes: u64,
    /// Memory of Redis with the seven days, in bytes.
    pub days_bytes: u64,
    /// The same with the three windows.
    pub windows_bytes: u64,
    /// How long others waited for Redis meanwhile.
    pub waits: Latencies,
}

/// Runs the hourly job over `products` products, each sold on each of seven days.
pub async fn watch_job(rig: &mut Harness, products: u64) -> Result<JobWatch> {
    fill_days(rig, (1..=products).filter_map(|id| ProductId::try_from(id).ok())).await?;
    let days_bytes = rig.redis_memory().await?;
    let mut job = rig.job("warm-ranking")?;
    let (began, mut worker_bytes, mut waits) = (Instant::now(), 0, Latencies::default());
    while job.is_running()? {
        let asked = Instant::now();
        rig.stores.redis.client().ping::<()>(None).await.context("PING")?;
        waits.record(asked.elapsed());
        worker_bytes = worker_bytes.max(job.resident_bytes().unwrap_or(0));
        sleep(Duration::from_millis(1)).await;
    }
    let time = began.elapsed();
    job.until_ended().await?;
    let windows_bytes = rig.redis_memory().await?;
    Ok(JobWatch { products, time, worker_bytes, days_bytes, windows_bytes, waits })
}

/// What the rounds of the relay gave.
#[derive(Clone, Debug, Default)]
pub struct RelayRounds {
    /// Events a second.
    pub relayed: Vec<f64>,
    /// Claims confirmed a second, in the same round.
    pub confirmed: Vec<f64>,
}

/// Events a second that the relay numbers, reads, and counts in Redis: out of a backlog of `events` orders that were paid.
pub async fn measure_relay(rig: &mut Harness, events: u64) -> Result<f64> {
    // A sink is told what happens after it was there for the first time.
    rig.start_worker().await?;
    waiting::until("the end of all events", LIMIT, Duration::from_millis(50), async || {
        Ok(rig.stores.events_left().await? == 0)
    })
    .await?;
    rig.stop_worker().await?;
    let before = delivered(rig.stores.database.pool()).await?;
    fill_outbox(rig.stores.database.pool(), events).await?;
    rig.launch_worker()?;
    let rate = watch_relay(rig, before, events).await?;
    rig.stop_worker().await?;
    Ok(rate)
}

async fn delivered(pool: &MySqlPool) -> Result<u64> {
    sqlx::query_scalar("SELECT delivered_through FROM sinks WHERE name = 'ranking'")
        .fetch_one(pool)
        .await
        .context("how far the ranking is")
}

async fn watch_relay(rig: &mut Harness, before: u64, events: u64) -> Result<f64> {
    let end = Instant::now() + LIMIT;
    let mut first = None;
    loop {
        let through = delivered(rig.stores.database.pool()).await?;
        let now = Instant::now();
        if through > before && first.is_none() {
            first = Some((through, now));
        }
        if let (Some((counted, moment)), true) = (first, through >= before + events) {
            return Ok(per_second(through - counted, now - moment));
        }
        if now >= end {
            bail!("{} of {events} events in {} s", through - before, LIMIT.as_secs());
        }
        rig.expect_alive()?;
        sleep(LOOK_EVERY).await;
    }
}

/// Tells of so many orders that were paid, as the worker does.
async fn fill_outbox(pool: &MySqlPool, events: u64) -> Result<()> {
    const PAGE: u64 = 1_000;
    let at = clock::now().to_rfc3339_opts(chrono::SecondsFormat::Millis, true);
    let mut written = 0;
    while written < events {
        let mut rows = Vec::new();
        for number in written..events.min(written + PAGE) {
            let (order, payment, product) = (new_uuid(), new_uuid(), number % RANKED + 1);
            rows.push(format!(
                "('ORDER', '{order}', 'order.paid', '{{\"orderId\":\"{order}\",\"userId\":{number},\"status\":\"PAY_DONE\",\
                 \"items\":[{{\"productId\":{product},\"name\":\"Bench product {product}\",\"unitPrice\":12000,\"quantity\":1}}],\
                 \"totalAmount\":12000,\"discountAmount\":0,\"payAmount\":12000,\"userCouponId\":null,\
                 \"paymentId\":\"{payment}\",\"createdAt\":\"{at}\",\"expiresAt\":\"{at}\",\"paidAt\":\"{at}\"}}', NOW(3))"
            ));
        }
        written += rows.len() as u64;
        let sql = format!(
            "INSERT INTO outbox_events (aggregate_type, aggregate_id, type, payload, created_at) VALUES {}",
            rows.join(",")
        );
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(pool).await.context("filling the outbox")?;
    }
    Ok(())
}
