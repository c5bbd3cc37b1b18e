//! Scheduled jobs; `dibs-worker job NAME` runs one on demand.
//!
//! Every worker has the same schedule. A lease lets one at a time run a job, and `job_runs` has the business days that
//! are done: so a day is done once, by whichever worker comes first, and a missed day is caught up later. A job that
//! runs again gives the same result.

mod persist;
mod schedule;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use chrono::{NaiveDate, TimeDelta};
use chrono_tz::Tz;
use clap::ValueEnum;
use dibs_common::{
    clock::Timestamp,
    db::{self, Database, Lease},
    domain::ranking::{business_day, days_after, days_before, last_days, start_of},
    error::{Error, Result},
    metric_table::label,
    redis::Redis,
};
pub use persist::{persist_daily_sales, store_missing_days};
pub use schedule::run_on_schedule;
use strum::IntoStaticStr;
use tokio::{sync::Mutex, time::Instant};

use crate::{
    campaigns::remove_ended,
    orders::{Expiry, expire_coupons},
    purge::{Purged, purge},
    ranking::{WindowsBuilt, warm},
    settings::Retention,
};

/// How long after its end a day is persisted: at 00:10.
const PERSIST_DELAY: TimeDelta = TimeDelta::minutes(10);
/// How many missed days are caught up when none was ever persisted, and in total.
const CATCH_UP_DAYS: u64 = 7;
const MAX_CATCH_UP_DAYS: u64 = 60;
/// A cancellation becomes visible this much after its time: its transaction has to commit.
const MAX_COMMIT_DELAY: TimeDelta = TimeDelta::minutes(1);
/// How long it may take to find the days with cancelled orders.
const DAYS_TIMEOUT: Duration = Duration::from_mins(1);
/// How long after its end a coupon is marked as expired: an order that was placed in time may still be in flight.
const COUPON_EXPIRY_DELAY: TimeDelta = TimeDelta::hours(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, IntoStaticStr)]
#[strum(serialize_all = "kebab-case", const_into_str)]
pub enum Job {
    /// Sum up the sales of the last 1, 3 and 7 days for the API
    WarmRanking,
    /// Write the sales of a day, by default yesterday, into the tables
    PersistDailySales,
    /// Submit the expiry of overdue orders
    ExpireOrders,
    /// Mark coupons whose validity has ended
    ExpireCoupons,
    /// Delete rows that are kept for a limited time
    Purge,
}

impl Job {
    /// As the command line and `job_runs` name it.
    pub const fn name(self) -> &'static str {
        self.into_str()
    }
}

#[derive(Clone)]
pub struct Jobs {
    pub database: Database,
    pub redis: Redis,
    /// Where a business day begins.
    pub zone: Tz,
    /// The number of partitions of commands.
    pub partitions: u16,
    pub retention: Retention,
    /// Up to where overdue orders have their expiry submitted.
    pub expiry: Arc<Mutex<Expiry>>,
}

impl Jobs {
    /// Runs a job for `day`, or for its default day, and records that in `job_runs`. Returns what it did; none when
    /// another process runs it.
    pub async fn run(&self, job: Job, day: Option<NaiveDate>, now: Timestamp) -> Result<Option<String>> {
        let today = business_day(now, self.zone);
        // The day that is over is the last one whose sales are complete.
        let usual = if job == Job::PersistDailySales { days_before(today, 1) } else { today };
        let day = day.unwrap_or(usual);
        if job == Job::PersistDailySales && day >= today {
            return Err(Error::Setting("--day", format!("expected a day that is over, got {day}; today is {today}")));
        }
        // One lease for each job, not one for all: a long job does not delay the short ones.
        let Some(mut lease) = self.database.try_lease(&format!("job {}", job.name())).await? else { return Ok(None) };
        let done = self.run_and_record(&mut lease, job, day, now).await;
        if let Err(error) = lease.release().await {
            tracing::debug!(job = job.name(), cause = error.chain(), "lease lost before its release");
        }
        done.map(Some)
    }

    async fn run_and_record(&self, lease: &mut Lease, job: Job, day: NaiveDate, now: Timestamp) -> Result<String> {
        let (name, began) = (job.name(), Instant::now());
        db::within(db::job_runs::begin(lease.begin().await?, name, day, now)).await?;
        lease.commit().await?;
        // The row comes first, so that a run that dies is seen as RUNNING and not as never begun.
        let done = Box::pin(self.execute(job, day, now)).await;
        let outcome = if done.is_ok() { "done" } else { "failed" };
        metrics::counter!("dibs_job_runs_total", "job" => label(name), "outcome" => outcome).increment(1);
        metrics::histogram!("dibs_job_duration_seconds", "job" => label(name)).record(began.elapsed());
        // By the monotonic clock, as the time of day may be set during a run.
        let ended = now + began.elapsed();
        let cause = done.as_ref().err().map(dibs_common::Error::chain);
        let detail = done.as_ref().map(String::as_str).map_err(|_| cause.as_deref().unwrap_or_default());
        db::within(db::job_runs::end(lease.begin().await?, name, day, detail, ended)).await?;
        lease.commit().await?;
        done
    }

    /// Runs a job; a description of what it did.
    async fn execute(&self, job: Job, day: NaiveDate, now: Timestamp) -> Result<String> {
        let Self { database, redis, .. } = self;
        Ok(match job {
            Job::WarmRanking => match warm(redis, self.zone, now).await? {
                WindowsBuilt::Shown { products } => format!("{products} products in 7 days"),
                WindowsBuilt::Superseded => "nothing: a newer build replaced the windows".into(),
                WindowsBuilt::Lost => "nothing: Redis has not counted sales yet".into(),
            },
            Job::PersistDailySales => self.persist(day).await?,
            Job::ExpireOrders => {
                let submitted = self.expiry.lock().await.send_commands(database, redis, self.partitions, now).await?;
                format!("{submitted} orders submitted to expire")
            }
            Job::ExpireCoupons => format!("{} coupons expired", self.expire_all_coupons(now).await?),
            Job::Purge => {
                let purged = purge(database, now, self.retention.claim_attempts()).await?;
                let campaigns = remove_ended(database, redis, now - self.retention.ended_campaigns()).await?;
                let Purged { idempotency_keys, outcomes, events, dead_letters, claim_refusals, .. } = purged;
                let Purged { rejected_orders, declined_charges, product_changes, claim_attempts, rebuilds, .. } =
                    purged;
                let deleted = format!(
                    "deleted: {idempotency_keys} idempotency keys, {outcomes} outcomes, {events} events, \
                     {dead_letters} dead letters, {claim_refusals} claim refusals, {rejected_orders} rejected orders, \
                     {declined_charges} declined charges, {product_changes} product changes, \
                     {claim_attempts} refused claims, {rebuilds} rebuilds, {campaigns} ended campaigns in Redis"
                );
                match &*purged.idle_sinks {
                    [] => deleted,
                    sinks => {
                        let sinks = sinks.join(", ");
                        format!("{deleted}; sinks without a worker for 7 days, whose events are not kept: {sinks}")
                    }
                }
            }
        })
    }

    async fn expire_all_coupons(&self, now: Timestamp) -> Result<u64> {
        let mut expired = 0;
        // Each transaction has a bound.
        while let Some(marked) = expire_coupons(&self.database, now - COUPON_EXPIRY_DELAY, now).await? {
            expired += marked;
        }
        Ok(expired)
    }

    /// Runs what is due at `now`: the windows, and every day that is over and not persisted yet, of the last seven or
    /// since the last that was, the earliest first; yesterday again when orders of earlier days were cancelled since.
    pub async fn run_due(&self, now: Timestamp) -> Result<()> {
        // First, as days are summed by it. There is nothing to store once all workers are of this version.
        let stored = store_missing_days(&self.database, self.zone).await?;
        if stored > 0 {
            tracing::info!(orders = stored, zone = %self.zone, "day of sale stored with orders of an older version");
        }
        // A failure is returned at the end: the days in MySQL do not depend on Redis.
        let warmed = Box::pin(self.run(Job::WarmRanking, None, now)).await;
        for day in self.due_days(now).await? {
            // Another process that runs it goes on with the days after it.
            let Some(done) = Box::pin(self.run(Job::PersistDailySales, Some(day), now)).await? else { break };
            tracing::info!(%day, done, "daily sales persisted");
        }
        warmed.map(drop)
    }

    async fn due_days(&self, now: Timestamp) -> Result<BTreeSet<NaiveDate>> {
        let yesterday = days_before(business_day(now, self.zone), 1);
        let over = |day: &NaiveDate| start_of(days_after(*day, 1), self.zone) + PERSIST_DELAY <= now;
        let done = self.days_persisted(days_before(yesterday, MAX_CATCH_UP_DAYS - 1)).await?;
        let last = done.last_key_value().map(|(day, _)| *day);
        let is_missed = |day: &NaiveDate| last.is_some_and(|last| *day > last);
        // A shop that has never persisted a day begins with a week, not with two months that have no sales.
        let recent = days_before(yesterday, CATCH_UP_DAYS - 1);
        let days = last_days(yesterday, MAX_CATCH_UP_DAYS).filter(over);
        let mut due: BTreeSet<NaiveDate> = days.filter(|day| *day >= recent || is_missed(day)).collect();
        due.retain(|day| !done.contains_key(day));
        if let Some(as_of) = done.get(&yesterday) {
            let pool = &self.database.pool();
            let today = days_after(yesterday, 1);
            let changed = db::sales::list_days_cancelled_since(pool, today, *as_of - MAX_COMMIT_DELAY, self.zone);
            if !db::within_limit(DAYS_TIMEOUT, changed).await?.is_empty() {
                due.insert(yesterday);
            }
        }
        Ok(due)
    }

    async fn days_persisted(&self, first: NaiveDate) -> Result<BTreeMap<NaiveDate, Timestamp>> {
        db::within(db::job_runs::list_done(&self.database.pool(), Job::PersistDailySales.name(), first)).await
    }

    async fn persist(&self, day: NaiveDate) -> Result<String> {
        let as_of = self.days_persisted(day).await?.get(&day).copied();
        // The first time: earlier cancellations are part of the days before, which were persisted after them.
        let since = as_of.map_or_else(|| start_of(day, self.zone), |as_of| as_of - MAX_COMMIT_DELAY);
        persist_daily_sales(&self.database, day, self.zone, since).await
    }
}
