//! A rush on one campaign, through goose, and its audit; with faults if asked.

mod claim_list;
mod faults;
mod report;
mod scenario;

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Result, bail};
use claim_list::ClaimList;
use clap::Args;
use dibs_common::{domain::campaign::Campaign, identifiers::CouponId};
use faults::{Kill, Killed};
use scenario::{Attack, Rush};
use secrecy::SecretString;
use tokio::time::Instant;

use crate::{
    Verdict,
    api::Api,
    audit::{self, Findings},
    output,
    processes::OwnStack,
    record::ClientRecord,
    stores::{StoreArguments, Stores},
};

/// How to rush.
#[derive(Debug, Args)]
pub struct RushArguments {
    /// How many coupons there are
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub coupons: u32,
    /// How many users claim; each at least once
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    pub users: u64,
    /// How many claims they make together: beyond one each, some claim twice, some three times
    #[arg(long, default_value_t = 130_000, value_parser = clap::value_parser!(u64).range(1..=30_000_000))]
    pub requests: u64,
    /// Goose users, each with one claim in flight: a closed model
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..))]
    pub concurrency: u16,
    /// Decides the order of the claims
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Kill the worker so many times, on a stack of the run's own
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=1000))]
    pub worker_kills: u64,
    /// Kill Redis so many times, on a stack of the run's own
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=1000))]
    pub redis_kills: u64,
    /// How long the worker may take afterwards to confirm what is on the stream
    #[arg(long, default_value_t = 120)]
    pub drain_seconds: u64,
    /// Write goose's report there, as HTML
    #[arg(long)]
    pub report: Option<PathBuf>,
    /// The API of the running stack
    #[arg(long, env, default_value = "http://127.0.0.1:8080")]
    pub api_url: String,
    /// The administrator's token of the running stack, to make a campaign with
    #[arg(long, env, hide_env_values = true, default_value = "", hide_default_value = true)]
    pub admin_token: SecretString,
    /// Where the running stack keeps its data
    #[command(flatten)]
    pub stores: StoreArguments,
}

/// What a rush came to.
struct Outcome {
    record: ClientRecord,
    elapsed: Duration,
    killed: Vec<Killed>,
}

/// Rushes, waits, audits, and prints.
pub async fn run(arguments: RushArguments) -> Result<Verdict> {
    if arguments.requests < arguments.users {
        bail!("--requests: expected at least as many as --users, since each claims at least once");
    }
    if arguments.worker_kills + arguments.redis_kills > 0 {
        run_with_faults(&arguments).await
    } else {
        let api = Api::new(&arguments.api_url, arguments.admin_token.clone())?;
        let stores = Stores::connect(&arguments.stores).await?;
        let coupon = api.open_campaign("rush", arguments.coupons).await?;
        let outcome = rush(&arguments, &arguments.api_url, coupon, async |_| Ok(Vec::new())).await?;
        conclude(&arguments, &stores, coupon, &outcome, &[]).await
    }
}

async fn run_with_faults(arguments: &RushArguments) -> Result<Verdict> {
    let mut own = OwnStack::start(&arguments.stores.database_url, Vec::new()).await?;
    let stores = Stores::connect(own.stores()).await?;
    let api_url = format!("http://{}", own.stack().api_address());
    let coupon = own.stack().api()?.open_campaign("rush with faults", arguments.coupons).await?;
    let Campaign { partition, .. } = stores.campaign(coupon).await?;
    let seats = u64::from(arguments.coupons).min(arguments.users);
    let schedule = faults::schedule(arguments.worker_kills, arguments.redis_kills, seats);
    let outcome = rush(arguments, &api_url, coupon, async |rush| {
        faults::execute(&schedule, rush, &mut own, &stores, partition).await
    })
    .await?;
    let verdict = conclude(arguments, &stores, coupon, &outcome, &schedule).await?;
    stores.database.close().await;
    stores.redis.close().await;
    own.stop(verdict == Verdict::Wrong).await?;
    Ok(verdict)
}

/// Makes all claims, with `faults` beside them.
async fn rush(
    arguments: &RushArguments,
    api_url: &str,
    coupon: CouponId,
    faults: impl AsyncFnOnce(&Rush) -> Result<Vec<Killed>>,
) -> Result<Outcome> {
    let list = ClaimList::new(arguments.users, arguments.requests, arguments.seed);
    let progress = output::progress(list.len() as u64, "claims");
    let rush = Arc::new(Rush { coupon, list, progress });
    let attack = Attack { api_url, concurrency: arguments.concurrency.into(), report: arguments.report.as_deref() };
    let began = Instant::now();
    let attacked = async {
        scenario::attack(Arc::clone(&rush), attack).await?;
        Ok(began.elapsed())
    };
    let (elapsed, killed) = tokio::try_join!(attacked, faults(&rush))?;
    rush.progress.finish_and_clear();
    let record = rush.list.with_record(std::mem::take);
    if record.entries.len() < rush.list.len() {
        bail!("goose made {} of {} claims", record.entries.len(), rush.list.len());
    }
    Ok(Outcome { record, elapsed, killed })
}

/// Waits until everything is confirmed, audits, and prints.
async fn conclude(
    arguments: &RushArguments,
    stores: &Stores,
    coupon: CouponId,
    outcome: &Outcome,
    schedule: &[Kill],
) -> Result<Verdict> {
    let limit = Duration::from_secs(arguments.drain_seconds);
    let began = Instant::now();
    let mut findings: Findings = audit::audit_at_rest(stores, coupon, limit, Some(&outcome.record)).await?;
    let issued = u64::from(stores.campaign(coupon).await?.issued);
    findings.checks.push(report::all_seats_taken(issued, arguments.coupons.into(), arguments.users));
    report::print_answers(&outcome.record, outcome.elapsed);
    if !schedule.is_empty() {
        report::print_kills(schedule, &outcome.killed);
    }
    findings.print();
    output::line(&format!("\nconfirmed and audited {:.1} s after the last answer", began.elapsed().as_secs_f64()));
    Ok(audit::verdict(findings.differences()))
}
