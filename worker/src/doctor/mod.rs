//! `dibs-worker doctor`: looks for what is wrong around the processes, and says what to do. It changes nothing.

mod database;
mod finding;
mod processes;
mod receivers;
mod redis;

use std::process::ExitCode;

use dibs_common::{
    clock::Timestamp,
    config::describe_url,
    error::{Error, Result},
};
use finding::{Finding, Report, Status};

use crate::settings::{Doctor, WorkerSettings};

/// Clocks further apart make deadlines and windows wrong by a noticeable time.
const CLOCK_WARNING_MS: i64 = 500;
const CLOCK_ERROR_MS: i64 = 5_000;

/// The exit code is 0 when all is well, 1 for warnings and 2 for errors.
pub async fn run(settings: &WorkerSettings, Doctor { json }: Doctor) -> Result<ExitCode> {
    let mut findings = vec![check_settings(settings)];
    if findings[0].status == Status::Ok {
        findings.extend(database::check(settings).await);
        findings.extend(redis::check(settings).await);
        findings.extend(receivers::check(settings).await);
    }
    let report = Report::new(findings);
    if json {
        crate::cli::say_json(&report)?;
    } else {
        crate::cli::say(&report.to_string());
    }
    Ok(report.exit_code())
}

fn check_settings(settings: &WorkerSettings) -> Finding {
    let checked = settings.shared.check().and_then(|()| settings.webhooks.webhooks().map(drop));
    let checked = checked.and_then(|()| settings.kafka.check());
    let shared = &settings.shared;
    let found = match &checked {
        Ok(()) => format!("{}, {}", describe_url(&shared.database_url), describe_url(&shared.redis_url)),
        Err(error) => error.to_string(),
    };
    Finding::new("settings", found, "each is valid").unless(
        checked.is_ok(),
        Status::Error,
        "correct it; dibs-worker --help lists the settings",
    )
}

/// A dependency that does not answer.
fn unavailable(check: &str, error: &Error, remedy: &'static str) -> Finding {
    Finding::new(check, error.chain(), "it answers").unless(false, Status::Error, remedy)
}

/// The clock of a server, which was read at a time between `before` and `after` by this process.
fn compare_clocks(check: &str, server: Timestamp, before: Timestamp, after: Timestamp) -> Finding {
    let ahead = match () {
        () if server < before => server - before,
        () if server > after => server - after,
        () => chrono::TimeDelta::zero(),
    };
    clock_finding(check, ahead.num_milliseconds())
}

fn clock_finding(check: &str, ahead_ms: i64) -> Finding {
    let status = if ahead_ms.abs() > CLOCK_ERROR_MS { Status::Error } else { Status::Warning };
    let expected = format!("within {CLOCK_WARNING_MS} ms");
    Finding::new(check, format!("{ahead_ms} ms ahead"), expected).unless(
        ahead_ms.abs() <= CLOCK_WARNING_MS,
        status,
        "run a time service (NTP) on every machine; unset CLOCK_OFFSET_SECONDS",
    )
}
