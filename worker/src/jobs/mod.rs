//! What is done at certain times, or by hand: `dibs-worker job NAME`.
//!
//! Every worker has the same clock to go by. A lock of the database lets one at a time do a job, and `job_runs` says for
//! which business days it is done: so a day is done once, by whichever worker comes first, and one that was missed is
//! done later. A job that is done again gives the same result.

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
    db::{self, Database},
    domain::ranking::{business_day, days_after, days_before, last_days, start_of},
    error::{Error, Result},
    redis::Redis,
};
pub use persist::persist_daily_sales;
pub use schedule::run_on_schedule;
use tokio::{sync::Mutex, time::Instant};

use crate::{
    orders::{Expiry, expire_coupons},
    purge::{Purged, purge},
    ranking::warm,
};

/// How long after its end a day is persisted: 00:10.
const PERSISTED_AFTER: TimeDelta = TimeDelta::minutes(10);
/// How many missed days are caught up on when none was ever persisted, and at most.
const CAUGHT_UP: u64 = 7;
const CAUGHT_UP_AT_MOST: u64 = 60;
/// How long a job may be at work on something without saying so to the database that holds its lock.
const LONGEST: Duration = Duration::from_mins(15);
/// By how much later than it says an order may have been cancelled: the transaction had to end.
const LATE: TimeDelta = TimeDelta::minutes(1);
/// How long it may take to find the days of which orders were cancelled.
const PATIENCE: Duration = Duration::from_mins(1);
/// How long after its end a coupon is marked as expired: an order that was in time may still be on its way.
const SWEPT_AFTER: TimeDelta = TimeDelta::hours(1);

/// A job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Job {
    /// Add up what sold in the last 1, 3 and 7 days, for those who read
    WarmRanking,
    /// Write what sold on a day, by default yesterday, into the tables
    PersistDailySales,
    /// Tell overdue orders to expire
    ExpireOrders,
    /// Mark coupons whose validity is over
    ExpireCoupons,
    /// Delete what is kept for a time only
    Purge,
}

impl Job {
    /// As the command line and `job_runs` name it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::WarmRanking => "warm-ranking",
            Self::PersistDailySales => "persist-daily-sales",
            Self::ExpireOrders => "expire-orders",
            Self::ExpireCoupons => "expire-coupons",
            Self::Purge => "purge",
        }
    }
}

/// What jobs are done with.
#[derive(Clone)]
pub struct Jobs {
    /// The database.
    pub database: Database,
    /// Redis.
    pub redis: Redis,
    /// Where a business day begins.
    pub zone: Tz,
    /// Over how many partitions the commands of users are spread.
    pub partitions: u16,
    /// How far overdue orders were told to expire.
    pub expiry: Arc<Mutex<Expiry>>,
}

impl Jobs {
    /// Does a job, for `day` or the day that it is usually done for, and notes that in `job_runs`. Answers what it did;
    /// none when another process is at it.
    pub async fn run(&self, job: Job, day: Option<NaiveDate>, now: Timestamp) -> Result<Option<String>> {
        let today = business_day(now, self.zone);
        let usual = if job == Job::PersistDailySales { days_before(today, 1) } else { today };
        let day = day.unwrap_or(usual);
        if job == Job::PersistDailySales && day >= today {
            return Err(Error::Setting("--day", format!("expected a day that is over, got {day}; today is {today}")));
        }
        let Some(mut lock) = self.database.try_lease(&format!("job {}", job.name())).await? else { return Ok(None) };
        lock.hold_for(LONGEST).await?;
        let done = self.run_and_note(job, day, now).await;
        if let Err(error) = lock.release().await {
            tracing::debug!(job = job.name(), cause = error.chain(), "a lock was lost before it was released");
        }
        done.map(Some)
    }

    async fn run_and_note(&self, job: Job, day: NaiveDate, now: Timestamp) -> Result<String> {
        let pool = &self.database.pool();
        let (name, pool, began) = (job.name(), pool, Instant::now());
        db::within(db::job_runs::begin(pool, name, day, now)).await?;
        let done = self.perform(job, day, now).await;
        let outcome = if done.is_ok() { "done" } else { "failed" };
        metrics::counter!("dibs_job_runs_total", "job" => name, "outcome" => outcome).increment(1);
        metrics::histogram!("dibs_job_duration_seconds", "job" => name).record(began.elapsed());
        let ended = now + began.elapsed();
        let cause = done.as_ref().err().map(dibs_common::Error::chain);
        let detail = done.as_ref().map(String::as_str).map_err(|_| cause.as_deref().unwrap_or_default());
        db::within(db::job_runs::end(pool, name, day, detail, ended)).await?;
        done
    }

    /// What a job does, in words.
    async fn perform(&self, job: Job, day: NaiveDate, now: Timestamp) -> Result<String> {
        let Self { database, redis, .. } = self;
        Ok(match job {
            Job::WarmRanking => match warm(redis, self.zone, now).await? {
                Some(products) => format!("{products} products in 7 days"),
                None => "nothing: Redis has not counted sales yet".into(),
            },
            Job::PersistDailySales => self.persist(day).await?,
            Job::ExpireOrders => {
                let told = self.expiry.lock().await.tell(database, redis, self.partitions, now).await?;
                format!("{told} orders told to expire")
            }
            Job::ExpireCoupons => format!("{} coupons expired", self.expire_all_coupons(now).await?),
            Job::Purge => {
                let Purged { answers, outcomes, events, letters, refusals, left_alone } = purge(database, now).await?;
                let deleted = format!(
                    "deleted: {answers} answers, {outcomes} outcomes, {events} events, {letters} dead letters, \
                     {refusals} refusals"
                );
                match &*left_alone {
                    [] => deleted,
                    sinks => {
                        format!("{deleted}; for 7 days nobody has served {}, and no event waits", sinks.join(", "))
                    }
                }
            }
        })
    }

    async fn expire_all_coupons(&self, now: Timestamp) -> Result<u64> {
        let mut expired = 0;
        loop {
            match expire_coupons(&self.database, now - SWEPT_AFTER, now).await? {
                0 => return Ok(expired),
                some => expired += some,
            }
        }
    }

    /// Does what is due at `now`: the windows, and every day that is over and not persisted yet, of the last seven or since
    /// the last that was, the earliest first; yesterday again when orders of days that are over were cancelled since.
    pub async fn run_due(&self, now: Timestamp) -> Result<()> {
        let warmed = self.run(Job::WarmRanking, None, now).await;
        for day in self.due_days(now).await? {
            // Another process that is at it goes on with the days after it, too.
            let Some(done) = self.run(Job::PersistDailySales, Some(day), now).await? else { break };
            tracing::info!(%day, done, "a day is persisted");
        }
        warmed.map(drop)
    }

    async fn due_days(&self, now: Timestamp) -> Result<BTreeSet<NaiveDate>> {
        let yesterday = days_before(business_day(now, self.zone), 1);
        let over = |day: &NaiveDate| start_of(days_after(*day, 1), self.zone) + PERSISTED_AFTER <= now;
        let done = self.days_persisted(days_before(yesterday, CAUGHT_UP_AT_MOST - 1)).await?;
        let last = done.last_key_value().map(|(day, _)| *day);
        let is_missed = |day: &NaiveDate| last.is_some_and(|last| *day > last);
        let recent = days_before(yesterday, CAUGHT_UP - 1);
        let days = last_days(yesterday, CAUGHT_UP_AT_MOST).filter(over);
        let mut due: BTreeSet<NaiveDate> = days.filter(|day| *day >= recent || is_missed(day)).collect();
        due.retain(|day| !done.contains_key(day));
        if let Some(as_of) = done.get(&yesterday) {
            let pool = &self.database.pool();
            let (pool, today) = (pool, days_after(yesterday, 1));
            let changed = db::sales::list_days_cancelled_since(pool, today, *as_of - LATE, self.zone);
            if !db::within_limit(PATIENCE, changed).await?.is_empty() {
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
        // The first time: what was cancelled before this day is in the days before, persisted when they were over.
        let since = as_of.map_or_else(|| start_of(day, self.zone), |as_of| as_of - LATE);
        persist_daily_sales(&self.database, day, self.zone, since).await
    }
}
