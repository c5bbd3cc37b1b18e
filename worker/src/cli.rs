//! Commands of `dibs-worker`. Another process may hold the lease that one needs: then it waits, says so, and fails when
//! the lease is not released in time.

mod audit;
mod dead_letters;

use std::{future::Future, sync::Arc, time::Duration};

pub use audit::{audit, drift};
pub use dead_letters::dead_letters;

use dibs_common::{
    clock,
    db::{self, Database},
    domain::{
        admin_action::{ActionContext, NewAdminAction},
        event::Position,
    },
    error::{Error, Result},
    identifiers::{CouponId, new_uuid},
    redis::{Redis, scripts::CampaignCounts},
    retry::{self, RetryPolicy},
};
use serde::Serialize;

use crate::{
    campaigns,
    jobs::{Job, Jobs},
    ranking,
    settings::{JobRun, Rebuild, Rebuildable, WorkerSettings},
};

const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// `dibs-worker rebuild`.
pub async fn rebuild(settings: &WorkerSettings, rebuild: Rebuild) -> Result<()> {
    let Rebuild { what, day, wait, reason, json } = rebuild;
    let database = settings.shared.database(2)?;
    let redis = settings.shared.redis(1).await?;
    let wait = Duration::from_secs(wait);
    match (what, day) {
        (Rebuildable::Campaign(_), Some(_)) => {
            Err(Error::Setting("--day", "only 'rebuild ranking' takes a day".into()))
        }
        (Rebuildable::Campaign(coupon), None) => {
            let counts = rebuild_campaign(&database, &redis, coupon, wait).await?;
            let result = RebuiltCampaign { coupon_id: coupon, claimed: counts.claimed };
            let action = NewAdminAction::created("campaign.rebuild", &coupon, &result);
            record(&database, &context(reason), &action).await?;
            if json {
                return say_json(&result);
            }
            say(&format!("coupon {coupon} rebuilt, {} claimed", counts.claimed));
            Ok(())
        }
        (Rebuildable::Ranking, day) => {
            let zone = settings.shared.time_zone;
            if let Some(day) = day {
                db::retrying("persist_day", || db::sales::persist_day(&database, day, zone)).await?;
            }
            if !ranking::try_rebuild(&database, &redis, zone, clock::now()).await? {
                waiting("a running worker serves the ranking and rebuilds it", wait);
                ranking::await_rebuild(&redis, wait).await?;
            }
            if json {
                return say_json(&RebuiltRanking { ranking: "rebuilt" });
            }
            say("ranking rebuilt");
            Ok(())
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RebuiltCampaign {
    coupon_id: CouponId,
    claimed: u32,
}

#[derive(Serialize)]
struct RebuiltRanking {
    ranking: &'static str,
}

async fn rebuild_campaign(
    database: &Database,
    redis: &Redis,
    coupon: CouponId,
    wait: Duration,
) -> Result<CampaignCounts> {
    let rebuilt = under_lease(format!("coupon {coupon} is not rebuilt"), wait, async || {
        // Read at each attempt: the process that held the lease may have changed it.
        let campaign = db::within(db::campaigns::find(&database.pool(), coupon)).await?;
        campaigns::rebuild(database, redis, &campaign.ok_or(Error::CouponNotFound(coupon))?).await
    });
    rebuilt.await
}

/// Inserts what an operator did. It is done, so it is recorded after that.
async fn record(database: &Database, context: &ActionContext, action: &NewAdminAction) -> Result<()> {
    db::within(async {
        let mut connection = database.pool().acquire().await?;
        db::admin_actions::insert(&mut connection, context, action).await
    })
    .await
}

/// `dibs-worker job`.
pub async fn job(settings: &WorkerSettings, JobRun { job, day, wait }: JobRun) -> Result<()> {
    if day.is_some() && job != Job::PersistDailySales {
        return Err(Error::Setting("--day", "only persist-daily-sales takes a day".into()));
    }
    let jobs = Jobs {
        database: settings.shared.database(4)?,
        redis: settings.shared.redis(1).await?,
        zone: settings.shared.time_zone,
        partitions: settings.shared.claim_partitions,
        retention: settings.retention,
        expiry: Arc::default(),
    };
    let (name, wait) = (job.name(), Duration::from_secs(wait));
    let done = under_lease(format!("{name} did not run"), wait, async || jobs.run(job, day, clock::now()).await);
    say(&done.await?);
    Ok(())
}

/// `dibs-worker restored`. It needs no lease: running workers see the epoch.
pub async fn restored(settings: &WorkerSettings) -> Result<()> {
    let database = settings.shared.database(1)?;
    let begun = db::epochs::begin(&database, None, "dibs-worker restored", clock::now()).await?;
    let Position { epoch, sequence } = begun.ok_or_else(|| Error::internal("no epoch has begun"))?;
    say(&format!("epoch {epoch} begins after sequence {sequence}; workers rebuild the campaigns and the ranking"));
    Ok(())
}

/// Repeats an attempt that returns none while another process holds its lease.
async fn under_lease<T, F: Future<Output = Result<Option<T>>>>(
    undone: String,
    wait: Duration,
    mut attempt: impl FnMut() -> F,
) -> Result<T> {
    // At once, so that nothing is said where the lease is free.
    if let Some(done) = attempt().await? {
        return Ok(done);
    }
    waiting("another process is at it", wait);
    let done = retry::await_value(RetryPolicy::constant(POLL_INTERVAL).within(wait), attempt).await?;
    done.ok_or_else(|| Error::LeaseHeld { undone, waited: wait })
}

/// On standard error, as standard output belongs to the result.
fn waiting(reason: &str, limit: Duration) {
    eprintln!("{reason}; waiting up to {} s", limit.as_secs());
}

#[expect(clippy::print_stdout, reason = "people and scripts read it")]
pub(crate) fn say(line: &str) {
    println!("{line}");
}

/// A result as JSON, on one line.
pub(crate) fn say_json(value: &impl Serialize) -> Result<()> {
    say(&serde_json::to_string(value).map_err(Error::internal)?);
    Ok(())
}

/// Of an operator at the command line.
fn context(reason: Option<String>) -> ActionContext {
    ActionContext { reason, ..ActionContext::of_process("dibs-worker", new_uuid(), clock::now()) }
}
