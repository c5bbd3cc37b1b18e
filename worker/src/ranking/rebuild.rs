use std::time::Duration;

use chrono::NaiveDate;
use chrono_tz::Tz;
use dibs_common::{
    clock::Timestamp,
    db::{self, Database, Lease, sales::SalesSnapshot},
    domain::ranking::{KEPT_DAYS, business_day, days_after, forgotten_at, last_days},
    error::{Error, Result},
    identifiers::new_uuid,
    redis::{Redis, sales, scripts::sales_put},
};
use uuid::Uuid;

use super::{RANKING, warm};

/// How long it may take to sum up a day.
const PATIENCE: Duration = Duration::from_mins(10);
/// How often, and how far apart, one who does not serve the sink looks whether the days are there again.
const LOOKS: u32 = 300;
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Makes the days that Redis keeps anew from the orders. Redis is made to forget how far it has counted: whoever serves
/// the sink then makes them anew, this process when no other does.
pub async fn rebuild(database: &Database, redis: &Redis, zone: Tz, now: Timestamp) -> Result<()> {
    sales::invalidate(redis).await?;
    let Some(mut lock) = database.try_lease(&format!("sink {RANKING}")).await? else {
        return wait_for_another(redis).await;
    };
    let rebuilt = rebuild_and_move(database, redis, &mut lock, zone, now).await;
    lock.release().await.and(rebuilt)
}

async fn rebuild_and_move(
    database: &Database,
    redis: &Redis,
    lock: &mut Lease,
    zone: Tz,
    now: Timestamp,
) -> Result<()> {
    if sales::is_counted_from_kafka(redis).await? {
        // Nobody serves the sink then.
        rebuild_under_lock(redis, lock, zone, now).await?;
        return warm(redis, zone, now).await.map(drop);
    }
    db::within(db::outbox::register_sink(database.pool(), RANKING, now)).await?;
    let progress = db::within(db::outbox::find_sink_progress(lock.connection(), RANKING)).await?;
    let from = progress.ok_or_else(|| Error::internal("a sink is gone that was just there"))?.delivered_through;
    let sequence = rebuild_under_lock(redis, lock, zone, now).await?;
    db::within(db::outbox::advance_sink(lock.connection(), RANKING, from, sequence, now)).await?;
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
pub async fn rebuild_under_lock(redis: &Redis, lock: &mut Lease, zone: Tz, now: Timestamp) -> Result<u64> {
    sales::invalidate(redis).await?;
    let mut snapshot = db::within(SalesSnapshot::open(lock.connection(), zone)).await?;
    // With tomorrow, which may have begun by the time of the snapshot, or by the clock of another worker.
    let days: Vec<NaiveDate> = last_days(days_after(business_day(now, zone), 1), KEPT_DAYS + 1).collect();
    let rebuild = new_uuid();
    let put = stage_and_put(redis, &mut snapshot, (rebuild, &days), zone).await;
    if put.is_err() {
        // It comes again soon, and would fill Redis with one copy after the other.
        sales::delete_staged(redis, days.iter().map(|day| redis.keys.daily_sales(*day)), rebuild).await?;
    }
    put?;
    tracing::info!(sequence = snapshot.sequence, days = days.len(), "redis holds the sales of these days again");
    Ok(snapshot.sequence)
}

async fn stage_and_put(
    redis: &Redis,
    snapshot: &mut SalesSnapshot<'_>,
    (rebuild, days): (Uuid, &[NaiveDate]),
    zone: Tz,
) -> Result<()> {
    let mut put = Vec::with_capacity(days.len());
    // One day after the other, as a day may have a million products.
    for day in days {
        let scores = db::within_limit(PATIENCE, snapshot.day(*day)).await?;
        let staged = redis.keys.staged(&redis.keys.daily_sales(*day), rebuild);
        sales::write_staged(redis, &staged, &scores, 1).await?;
        put.push((*day, forgotten_at(*day, zone)));
    }
    if sales_put(redis, rebuild, snapshot.sequence, &put).await? {
        return Ok(());
    }
    Err(Error::internal("another process has made the days anew meanwhile"))
}
