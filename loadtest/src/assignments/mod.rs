//! An assignment of a coupon to many users, uploaded as one list, while the worker is killed; then the audit.

mod list;
mod report;

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use dibs_common::identifiers::CouponId;
use list::list_body;
use report::{Measured, Memory};
use secrecy::SecretString;
use tokio::time::{Instant, sleep};

use crate::{
    RunStatus,
    api::{Api, AssignmentProgress},
    audit::{self, Check},
    faults::{Fault, FaultArguments},
    output,
    processes::{DedicatedStack, Program},
    stores::Stores,
};

/// How often memory is read.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(200);
/// The name of the assignment.
const KEY: &str = "everyone";
/// How long the assignment may make no progress: longer than a killed worker's entries stay pending.
const STALL_TIMEOUT: Duration = Duration::from_mins(1);

#[derive(Debug, Args)]
pub struct AssignmentsArguments {
    /// Users of the list
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(100..=50_000_000))]
    pub users: u32,
    /// Send SIGKILL to the worker so many times while it issues the coupons, and start another
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=100))]
    pub worker_kills: u32,
    /// The MySQL server and the base name of the run's own database
    #[arg(long, env, hide_env_values = true)]
    pub database_url: SecretString,
}

/// Uploads the list, waits until every user has an outcome, audits, and prints the report.
pub async fn run(arguments: AssignmentsArguments) -> Result<RunStatus> {
    let users = arguments.users;
    let settings = ["ASSIGNMENT_MAX_USERS", "ASSIGNMENT_DAILY_BUDGET", "ASSIGNMENT_APPROVAL_THRESHOLD"];
    let settings = settings.map(|name| (name, users.to_string())).to_vec();
    let faults = FaultArguments::default();
    let mut stack = DedicatedStack::start(&arguments.database_url, &faults, settings).await?;
    let stores = Stores::connect(stack.stores()).await?;
    let api = stack.stack().api()?;
    let coupon = api.open_campaign("assignments", users).await?;
    let (uploaded_in, uploading) = upload(&stack, &api, coupon, users).await?;
    let Issuing { elapsed: issued_in, memory: issuing, kills, progress } =
        issue(&mut stack, &api, coupon, &arguments).await?;
    let began = Instant::now();
    let repeated = api.upload_assignment(coupon, KEY, users, list_body(users)).await?;
    let repeated_in = began.elapsed();
    let measured = Measured { users, uploaded_in, issued_in, repeated_in, kills, uploading, issuing, progress };
    let mut report = audit::audit_drained(&stores, coupon, STALL_TIMEOUT, None).await?;
    report.checks.push(each_has_one(&stores, coupon, users, &repeated).await?);
    output::line(&report.render());
    output::line(&measured.render(stack.stack())?);
    let status = audit::conclude(report.differences());
    stores.close().await;
    stack.stop(status == RunStatus::Failed).await?;
    Ok(status)
}

/// Streams the list; how long that took, and the memory of the programs meanwhile.
async fn upload(stack: &DedicatedStack, api: &Api, coupon: CouponId, users: u32) -> Result<(Duration, Memory)> {
    let (began, mut memory) = (Instant::now(), Memory::default());
    let mut uploading = Box::pin(api.upload_assignment(coupon, KEY, users, list_body(users)));
    loop {
        tokio::select! {
            accepted = &mut uploading => {
                accepted?;
                return Ok((began.elapsed(), memory));
            }
            () = sleep(SAMPLE_INTERVAL) => memory.add(stack.stack().resident_bytes()?),
        }
    }
}

struct Issuing {
    /// From the acceptance to the outcome of the last user.
    elapsed: Duration,
    memory: Memory,
    kills: u32,
    /// How many had the coupon at what time.
    progress: Vec<(Duration, u32)>,
}

/// Waits until the assignment is done, and kills the worker meanwhile.
async fn issue(
    stack: &mut DedicatedStack,
    api: &Api,
    coupon: CouponId,
    arguments: &AssignmentsArguments,
) -> Result<Issuing> {
    let (began, mut memory, mut kills, mut samples) = (Instant::now(), Memory::default(), 0, Vec::new());
    let (mut progressed, mut before) = (began, 0);
    loop {
        let progress = api.assignment(coupon, KEY).await?;
        samples.push((began.elapsed(), progress.assigned));
        if progress.status == "DONE" {
            return Ok(Issuing { elapsed: began.elapsed(), memory, kills, progress: samples });
        }
        if progress.assigned > before {
            (progressed, before) = (Instant::now(), progress.assigned);
        }
        ensure!(progressed.elapsed() < STALL_TIMEOUT, "no progress after {before} users");
        memory.add(stack.stack().resident_bytes()?);
        // Spread evenly over the users.
        let due = u64::from(arguments.users) * u64::from(kills + 1) / (u64::from(arguments.worker_kills) + 1);
        if kills < arguments.worker_kills && u64::from(progress.assigned) >= due {
            stack.inject(Fault::Kill(Program::Worker)).await?;
            kills += 1;
            output::note(&format!("killed the worker after {} users", progress.assigned));
        } else {
            sleep(SAMPLE_INTERVAL).await;
        }
    }
}

/// Each user of the list has one coupon, and no other user has one.
async fn each_has_one(stores: &Stores, coupon: CouponId, users: u32, repeated: &AssignmentProgress) -> Result<Check> {
    let mut check = Check::new("I2");
    let counts: (i64, i64, u64, u64) = sqlx::query_as(
        "SELECT /* each_has_one */ COUNT(*), COUNT(DISTINCT user_id), \
         CAST(COALESCE(MIN(user_id), 0) AS UNSIGNED), CAST(COALESCE(MAX(user_id), 0) AS UNSIGNED) FROM user_coupons WHERE coupon_id = ?",
    )
    .bind(coupon.get())
    .fetch_one(&stores.database.pool())
    .await
    .context("counting coupons")?;
    let all = i64::from(users);
    // The ids of the list have no gap.
    let expected = (all, all, 1, u64::from(users));
    check.require(counts == expected, || format!("{counts:?} coupons, holders, first and last: {expected:?} expected"));
    check
        .require(repeated.status == "DONE" && repeated.assigned == users, || format!("a repeat answered {repeated:?}"));
    check.compared(format!("coupons of {users} users: each has one, also after the list was sent again"));
    Ok(check)
}
