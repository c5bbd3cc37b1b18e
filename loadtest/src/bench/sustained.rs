//! The sustained rate: the highest load of the open model at which the worker confirms as many claims as are accepted,
//! so that the backlog stays bounded.

use std::time::Duration;

use anyhow::{Result, ensure};
use tokio::time::{Instant, sleep};

use super::{
    backlog::{self, BacklogRounds},
    client::{ClientPool, Measurement, StopCondition, closed_loop},
    harness::{BenchCampaign, Harness},
    open_loop::{OpenLoad, open_loop},
    rates::{Workload, prepare},
};
use crate::{
    numbers::{grouped_rate, real},
    output,
};

/// A higher backlog, in seconds of the load, is a load that is not sustained.
const BACKLOG_BOUND: f64 = 1.0;
/// The search ends when the highest load that held and the lowest that did not differ by less.
const PRECISION: f64 = 1.08;
const FIRST_RATE: f64 = 2_000.0;
/// The server's own limit ends the search: a client that cannot send as planned measures itself.
const HIGHEST_RATE: f64 = 1_000_000.0;
const TRIAL_TIME: Duration = Duration::from_secs(8);
/// How long a rate must hold.
pub const HELD_FOR: Duration = Duration::from_mins(1);
/// Each longer trial that fails takes the next lower rate.
const STEP_DOWN: f64 = 0.93;
const LOWEST_RATE: f64 = 100.0;
/// The load at which latency is measured once more.
pub const PART_LOAD: f64 = 0.7;
const PART_LOAD_TIME: Duration = Duration::from_secs(30);
const WARM_UP: Duration = Duration::from_secs(2);
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// What a constant load did.
#[derive(Clone, Debug)]
pub struct Trial {
    /// Planned claims a second.
    pub rate: f64,
    pub measured: Measurement,
    /// Claims confirmed in the measured time.
    pub confirmed: u64,
    /// The highest backlog in the measured time: claims that are accepted and not confirmed.
    pub backlog: u64,
}

impl Trial {
    /// Whether the worker kept up, and the API.
    fn is_sustained(&self) -> bool {
        let bound = self.rate * BACKLOG_BOUND;
        // A response a second late is a backlog of the API.
        real(self.backlog) <= bound && self.measured.latencies.duration_at(0.999).as_secs_f64() <= BACKLOG_BOUND
    }
}

/// The report's figures.
#[derive(Clone, Debug)]
pub struct Sustained {
    pub held: Trial,
    pub part_load: Trial,
    /// Requests a second of the baseline server.
    pub bare: f64,
    /// Rows a second of plain INSERTs of 500.
    pub inserts: f64,
}

/// Searches the sustained rate, holds it for a minute, and measures the limits beside it.
pub async fn measure(harness: &mut Harness, clients: ClientPool, claims: u64) -> Result<Sustained> {
    let mut search = Search::default();
    while let Some(rate) = search.next_rate() {
        let trial = run(harness, clients, rate, TRIAL_TIME).await?;
        note(&trial);
        search.add(&trial);
    }
    let mut rate = search.held;
    let held = loop {
        ensure!(rate >= LOWEST_RATE, "no rate of {LOWEST_RATE} claims a second and more is sustained");
        let trial = run(harness, clients, rate, HELD_FOR).await?;
        note(&trial);
        if trial.is_sustained() {
            break trial;
        }
        rate *= STEP_DOWN;
    };
    let part_load = run(harness, clients, held.rate * PART_LOAD, PART_LOAD_TIME).await?;
    note(&part_load);
    let (bare, inserts) = limits(harness, clients, claims).await?;
    Ok(Sustained { held, part_load, bare, inserts })
}

async fn limits(harness: &mut Harness, clients: ClientPool, claims: u64) -> Result<(f64, f64)> {
    let (campaign, mut target) = prepare(harness, Workload::Accepted).await?;
    target.address = harness.baseline_address();
    let stop = StopCondition::Time { warm_up: WARM_UP, measured: TRIAL_TIME };
    let bare = closed_loop(target, clients, stop).await?.rate();
    harness.retire(campaign).await?;
    let mut rounds = BacklogRounds::default();
    backlog::measure(harness, clients, claims, true, &mut rounds).await?;
    Ok((bare, rounds.text.into_iter().chain(rounds.prepared).fold(0.0, f64::max)))
}

/// A constant load on a campaign of its own, for a time.
async fn run(harness: &mut Harness, clients: ClientPool, rate: f64, time: Duration) -> Result<Trial> {
    let (campaign, target) = prepare(harness, Workload::Confirming).await?;
    let load = OpenLoad { rate, warm_up: WARM_UP, measured: time };
    let (measured, (confirmed, backlog)) =
        tokio::try_join!(open_loop(target, clients, load), watch(harness, campaign, load))?;
    harness.until_drained(campaign).await?;
    harness.expect_alive()?;
    harness.stop_worker().await?;
    harness.retire(campaign).await?;
    Ok(Trial { rate, measured, confirmed, backlog })
}

/// Watches the measured time: how many claims are confirmed, and the highest backlog.
async fn watch(harness: &Harness, campaign: BenchCampaign, load: OpenLoad) -> Result<(u64, u64)> {
    sleep(load.warm_up).await;
    let (began, before) = (Instant::now(), harness.confirmed(campaign).await?);
    let (mut confirmed, mut highest) = (before, 0);
    while began.elapsed() < load.measured {
        sleep(POLL_INTERVAL).await;
        // In this order: what is confirmed between the two makes the backlog look larger, never smaller.
        confirmed = harness.confirmed(campaign).await?;
        highest = highest.max(harness.claimed(campaign).await?.saturating_sub(confirmed));
    }
    Ok((confirmed - before, highest))
}

fn note(trial: &Trial) {
    output::note(&format!(
        "{} claims a second: backlog at most {}, p99 {}: {}",
        grouped_rate(trial.rate),
        grouped_rate(real(trial.backlog)),
        trial.measured.latencies.at(0.99),
        if trial.is_sustained() { "sustained" } else { "not sustained" }
    ));
}

/// Doubles the rate until it fails, then halves the interval.
#[derive(Clone, Copy, Debug, Default)]
struct Search {
    held: f64,
    failed: Option<f64>,
}

impl Search {
    fn next_rate(self) -> Option<f64> {
        match self.failed {
            None if self.held >= HIGHEST_RATE => None,
            None => Some((self.held * 2.0).max(FIRST_RATE)),
            Some(failed) if failed < LOWEST_RATE || failed / self.held < PRECISION => None,
            Some(failed) => Some(f64::midpoint(self.held, failed)),
        }
    }

    fn add(&mut self, trial: &Trial) {
        if trial.is_sustained() { self.held = trial.rate } else { self.failed = Some(trial.rate) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trial(rate: f64, backlog: u64, latency: Duration) -> Trial {
        let mut measured = Measurement::default();
        measured.latencies.record(latency);
        Trial { rate, measured, confirmed: 0, backlog }
    }

    #[test]
    fn a_second_of_backlog_or_of_latency_is_not_sustained() {
        assert!(trial(1_000.0, 1_000, Duration::from_millis(900)).is_sustained());
        assert!(!trial(1_000.0, 1_001, Duration::ZERO).is_sustained());
        assert!(!trial(1_000.0, 0, Duration::from_millis(1_100)).is_sustained());
    }

    #[test]
    fn the_search_ends_close_below_the_limit() {
        for limit in [150.0, 3_500.0, 7_000.0, 900_000.0] {
            let mut search = Search::default();
            while let Some(rate) = search.next_rate() {
                search.add(&trial(rate, if rate > limit { u64::MAX } else { 0 }, Duration::ZERO));
            }
            assert!(search.held <= limit && search.held * PRECISION >= limit, "{limit}: {search:?}");
        }
    }

    #[test]
    fn a_system_that_sustains_nothing_ends_the_search() {
        let mut search = Search::default();
        while let Some(rate) = search.next_rate() {
            search.add(&trial(rate, u64::MAX, Duration::ZERO));
        }
        assert!(search.held < LOWEST_RATE);
    }
}
