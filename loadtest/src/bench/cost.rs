//! What each thing costs: the CPU time that each process spends on it, by the accounting of the operating system. It
//! varies far less than throughput does on a machine that is shared. The unit is the request of a bare server, measured
//! in the same round.

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use super::{
    client::{ClientPool, Measurement, StopCondition, Target, closed_loop},
    harness::{BenchCampaign, Harness},
    orders,
    rates::{SamplingSettings, Workload, prepare},
};
use crate::{
    numbers::{median, real},
    wait,
};

const DONE_TIMEOUT: Duration = Duration::from_mins(5);
const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// Users of a warm-up are others than those that are measured: none claims twice.
const FIRST_WARM_UP_USER: u64 = 500_000_000;

/// CPU time of each process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuTimes {
    /// The baseline server.
    pub bare: Duration,
    pub api: Duration,
    pub worker: Duration,
    pub redis: Duration,
    pub mysql: Duration,
}

impl CpuTimes {
    fn since(self, earlier: Self) -> Self {
        Self {
            bare: self.bare.saturating_sub(earlier.bare),
            api: self.api.saturating_sub(earlier.api),
            worker: self.worker.saturating_sub(earlier.worker),
            redis: self.redis.saturating_sub(earlier.redis),
            mysql: self.mysql.saturating_sub(earlier.mysql),
        }
    }
}

/// A row of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cost {
    BareRequest,
    ApiClaimAccepted,
    ApiClaimRefused,
    RedisClaimDecided,
    MysqlClaimConfirmed,
    WorkerClaimConfirmed,
    RedisClaimAcknowledged,
    ClaimInAll,
    ApiOrder,
    RedisOrder,
    WorkerOrder,
    MysqlOrder,
    OrderInAll,
    OrderOutOfBacklog,
}

impl Cost {
    pub const fn name(self) -> &'static str {
        match self {
            Self::BareRequest => "bare server, request",
            Self::ApiClaimAccepted => "API, claim accepted",
            Self::ApiClaimRefused => "API, claim refused, sold out",
            Self::RedisClaimDecided => "Redis, claim decided and appended",
            Self::MysqlClaimConfirmed => "MySQL, claim confirmed",
            Self::WorkerClaimConfirmed => "worker, claim confirmed",
            Self::RedisClaimAcknowledged => "Redis, entry read and acknowledged",
            Self::ClaimInAll => "a confirmed claim in all",
            Self::ApiOrder => "API, order over HTTP",
            Self::RedisOrder => "Redis, order over HTTP",
            Self::WorkerOrder => "worker, order over HTTP",
            Self::MysqlOrder => "MySQL, order over HTTP",
            Self::OrderInAll => "an order over HTTP in all",
            Self::OrderOutOfBacklog => "an order out of a backlog in all",
        }
    }

    /// How many bare requests it may cost.
    pub const fn goal(self) -> Option<f64> {
        match self {
            Self::ApiClaimAccepted => Some(1.3),
            Self::ApiClaimRefused => Some(1.0),
            Self::RedisClaimDecided => Some(0.45),
            Self::MysqlClaimConfirmed => Some(1.8),
            Self::WorkerClaimConfirmed => Some(0.35),
            Self::RedisClaimAcknowledged => Some(0.1),
            Self::ClaimInAll => Some(4.0),
            _ => None,
        }
    }

    /// The rows that add up to it.
    const fn parts(self) -> &'static [Self] {
        match self {
            Self::ClaimInAll => &[
                Self::ApiClaimAccepted,
                Self::RedisClaimDecided,
                Self::MysqlClaimConfirmed,
                Self::WorkerClaimConfirmed,
                Self::RedisClaimAcknowledged,
            ],
            Self::OrderInAll => &[Self::ApiOrder, Self::RedisOrder, Self::WorkerOrder, Self::MysqlOrder],
            _ => &[],
        }
    }
}

/// The microseconds of each round.
#[derive(Clone, Debug, Default)]
pub struct CostRounds(BTreeMap<Cost, Vec<f64>>);

impl CostRounds {
    fn add(&mut self, cost: Cost, cpu: Duration, things: u64) {
        self.0.entry(cost).or_default().push(cpu.as_secs_f64() * 1e6 / real(things.max(1)));
    }

    fn add_sum(&mut self, cost: Cost) {
        let last = |part: &Cost| self.0.get(part).and_then(|rounds| rounds.last()).copied().unwrap_or_default();
        let sum = cost.parts().iter().map(last).sum();
        self.0.entry(cost).or_default().push(sum);
    }

    /// The report: medians of the rounds, each compared with the bare request of its own round.
    pub fn measured(&self) -> Vec<MeasuredCost> {
        let bare = self.0.get(&Cost::BareRequest).cloned().unwrap_or_default();
        self.0
            .iter()
            .map(|(cost, micros)| {
                let bare_requests: Vec<f64> = micros.iter().zip(&bare).map(|(micros, bare)| micros / bare).collect();
                let highest = bare_requests.iter().copied().fold(0.0, f64::max);
                let lowest = bare_requests.iter().copied().fold(highest, f64::min);
                MeasuredCost {
                    cost: *cost,
                    micros: median(micros),
                    bare_requests: median(&bare_requests),
                    spread: (highest - lowest) / 2.0,
                }
            })
            .collect()
    }
}

/// A row of the report, as `--json` prints it and `--compare` reads it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MeasuredCost {
    pub cost: Cost,
    /// CPU time in microseconds.
    pub micros: f64,
    /// The same in requests of the bare server.
    pub bare_requests: f64,
    /// Half of the difference between the dearest and the cheapest round, in bare requests.
    pub spread: f64,
}

impl MeasuredCost {
    /// How much it changed since an earlier run, when that exceeds the noise of both.
    pub fn change_since(self, earlier: Self) -> Option<f64> {
        let change = self.bare_requests - earlier.bare_requests;
        (change.abs() > self.spread + earlier.spread).then_some(change / earlier.bare_requests)
    }
}

/// Reads the JSON of an earlier run.
pub fn read_report(file: &Path) -> Result<Vec<MeasuredCost>> {
    let text = fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is not a report of --json", file.display()))
}

/// Measures a round of all rows.
pub async fn measure(
    harness: &mut Harness,
    sampling: SamplingSettings,
    backlog: u64,
    rounds: &mut CostRounds,
) -> Result<()> {
    measure_claims(harness, sampling, rounds).await?;
    measure_refusals(harness, sampling, rounds).await?;
    measure_orders(harness, sampling, backlog, rounds).await
}

/// Claims until all of them are confirmed: first without a worker, then by the worker alone.
async fn measure_claims(harness: &mut Harness, sampling: SamplingSettings, rounds: &mut CostRounds) -> Result<()> {
    let (campaign, target) = prepare(harness, Workload::Accepted).await?;
    let bare = Target { address: harness.baseline_address(), ..target };
    let (responses, used) = load(harness, sampling, bare).await?;
    rounds.add(Cost::BareRequest, used.bare, responses);
    let (accepted, used) = load(harness, sampling, target).await?;
    rounds.add(Cost::ApiClaimAccepted, used.api, accepted);
    rounds.add(Cost::RedisClaimDecided, used.redis, accepted);

    harness.launch_worker()?;
    let confirmed = until_confirmed(harness, campaign).await?;
    rounds.add(Cost::MysqlClaimConfirmed, confirmed.used.mysql, confirmed.things);
    rounds.add(Cost::WorkerClaimConfirmed, confirmed.used.worker, confirmed.things);
    rounds.add(Cost::RedisClaimAcknowledged, confirmed.used.redis, confirmed.things);
    rounds.add_sum(Cost::ClaimInAll);
    harness.stop_worker().await?;
    harness.retire(campaign).await
}

async fn measure_refusals(harness: &mut Harness, sampling: SamplingSettings, rounds: &mut CostRounds) -> Result<()> {
    let (campaign, target) = prepare(harness, Workload::Rejected).await?;
    let (refused, used) = load(harness, sampling, target).await?;
    rounds.add(Cost::ApiClaimRefused, used.api, refused);
    harness.retire(campaign).await
}

async fn measure_orders(
    harness: &mut Harness,
    sampling: SamplingSettings,
    backlog: u64,
    rounds: &mut CostRounds,
) -> Result<()> {
    let product = orders::hot_product(harness).await?;
    harness.start_worker().await?;
    let (placed, used) = load(harness, sampling, orders::order_target(harness, product)).await?;
    rounds.add(Cost::ApiOrder, used.api, placed);
    rounds.add(Cost::RedisOrder, used.redis, placed);
    rounds.add(Cost::WorkerOrder, used.worker, placed);
    rounds.add(Cost::MysqlOrder, used.mysql, placed);
    rounds.add_sum(Cost::OrderInAll);
    orders::until_drained(harness).await?;
    harness.stop_worker().await?;

    let product = orders::hot_product(harness).await?;
    orders::enqueue(&harness.stores.redis, product, backlog).await?;
    harness.launch_worker()?;
    let database = harness.stores.database.clone();
    let executed = spent(harness, backlog, async || orders::sold(&database, product).await).await?;
    let CpuTimes { worker, redis, mysql, .. } = executed.used;
    rounds.add(Cost::OrderOutOfBacklog, worker + redis + mysql, executed.things);
    orders::until_drained(harness).await?;
    harness.stop_worker().await
}

/// The closed model for the sampling time, after a warm-up; what it cost.
async fn load(harness: &Harness, sampling: SamplingSettings, target: Target) -> Result<(u64, CpuTimes)> {
    let clients: ClientPool = sampling.clients;
    let before = Target { first_user: FIRST_WARM_UP_USER, ..target };
    run(before, clients, sampling.warm_up).await?;
    let began = harness.cpu_times()?;
    let measured = run(target, clients, sampling.time()).await?;
    Ok((measured.responses, harness.cpu_times()?.since(began)))
}

async fn run(target: Target, clients: ClientPool, time: Duration) -> Result<Measurement> {
    closed_loop(target, clients, StopCondition::Time { warm_up: Duration::ZERO, measured: time }).await
}

/// What a worker has done, and what that cost.
struct Spent {
    things: u64,
    used: CpuTimes,
}

async fn until_confirmed(harness: &mut Harness, campaign: BenchCampaign) -> Result<Spent> {
    let stores = harness.stores.clone();
    let total = harness.claimed(campaign).await?;
    let confirmed = async || Ok(stores.campaign(campaign.coupon).await?.issued.into());
    let spent = spent(harness, total, confirmed).await?;
    harness.until_drained(campaign).await?;
    Ok(spent)
}

/// From the first progress on: the start of the worker is not part of it.
async fn spent(harness: &mut Harness, total: u64, done: impl AsyncFn() -> Result<u64>) -> Result<Spent> {
    let mut first = None;
    let mut last = (0, CpuTimes::default());
    wait::until(format!("{total} things done"), DONE_TIMEOUT, POLL_INTERVAL, async || {
        harness.expect_alive()?;
        let count = done().await?;
        if count > 0 {
            last = (count, harness.cpu_times()?);
            first.get_or_insert(last);
        }
        Ok(count >= total)
    })
    .await?;
    let (before, began) = first.unwrap_or_default();
    Ok(Spent { things: last.0 - before, used: last.1.since(began) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cost_is_compared_with_the_bare_request_of_its_round() {
        let mut rounds = CostRounds::default();
        for (bare, api) in [(10, 20), (20, 30), (10, 15)] {
            rounds.add(Cost::BareRequest, Duration::from_millis(bare), 1_000);
            rounds.add(Cost::ApiClaimAccepted, Duration::from_millis(api), 1_000);
            rounds.add_sum(Cost::ClaimInAll);
        }
        let measured = rounds.measured();
        let accepted = MeasuredCost { cost: Cost::ApiClaimAccepted, micros: 20.0, bare_requests: 1.5, spread: 0.25 };
        assert_eq!(measured[1], accepted);
        assert_eq!((measured[0].bare_requests, measured[2].micros), (1.0, 20.0));
    }

    #[test]
    fn only_a_change_beyond_the_noise_of_both_runs_counts() {
        let run = |bare_requests, spread| MeasuredCost { cost: Cost::ClaimInAll, micros: 1.0, bare_requests, spread };
        assert_eq!(run(3.0, 0.1).change_since(run(4.0, 0.1)), Some(-0.25));
        assert_eq!(run(4.1, 0.1).change_since(run(4.0, 0.1)), None);
    }

    #[test]
    fn a_report_is_read_as_it_was_written() {
        let report =
            vec![MeasuredCost { cost: Cost::MysqlClaimConfirmed, micros: 8.0, bare_requests: 1.0, spread: 0.5 }];
        let file = std::env::temp_dir().join(format!("dibs-test-{}.json", dibs_common::identifiers::new_uuid()));
        fs::write(&file, serde_json::to_string(&report).expect("JSON")).expect("written");
        assert_eq!(read_report(&file).expect("read"), report);
        fs::write(&file, "{}").expect("written");
        assert!(read_report(&file).expect_err("no report").to_string().contains("is not a report of --json"));
        fs::remove_file(&file).expect("removed");
    }
}
