use std::time::Duration;

use chrono::NaiveDate;
use chrono_tz::Tz;
use dibs_common::{
    clock::Timestamp,
    db::{self, Database, Lease, sales::SalesSnapshot},
    domain::ranking::{KEPT_DAYS, business_day, days_after, expires_at, last_days},
    error::{Error, Result},
    redis::{Redis, sales, scripts::sales_put},
    retry::{self, RetryPolicy},
};

use super::{RANKING, windows::StagedWindows};

/// Summing up a day reads all its order items.
const DAY_TIMEOUT: Duration = Duration::from_mins(10);
/// How long the holder of the sink's lease may take to rebuild.
const OTHER_REBUILD: Duration = Duration::from_mins(1);
const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// Rebuilds the days that Redis keeps, and the windows, from the orders. Redis forgets up to where it has counted; the
/// holder of the sink's lease then rebuilds, which is this process when no other holds it.
pub async fn rebuild(database: &Database, redis: &Redis, zone: Tz, now: Timestamp) -> Result<()> {
    if try_rebuild(database, redis, zone, now).await? { Ok(()) } else { await_rebuild(redis, OTHER_REBUILD).await }
}

/// The same without the wait: false when another process holds the lease, which rebuilds then.
pub async fn try_rebuild(database: &Database, redis: &Redis, zone: Tz, now: Timestamp) -> Result<bool> {
    sales::invalidate(redis).await?;
    // Redis has forgotten its position by now, so another holder of the lease notices at its next batch, and rebuilds.
    let Some(mut lease) = database.try_lease(&format!("sink {RANKING}")).await? else { return Ok(false) };
    let rebuilt = rebuild_and_advance(database, redis, &mut lease, zone, now).await;
    lease.release().await.and(rebuilt).map(|()| true)
}

/// Waits until the holder of the sink's lease has rebuilt.
pub async fn await_rebuild(redis: &Redis, limit: Duration) -> Result<()> {
    let policy = RetryPolicy::constant(POLL_INTERVAL).within(limit);
    let rebuilt = retry::await_value(policy, || sales::applied(redis)).await?;
    rebuilt.map(drop).ok_or_else(|| Error::LeaseHeld { undone: "the ranking is not rebuilt".into(), waited: limit })
}

async fn rebuild_and_advance(
    database: &Database,
    redis: &Redis,
    lease: &mut Lease,
    zone: Tz,
    now: Timestamp,
) -> Result<()> {
    if sales::is_counted_from_kafka(redis).await? {
        // No relay serves the sink then, so there is no progress to advance.
        return rebuild_under_lease(redis, lease, zone, now).await.map(drop);
    }
    db::within(db::outbox::register_sink(&database.pool(), RANKING, now)).await?;
    // The position is read before the snapshot, so the sink only ever moves forward.
    let progress = db::within(db::outbox::find_sink_progress(&mut *lease.reader().await?, RANKING)).await?;
    let from = progress.ok_or_else(|| Error::internal("a sink is gone that was just registered"))?.delivered_through;
    let sequence = rebuild_under_lease(redis, lease, zone, now).await?;
    // After the days are in place: a crash before this only repeats events that Redis knows.
    db::within(db::outbox::advance_sink(lease.begin().await?, RANKING, from, sequence, now)).await?;
    lease.commit().await
}

/// Rebuilds the days that Redis keeps, and the windows. The caller holds the sink's lease, and advances the sink to the
/// returned sequence, up to which they count. No process counts until they are in place: it would count into days that
/// are about to be replaced.
pub async fn rebuild_under_lease(redis: &Redis, lease: &Lease, zone: Tz, now: Timestamp) -> Result<u64> {
    sales::invalidate(redis).await?;
    let mut reader = lease.long_reader().await?;
    let mut snapshot = db::within(SalesSnapshot::open(&mut reader, zone)).await?;
    let today = business_day(now, zone);
    // With tomorrow, which may begin before the snapshot, or earlier by the clock of another worker.
    let days: Vec<NaiveDate> = last_days(days_after(today, 1), KEPT_DAYS + 1).collect();
    let mut windows = StagedWindows::new(redis, today);
    let put = stage_and_put(lease, &mut snapshot, &mut windows, &days, zone).await;
    if put.is_err() {
        // The rebuild is retried soon, and would fill Redis with one copy after the other.
        sales::delete_staged(redis, days.iter().map(|day| redis.keys.daily_sales(*day)), windows.id).await?;
        windows.delete().await?;
    }
    put?;
    tracing::info!(position = %snapshot.position, days = days.len(), "sales counters rebuilt");
    Ok(snapshot.position.sequence)
}

async fn stage_and_put(
    lease: &Lease,
    snapshot: &mut SalesSnapshot<'_>,
    windows: &mut StagedWindows<'_>,
    days: &[NaiveDate],
    zone: Tz,
) -> Result<()> {
    let (redis, rebuild) = (windows.redis, windows.id);
    let mut put = Vec::with_capacity(days.len());
    // One day after the other, as a day may have a million products.
    for day in days {
        let scores = db::within_limit(DAY_TIMEOUT, snapshot.day(*day)).await?;
        let staged = redis.keys.staged(&redis.keys.daily_sales(*day), rebuild);
        sales::write_staged(redis, &staged, &scores, 1).await?;
        windows.add(*day, scores).await?;
        put.push((*day, expires_at(*day, zone)));
    }
    // A holder that was overtaken would put days that lack what was sold since.
    lease.confirm().await?;
    if sales_put(redis, rebuild, snapshot.position, &put, windows.to).await? {
        return Ok(());
    }
    Err(Error::internal("another process has rebuilt the days meanwhile"))
}
