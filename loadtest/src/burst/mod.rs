//! A burst of claims on one campaign, through goose, and its audit; with faults on demand.

mod claim_list;
mod faults;
mod report;
mod scenario;

use std::{sync::Arc, time::Duration};

use anyhow::{Result, bail};
use claim_list::ClaimList;
use clap::Args;
use dibs_common::{domain::campaign::Campaign, identifiers::CouponId};
use faults::{ExecutedKill, PlannedKill};
use scenario::{Burst, REQUEST_TIMEOUT};
use tokio::time::Instant;

use crate::{
    RunStatus,
    audit::{self, AuditReport},
    goose_run::{GooseRun, LoadArguments},
    output,
    processes::DedicatedStack,
    record::ClientRecord,
    stores::Stores,
};

#[derive(Debug, Args)]
pub struct BurstArguments {
    /// Total quantity of the campaign
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub coupons: u32,
    /// Users who claim, each at least once
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    pub users: u64,
    /// Claims of all users together; those beyond one claim a user are second and third claims of some users
    #[arg(long, default_value_t = 130_000, value_parser = clap::value_parser!(u64).range(1..=30_000_000))]
    pub requests: u64,
    /// Goose users, each with one claim in flight: a closed model
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..))]
    pub concurrency: u16,
    /// Send SIGKILL to the worker so many times, on a stack of the run's own
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=1000))]
    pub worker_kills: u64,
    /// Send SIGKILL to Redis so many times, on a stack of the run's own
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=1000))]
    pub redis_kills: u64,
    #[command(flatten)]
    pub load: LoadArguments,
}

struct BurstResult {
    record: ClientRecord,
    elapsed: Duration,
    kills: Vec<ExecutedKill>,
}

/// Sends the claims, waits for the worker, audits, and prints the report.
pub async fn run(arguments: BurstArguments) -> Result<RunStatus> {
    // clap checks ranges of single arguments only.
    if arguments.requests < arguments.users {
        bail!("--requests: expected at least as many as --users, since each user claims at least once");
    }
    if arguments.worker_kills + arguments.redis_kills > 0 {
        return run_with_faults(&arguments).await;
    }
    let api = arguments.load.api()?;
    let stores = Stores::connect(&arguments.load.stores).await?;
    let coupon = api.open_campaign("burst", arguments.coupons).await?;
    let result = send_claims(&arguments, api.base(), coupon, async |_| Ok(Vec::new())).await?;
    conclude(&arguments, &stores, coupon, &result, &[]).await
}

async fn run_with_faults(arguments: &BurstArguments) -> Result<RunStatus> {
    let mut stack = DedicatedStack::start(&arguments.load.stores.database_url, Vec::new()).await?;
    let stores = Stores::connect(stack.stores()).await?;
    let api = stack.stack().api()?;
    let coupon = api.open_campaign("burst with faults", arguments.coupons).await?;
    let Campaign { partition, .. } = stores.campaign(coupon).await?;
    // Kills are spread over the claims that can be accepted, not over those that are sent.
    let quantity = u64::from(arguments.coupons).min(arguments.users);
    let schedule = faults::schedule(arguments.worker_kills, arguments.redis_kills, quantity);
    let result = send_claims(arguments, api.base(), coupon, async |burst| {
        faults::execute(&schedule, burst, &mut stack, &stores, partition).await
    })
    .await?;
    let status = conclude(arguments, &stores, coupon, &result, &schedule).await?;
    stores.close().await;
    stack.stop(status == RunStatus::Failed).await?;
    Ok(status)
}

/// Sends all claims, and runs `faults` at the same time.
async fn send_claims(
    arguments: &BurstArguments,
    api_url: &str,
    coupon: CouponId,
    faults: impl AsyncFnOnce(&Burst) -> Result<Vec<ExecutedKill>>,
) -> Result<BurstResult> {
    let list = ClaimList::new(arguments.users, arguments.requests, arguments.load.seed);
    let progress = output::progress(list.len() as u64, "claims");
    let burst = Arc::new(Burst { coupon, list, progress });
    let (users, report) = (arguments.concurrency.into(), arguments.load.report.as_deref());
    let run = GooseRun { api_url, users, request_timeout: REQUEST_TIMEOUT, report };
    let began = Instant::now();
    let load = async {
        run.execute("burst", Arc::clone(&burst).transaction()).await?;
        Ok(began.elapsed())
    };
    // A kill that fails ends the load as well: the stack is in an unknown state then.
    let (elapsed, kills) = tokio::try_join!(load, faults(&burst))?;
    burst.progress.finish_and_clear();
    let record = burst.list.with_record(std::mem::take);
    // Goose ends a user whose request it cannot build, without an error: a burst with fewer claims would prove less.
    if record.observations.len() < burst.list.len() {
        bail!("goose sent {} of {} claims", record.observations.len(), burst.list.len());
    }
    Ok(BurstResult { record, elapsed, kills })
}

/// Waits until every claim is confirmed, audits, and prints the report.
async fn conclude(
    arguments: &BurstArguments,
    stores: &Stores,
    coupon: CouponId,
    result: &BurstResult,
    schedule: &[PlannedKill],
) -> Result<RunStatus> {
    let began = Instant::now();
    let mut report: AuditReport =
        audit::audit_drained(stores, coupon, arguments.load.drain_timeout(), Some(&result.record)).await?;
    let issued = u64::from(stores.campaign(coupon).await?.issued);
    // Every claim is final by now, so a coupon that is left was lost.
    report.checks.push(report::fully_issued(issued, arguments.coupons.into(), arguments.users));
    output::line(&report::responses(&result.record, result.elapsed));
    if !schedule.is_empty() {
        output::line(&report::kills(schedule, &result.kills));
    }
    output::line(&report.render());
    output::line(&format!("\nconfirmed and audited {:.1} s after the last response", began.elapsed().as_secs_f64()));
    Ok(audit::conclude(report.differences()))
}
