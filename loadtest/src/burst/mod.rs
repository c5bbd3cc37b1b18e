//! A burst of claims on one campaign, or a soak of several bursts, through goose, and its audit; with faults on demand.

mod claim_list;
mod cost;
mod report;
mod scenario;

use std::{sync::Arc, time::Duration};

use anyhow::{Result, bail};
use claim_list::ClaimList;
use clap::Args;
use dibs_common::{
    domain::campaign::Campaign,
    identifiers::{CouponId, Partition},
};
use scenario::{Burst, REQUEST_TIMEOUT};
use tokio::time::Instant;

use crate::{
    RunStatus,
    api::Api,
    audit::{self, AuditReport, Evidence, ShopSettings},
    faults::{self, FaultArguments, Injected, Load, Planned},
    goose_run::{GooseRun, LoadArguments},
    numbers::grouped,
    output,
    processes::DedicatedStack,
    record::ClientRecord,
    stores::Stores,
    wait,
};

/// Campaigns of a soak. The memory of a run grows with one of them, not with all.
const SOAK_CAMPAIGNS: u32 = 10;
/// How long a fault waits for claims on the stream, so that it hits a busy worker.
const BACKLOG_TIMEOUT: Duration = Duration::from_secs(2);
const POLL_INTERVAL: Duration = Duration::from_millis(1);

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
    /// A soak of so many accepted claims, on a stack of the run's own: ten campaigns one after the other, each claimed
    /// by as many users as it has coupons and audited before the next; then an audit of everything, and what it took
    #[arg(long, conflicts_with_all = ["coupons", "users", "requests"],
        value_parser = clap::value_parser!(u32).range(i64::from(SOAK_CAMPAIGNS)..=100_000_000))]
    pub claims: Option<u32>,
    /// Goose users, each with one claim in flight: a closed model
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..))]
    pub concurrency: u16,
    #[command(flatten)]
    pub load: LoadArguments,
    #[command(flatten)]
    pub faults: FaultArguments,
}

/// One campaign, and the claims on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Wave {
    coupons: u32,
    users: u64,
    requests: u64,
    seed: u64,
}

impl Wave {
    /// Claims that can be accepted. Faults are spread over these, not over those that are sent.
    fn quantity(&self) -> u64 {
        u64::from(self.coupons).min(self.users)
    }
}

impl BurstArguments {
    fn waves(&self) -> Vec<Wave> {
        let seed = self.load.seed;
        let Some(claims) = self.claims else {
            return vec![Wave { coupons: self.coupons, users: self.users, requests: self.requests, seed }];
        };
        let of = |number| {
            // The first ones have one more each, when the campaigns cannot be equal.
            let coupons = claims / SOAK_CAMPAIGNS + u32::from(number < claims % SOAK_CAMPAIGNS);
            let users = u64::from(coupons);
            Wave { coupons, users, requests: users + users / 10, seed: seed + u64::from(number) }
        };
        (0..SOAK_CAMPAIGNS).map(of).collect()
    }
}

struct BurstResult {
    record: ClientRecord,
    elapsed: Duration,
    injected: Vec<Injected>,
}

/// Sends the claims, waits for the worker, audits, and prints the report.
pub async fn run(arguments: BurstArguments) -> Result<RunStatus> {
    // clap checks ranges of single arguments only.
    if arguments.requests < arguments.users {
        bail!("--requests: expected at least as many as --users, since each user claims at least once");
    }
    let waves = arguments.waves();
    if arguments.faults.total() > 0 || arguments.claims.is_some() {
        return run_on_own_stack(&arguments, &waves).await;
    }
    let api = arguments.load.api()?;
    let stores = Stores::connect(&arguments.load.stores).await?;
    let mut differences = 0;
    for wave in &waves {
        let coupon = api.open_campaign("burst", wave.coupons).await?;
        let result = send_claims(&arguments, wave, api.base(), coupon, async |_| Ok(Vec::new())).await?;
        differences += conclude(&arguments, &stores, (coupon, wave), &result).await?;
    }
    Ok(audit::conclude(differences))
}

async fn run_on_own_stack(arguments: &BurstArguments, waves: &[Wave]) -> Result<RunStatus> {
    let mut stack = DedicatedStack::start(&arguments.load.stores.database_url, &arguments.faults, Vec::new()).await?;
    let stores = Stores::connect(stack.stores()).await?;
    let claims = waves.iter().map(Wave::quantity).sum();
    let schedule = faults::schedule(&arguments.faults, claims);
    let (began, mut claimed, mut differences) = (Instant::now(), 0, 0);
    for wave in waves {
        let passed = claimed..claimed + wave.quantity();
        let schedule: Vec<Planned> = schedule
            .iter()
            .filter(|planned| passed.contains(&planned.due))
            .map(|planned| Planned { due: planned.due - passed.start, ..*planned })
            .collect();
        differences += run_wave(arguments, wave, &mut stack, &stores, &schedule).await?;
        claimed = passed.end;
        if waves.len() > 1 {
            let (claimed, claims) = (grouped(claimed), grouped(claims));
            let seconds = began.elapsed().as_secs();
            output::note(&format!("{claimed} of {claims} claims after {seconds} s: {differences} differences"));
        }
    }
    if arguments.claims.is_some() {
        // Before the last audit, which is not part of what the claims took.
        let cost = cost::render(&stack, &stores, claims, began.elapsed()).await?;
        // What was right after its campaign may be wrong by now.
        let settings = ShopSettings::default();
        differences +=
            audit::audit_everything(&stores, arguments.load.drain_timeout(), settings, Evidence::default()).await?;
        output::line(&cost);
    }
    let status = audit::conclude(differences);
    stores.close().await;
    stack.stop(status == RunStatus::Failed).await?;
    Ok(status)
}

/// Sends the claims of a wave while faults are injected, audits, and returns the differences.
async fn run_wave(
    arguments: &BurstArguments,
    wave: &Wave,
    stack: &mut DedicatedStack,
    stores: &Stores,
    schedule: &[Planned],
) -> Result<u64> {
    let api: Api = stack.stack().api()?;
    let coupon = api.open_campaign("burst with faults", wave.coupons).await?;
    let Campaign { partition, .. } = stores.campaign(coupon).await?;
    let result = send_claims(arguments, wave, api.base(), coupon, async |burst| {
        faults::inject(schedule, &AcceptedClaims { list: &burst.list, stores, partition }, stack).await
    })
    .await?;
    let differences = conclude(arguments, stores, (coupon, wave), &result).await?;
    if !schedule.is_empty() {
        output::line(&faults::render(schedule, &result.injected));
    }
    Ok(differences)
}

/// Faults are due at a number of accepted claims. Until one is over, claims are handed out only up to the next one:
/// otherwise the campaign would be sold out before the second fault. Within that limit traffic goes on meanwhile.
struct AcceptedClaims<'b> {
    list: &'b ClaimList,
    stores: &'b Stores,
    partition: Partition,
}

impl Load for AcceptedClaims<'_> {
    fn position(&self) -> u64 {
        self.list.accepted()
    }

    fn is_over(&self) -> bool {
        self.list.is_exhausted()
    }

    fn hold_at(&self, position: u64) {
        self.list.set_accepted_limit(position);
    }

    async fn is_busy(&self) -> bool {
        // A fault of an idle worker is reported as such, and is no error. Redis may still restart after the fault
        // before.
        wait::until("a backlog", BACKLOG_TIMEOUT, POLL_INTERVAL, async || {
            Ok(self.stores.backlog(self.partition).await.unwrap_or(0) > 0)
        })
        .await
        .is_ok()
    }
}

/// Sends all claims, and runs `faults` at the same time.
async fn send_claims(
    arguments: &BurstArguments,
    wave: &Wave,
    api_url: &str,
    coupon: CouponId,
    faults: impl AsyncFnOnce(&Burst) -> Result<Vec<Injected>>,
) -> Result<BurstResult> {
    let list = ClaimList::new(wave.users, wave.requests, wave.seed);
    let progress = output::progress(list.len() as u64, "claims");
    let burst = Arc::new(Burst { coupon, list, progress });
    let (users, report) = (arguments.concurrency.into(), arguments.load.report.as_deref());
    let run = GooseRun { api_url, users, request_timeout: REQUEST_TIMEOUT, report };
    let began = Instant::now();
    let load = async {
        run.execute("burst", Arc::clone(&burst).transaction()).await?;
        Ok(began.elapsed())
    };
    // A fault that fails ends the load as well: the stack is in an unknown state then.
    let (elapsed, injected) = tokio::try_join!(load, faults(&burst))?;
    burst.progress.finish_and_clear();
    let record = burst.list.with_record(std::mem::take);
    // Goose ends a user whose request it cannot build, without an error: a burst with fewer claims would prove less.
    if record.observations.len() < burst.list.len() {
        bail!("goose sent {} of {} claims", record.observations.len(), burst.list.len());
    }
    Ok(BurstResult { record, elapsed, injected })
}

/// Waits until every claim is confirmed, audits, prints the report, and returns the differences.
async fn conclude(
    arguments: &BurstArguments,
    stores: &Stores,
    (coupon, wave): (CouponId, &Wave),
    result: &BurstResult,
) -> Result<u64> {
    let began = Instant::now();
    let mut report: AuditReport =
        audit::audit_drained(stores, coupon, arguments.load.drain_timeout(), Some(&result.record)).await?;
    let issued = u64::from(stores.campaign(coupon).await?.issued);
    // Every claim is final by now, so a coupon that is left was lost.
    report.checks.push(report::fully_issued(issued, wave.coupons.into(), wave.users));
    output::line(&report::responses(&result.record, result.elapsed));
    output::line(&report.render());
    output::line(&format!("\nconfirmed and audited {:.1} s after the last response", began.elapsed().as_secs_f64()));
    Ok(report.differences())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        burst: BurstArguments,
    }

    fn waves(more: &[&str]) -> Vec<Wave> {
        Line::parse_from(["burst", "--database-url=mysql://h/dibs"].iter().chain(more)).burst.waves()
    }

    #[test]
    fn a_burst_is_one_wave_and_a_soak_ten_that_claim_everything() {
        let one = Wave { coupons: 10, users: 20, requests: 30, seed: 1 };
        assert_eq!(waves(&["--coupons=10", "--users=20", "--requests=30"]), [one]);
        let soak = waves(&["--claims=10000005"]);
        assert_eq!(soak[0], Wave { coupons: 1_000_001, users: 1_000_001, requests: 1_100_001, seed: 1 });
        assert_eq!(soak[9], Wave { coupons: 1_000_000, users: 1_000_000, requests: 1_100_000, seed: 10 });
        assert_eq!((soak.len(), soak.iter().map(Wave::quantity).sum::<u64>()), (10, 10_000_005));
    }
}
