//! The ranking: reads of best sellers, the cost of the hourly job, and the rate of the relay that feeds it.

use std::time::Duration;

use anyhow::{Context as _, Result};
use chrono::{Datelike as _, NaiveDate};
use chrono_tz::Tz;
use dibs_common::{
    clock,
    db::{self, Database},
    domain::{
        admin_action::ActionContext,
        event::Position,
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
    client::{BenchRequest, Target},
    harness::Harness,
    progress,
    rates::{self, PairedRounds, SamplingSettings},
};
use crate::{latency::Latencies, wait};

/// The default of `TIME_ZONE`.
const ZONE: Tz = chrono_tz::Asia::Seoul;
/// Days of the longest window.
const DAYS: u64 = 7;
/// Ranked products in the measurements of reads and of the relay.
const RANKED_PRODUCTS: u64 = 1_000;
const DRAIN_TIMEOUT: Duration = Duration::from_mins(10);

fn today() -> NaiveDate {
    business_day(clock::now(), ZONE)
}

/// Writes sales of these products on each of the last seven days into Redis.
async fn fill_days(harness: &Harness, products: impl Iterator<Item = ProductId> + Clone) -> Result<()> {
    let (redis, staging, mut days) = (&harness.stores.redis, new_uuid(), Vec::new());
    for day in last_days(today(), DAYS) {
        let mut scores = Scores::new();
        // Another order of products each day, so that the union has work to do.
        for (number, product) in (i64::from(day.ordinal())..).zip(products.clone()) {
            scores.insert(product, number * 7_919 % 997 + 1);
        }
        let staged = redis.keys.staged(&redis.keys.daily_sales(day), staging);
        sales::write_staged(redis, &staged, &scores, 1).await.context("staging a day of sales")?;
        days.push((day, start_of(days_after(day, DAYS), ZONE)));
    }
    sales::invalidate(redis).await.context("replacing the days of sales")?;
    scripts::sales_put(redis, staging, Position::default(), &days, today())
        .await
        .context("replacing the days of sales")
        .map(drop)
}

async fn create_products(database: &Database, products: u64) -> Result<Vec<ProductId>> {
    let mut created = Vec::new();
    for number in 0..products {
        let name = format!("Bench product {number}");
        let terms =
            ProductTerms { name, price: 12_000, stock: 1_000, status: ProductStatus::Selling, payment_required: false };
        let product = db::products::create(
            database,
            &terms,
            &ActionContext::of_process("dibs-loadtest bench", new_uuid(), clock::now()),
        )
        .await;
        created.push(product.context("creating a product")?.id);
    }
    Ok(created)
}

/// Ranks products, and measures reads of the best sellers in turn with the baseline.
pub async fn measure_reads(harness: &mut Harness, sampling: SamplingSettings, rounds: u16) -> Result<PairedRounds> {
    let products = create_products(&harness.stores.database, RANKED_PRODUCTS).await?;
    fill_days(harness, products.into_iter()).await?;
    harness.job("warm-ranking")?.until_exited().await?;
    let (address, request) = (harness.api_address(), BenchRequest::BestSellers);
    let target = Target { address, request, first_user: 1, expected: StatusCode::OK };
    wait::until("a full page of best sellers", Duration::from_secs(10), Duration::from_millis(100), async || {
        Ok(harness.best_sellers().await? == 10)
    })
    .await?;
    let mut measured = PairedRounds::default();
    for _ in 0..rounds {
        let baseline = Target { address: harness.baseline_address(), ..target };
        rates::measure_in_turn(sampling, baseline, target, &mut measured).await?;
    }
    Ok(measured)
}

/// The cost of the hourly job, for itself and for other clients of Redis.
#[derive(Clone, Debug)]
pub struct JobCost {
    /// Products sold on each day.
    pub products: u64,
    /// From the start of the process to its end.
    pub time: Duration,
    /// Its largest resident memory, in bytes.
    pub worker_bytes: u64,
    /// Memory of Redis with seven days, in bytes.
    pub days_bytes: u64,
    /// Memory of Redis with the three windows, too, in bytes.
    pub windows_bytes: u64,
    /// PINGs of another client during the job.
    pub pings: Latencies,
}

/// Runs the hourly job over `products` products, each sold on each of seven days.
pub async fn measure_job(harness: &mut Harness, products: u64) -> Result<JobCost> {
    fill_days(harness, (1..=products).filter_map(|id| ProductId::try_from(id).ok())).await?;
    let days_bytes = harness.redis_memory().await?;
    let mut job = harness.job("warm-ranking")?;
    let (began, mut worker_bytes, mut pings) = (Instant::now(), 0, Latencies::default());
    while job.is_running()? {
        let sent = Instant::now();
        harness.stores.redis.client().ping::<()>(None).await.context("sending PING")?;
        pings.record(sent.elapsed());
        // The process may have ended between the two calls.
        worker_bytes = worker_bytes.max(job.resident_bytes().unwrap_or(0));
        sleep(Duration::from_millis(1)).await;
    }
    let time = began.elapsed();
    job.until_exited().await?;
    let windows_bytes = harness.redis_memory().await?;
    Ok(JobCost { products, time, worker_bytes, days_bytes, windows_bytes, pings })
}

#[derive(Clone, Debug, Default)]
pub struct RelayRounds {
    /// Relayed events a second.
    pub relayed: Vec<f64>,
    /// Confirmed claims a second in the same round.
    pub confirmed: Vec<f64>,
}

/// Events a second that the relay sequences, reads and applies in Redis, out of a backlog of `events` paid orders.
pub async fn measure_relay(harness: &mut Harness, events: u64) -> Result<f64> {
    // A new sink receives only events created after its registration, so the worker must register it first.
    harness.start_worker().await?;
    wait::until("the delivery of all events", DRAIN_TIMEOUT, Duration::from_millis(50), async || {
        Ok(harness.stores.events_left().await? == 0)
    })
    .await?;
    // The events are written while no worker runs, so that the backlog is complete.
    harness.stop_worker().await?;
    let before = delivered(&harness.stores.database.pool()).await?;
    fill_outbox(&harness.stores.database.pool(), events).await?;
    harness.launch_worker()?;
    let pool = harness.stores.database.pool().clone();
    let relayed = async || Ok(delivered(&pool).await?.saturating_sub(before));
    let rate = progress::processing_rate(harness, "relayed events", events, relayed).await?;
    harness.stop_worker().await?;
    Ok(rate)
}

async fn delivered(pool: &MySqlPool) -> Result<u64> {
    sqlx::query_scalar("SELECT delivered_through FROM sinks WHERE name = 'ranking'")
        .fetch_one(pool)
        .await
        .context("reading the progress of the ranking sink")
}

/// Writes so many `order.paid` events, as the worker does.
async fn fill_outbox(pool: &MySqlPool, events: u64) -> Result<()> {
    const BATCH: u64 = 1_000;
    let at = clock::now().to_rfc3339_opts(chrono::SecondsFormat::Millis, true);
    let mut written = 0;
    while written < events {
        let mut rows = Vec::new();
        for number in written..events.min(written + BATCH) {
            let (order, payment, product) = (new_uuid(), new_uuid(), number % RANKED_PRODUCTS + 1);
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
