//! Load, faults, measurements and audits of Dibs, all from outside: over HTTP, and by reading MySQL and Redis.
//!
//! - [`rush`]: many users rush one campaign, through goose; with faults if asked; then the audit.
//! - [`shop`]: users browse, charge points, claim coupons, order, pay, confirm and cancel, through goose; while the
//!   worker is killed if asked; then the audit.
//! - [`audit`]: MySQL against Redis against what a client was answered.
//! - [`bench`]: claims and confirmations beside the barest thing that could do the same.
//! - [`receiver`]: a receiver of webhooks, which records what comes.
//! - [`bare`]: that barest thing for HTTP.

use std::{process::ExitCode, time::Duration};

pub mod api;
pub mod audit;
pub mod bare;
pub mod bench;
pub mod cli;
pub mod interruption;
pub mod latency;
pub mod numbers;
pub mod output;
pub mod processes;
pub mod receiver;
pub mod record;
pub mod rng;
pub mod rush;
pub mod shop;
pub mod stores;
pub mod waiting;

use anyhow::{Context as _, Result};
use cli::{Cli, Command};

/// What a command found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Everything is as it must be.
    Right,
    /// Something is not.
    Wrong,
}

/// Runs a command: 0 when all is right, 1 when something is wrong, 2 when it could not be found out, 130 when
/// interrupted.
pub fn run(cli: Cli) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            output::note(&format!("no runtime: {error}"));
            return ExitCode::from(2);
        }
    };
    output::quiet_libraries();
    let outcome = runtime.block_on(execute(cli));
    // Whatever is still going on belongs to a run that is over; processes it started are gone already.
    runtime.shutdown_timeout(Duration::from_millis(100));
    match outcome {
        Ok(Some(Verdict::Right)) => ExitCode::SUCCESS,
        Ok(Some(Verdict::Wrong)) => ExitCode::FAILURE,
        Ok(None) => {
            output::note("interrupted");
            ExitCode::from(130)
        }
        Err(failure) => {
            output::note(&format!("{failure:#}"));
            ExitCode::from(2)
        }
    }
}

/// None when interrupted: the command is dropped where it stands, and with it the processes it started.
async fn execute(cli: Cli) -> Result<Option<Verdict>> {
    let interrupted = interruption::listen().context("listening for signals")?;
    let command = async {
        match cli.command {
            Command::Rush(arguments) => rush::run(arguments).await,
            Command::Shop(arguments) => shop::run(arguments).await,
            Command::Audit(arguments) => audit::run(arguments).await,
            Command::Bench(arguments) => bench::run(arguments).await,
            Command::Bare(arguments) => bare::run(arguments).await,
            Command::Receiver(arguments) => receiver::run(arguments).await,
        }
    };
    tokio::select! {
        verdict = command => verdict.map(Some),
        () = interrupted.wait() => Ok(None),
    }
}
