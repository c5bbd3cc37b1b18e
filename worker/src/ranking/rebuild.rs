use std::time::Duration;

use chrono::NaiveDate;
use chrono_tz::Tz;
use dibs_common::{
    clock::Timestamp,
    db::{self, Database, Lock, SalesSnapshot},
    domain::ranking::{KEPT_DAYS, Scores, business_day, forgotten_at, last_days},
    error::{Error, Result},
    identifiers::{ProductId, new_uuid},
    redis::Redis,
    sales,
    scripts::sales_put,
};
use uuid::Uuid;

use super::{RANKING, warm};

/// How many products are staged at once.
const PAGE: usize = 5_000;
/// How long it may take to sum up all days.
const PATIENCE: Duration = Duration::from_mins(10);
/// How often, and how far apart, one who does not serve the sink looks whether the days are there again.
const LOOKS: u32 = 300;
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Makes the days that Redis keeps anew from the orders. Redis is made to forget how far it has counted: whoever serves
/// the sink then makes them anew, this process when no other does.
pub async fn rebuild(database: &Database, redis: &Redis, zone: Tz, now: Timestamp) -> Result<()> {
    sales::forget(redis).await?;
    let Some(mut lock) = database.try_lock(&format!("sink {RANKING}")).await? else {
        return wait_for_another(redis).await;
    };
    let rebuilt = rebuild_and_move(database, redis, &mut lock, zone, now).await;
    lock.release().await.and(rebuilt)
}

async fn rebuild_and_move(database: &Database, redis: &Redis, lock: &mut Lock, zone: Tz, now: Timestamp) -> Result<()> {
    db::within(db::register_sink(database.pool(), RANKING, now)).await?;
    let progress = db::within(db::sink_progress(lock.connection(), RANKING)).await?;
    let from = progress.ok_or_else(|| Error::internal("a sink is gone that was just there"))?.delivered_through;
    let sequence = rebuild_under_lock(redis, lock, zone, now).await?;
    db::within(db::move_sink(lock.connection(), RANKING, (from, sequence), now)).await?;
    warm(redis, zone, now).await.map(drop)
}

async fn wait_for_another(redis: &Redis) -> Result<()> {
    for _ in 0..LOOKS {
        if sales::applied(redis).await?.is_some() {
            return Ok(());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Err(Error::internal("another worker serves the ranking, and has not made it anew within a minute; see its log"))
}

/// Makes the days that Redis keeps anew, for one who holds the sink's lock. Answers up to which event they count; the
/// sink is to be moved there. Until they are in place, nobody counts: whoever would count from Kafka meanwhile would
/// count into days that are about to be replaced.
pub async fn rebuild_under_lock(redis: &Redis, lock: &mut Lock, zone: Tz, now: Timestamp) -> Result<u64> {
    sales::forget(redis).await?;
    let days = last_days(business_day(now, zone), KEPT_DAYS);
    let snapshot = db::sales_snapshot(lock.connection(), days, zone);
    let SalesSnapshot { sequence, days } = db::within_limit(PATIENCE, snapshot).await?;
    let rebuild = new_uuid();
    for (day, scores) in &days {
        stage(redis, rebuild, *day, scores).await?;
    }
    let put: Vec<(NaiveDate, Timestamp)> = days.iter().map(|(day, _)| (*day, forgotten_at(*day, zone))).collect();
    sales_put(redis, rebuild, sequence, &put).await?;
    let products = days.iter().map(|(_, scores)| scores.len()).max();
    tracing::info!(sequence, days = days.len(), products, "redis holds the sales of these days again");
    Ok(sequence)
}

async fn stage(redis: &Redis, rebuild: Uuid, day: NaiveDate, scores: &Scores) -> Result<()> {
    let scores: Vec<(ProductId, i64)> = scores.iter().map(|(product, units)| (*product, *units)).collect();
    for page in scores.chunks(PAGE) {
        sales::stage(redis, day, rebuild, page).await?;
    }
    Ok(())
}
