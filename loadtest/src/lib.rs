//! Load, faults, benchmarks and audits of Dibs, all from outside: over HTTP, and by reading MySQL and Redis.
//!
//! - [`burst`]: many users claim one campaign through goose, or a soak of campaigns; then the audit.
//! - [`shop`]: users browse, charge points, claim coupons, order, pay, confirm and cancel through goose; then the
//!   audit.
//! - [`assignments`]: a list of users is uploaded and gets a coupon while the worker is killed; then the audit.
//! - [`faults`]: kills, freezes and cuts of networks while either of them runs.
//! - [`audit`]: compares MySQL, Redis and the responses that a client recorded.
//! - [`bench`]: measures Dibs and a baseline in alternation.
//! - [`receiver`]: a webhook receiver that records every delivery attempt.
//! - [`baseline`]: the HTTP baseline, a server that parses a claim and stores nothing.

use std::{process::ExitCode, time::Duration};

use anyhow::{Context as _, Result};

pub mod api;
pub mod assignments;
pub mod audit;
pub mod baseline;
pub mod bench;
pub mod burst;
pub mod cli;
pub mod faults;
pub mod goose_run;
pub mod interruption;
pub mod latency;
pub mod numbers;
pub mod output;
pub mod processes;
pub mod receiver;
pub mod record;
pub mod shop;
pub mod stores;
pub mod wait;

use cli::{Cli, Command};
use dibs_common::runtime;

/// What a command concluded about the stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunStatus {
    Passed,
    /// The audit found differences.
    Failed,
}

/// Runs a command. Exit status 0: passed; 1: differences found; 2: the command could not run; 130: interrupted.
pub fn run(cli: Cli) -> ExitCode {
    let runtime = match cli.command {
        // The baseline server has as many threads as an API.
        Command::Baseline(_) => runtime::build(0, runtime::half_of_the_cores()),
        _ => tokio::runtime::Builder::new_multi_thread().enable_all().build(),
    };
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            output::note(&format!("starting the runtime: {error}"));
            return ExitCode::from(2);
        }
    };
    // Before any command runs: goose would otherwise install its own logger.
    output::quiet_libraries();
    let result = runtime.block_on(execute(cli));
    // Tasks that still run belong to a finished command; its processes are stopped already.
    runtime.shutdown_timeout(Duration::from_millis(100));
    exit_code(result)
}

fn exit_code(result: Result<Option<RunStatus>>) -> ExitCode {
    match result {
        Ok(Some(RunStatus::Passed)) => ExitCode::SUCCESS,
        Ok(Some(RunStatus::Failed)) => ExitCode::FAILURE,
        Ok(None) => {
            output::note("interrupted");
            ExitCode::from(130)
        }
        Err(error) => {
            output::note(&format!("{error:#}"));
            ExitCode::from(2)
        }
    }
}

/// None when interrupted. The command is then dropped, which kills the processes that it started.
async fn execute(cli: Cli) -> Result<Option<RunStatus>> {
    let interrupted = interruption::listen().context("listening for signals")?;
    let command = async {
        match cli.command {
            Command::Burst(arguments) => burst::run(arguments).await,
            Command::Shop(arguments) => shop::run(arguments).await,
            Command::Assignments(arguments) => assignments::run(arguments).await,
            Command::Audit(arguments) => audit::run(arguments).await,
            Command::Bench(arguments) => bench::run(arguments).await,
            Command::Baseline(arguments) => baseline::run(arguments).await,
            Command::Receiver(arguments) => receiver::run(arguments).await,
        }
    };
    tokio::select! {
            status = command => status.map(Some),
    // Dropping the command is enough: its processes are started with kill_on_drop.
            () = interrupted.wait() => Ok(None),
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_errors_and_interruptions_have_exit_codes_of_their_own() {
        let codes = [Ok(Some(RunStatus::Passed)), Ok(Some(RunStatus::Failed)), Err(anyhow::anyhow!("x")), Ok(None)];
        let expected = [0, 1, 2, 130].map(ExitCode::from);
        for (code, expected) in codes.into_iter().map(exit_code).zip(expected) {
            assert_eq!(format!("{code:?}"), format!("{expected:?}"));
        }
    }
}
