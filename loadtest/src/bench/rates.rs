//! Requests a second of accepted and of rejected claims, in turn with the baseline server.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Result, bail};
use hyper::StatusCode;
use tokio::time::sleep;

use super::{
    client::{ClientPool, Measurement, StopCondition, Target, closed_loop},
    harness::{BenchCampaign, Harness},
    open_loop::{OpenLoad, open_loop},
};
use crate::{latency::Latencies, numbers::per_second};

/// More coupons than a bench can claim.
const UNLIMITED_QUANTITY: u32 = 2_000_000_000;
/// More claims than a slice can send, so that each slice has its own users.
pub const USERS_PER_SLICE: u64 = 100_000_000;
const OPEN_WARM_UP: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workload {
    /// Claims are accepted; the worker is stopped.
    Accepted,
    /// Claims are accepted, and the worker confirms them at the same time.
    Confirming,
    /// Claims on a campaign that is sold out.
    Rejected,
}

impl Workload {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Accepted => "accepted, worker stopped",
            Self::Confirming => "accepted, worker confirming",
            Self::Rejected => "rejected, sold out",
        }
    }

    /// The smallest share of the baseline server's rate that is acceptable.
    pub const fn threshold(self) -> f64 {
        match self {
            Self::Accepted | Self::Confirming => 0.6,
            Self::Rejected => 0.85,
        }
    }
}

/// The rounds of one workload, or of the baseline.
#[derive(Clone, Debug, Default)]
pub struct Rounds {
    /// Requests a second of each round.
    pub rates: Vec<f64>,
    /// Share of the baseline's rate in the same round; empty for the baseline itself.
    pub shares: Vec<f64>,
    /// Confirmed claims a second of each round with a worker.
    pub confirmed: Vec<f64>,
    pub latencies: Latencies,
}

impl Rounds {
    fn add(&mut self, measured: &Measurement) {
        self.rates.push(measured.rate());
        self.latencies.merge(&measured.latencies);
    }
}

/// The rounds of a workload and of the baseline that was measured in turn with it.
#[derive(Clone, Debug, Default)]
pub struct PairedRounds {
    pub baseline: Rounds,
    pub dibs: Rounds,
}

impl PairedRounds {
    pub fn add(&mut self, pair: &PairedMeasurement) {
        self.baseline.add(&pair.baseline);
        self.dibs.add(&pair.dibs);
        self.dibs.shares.push(pair.dibs.rate() / pair.baseline.rate());
    }
}

#[derive(Clone, Debug, Default)]
pub struct PairedMeasurement {
    pub baseline: Measurement,
    pub dibs: Measurement,
}

/// How a workload is measured: in short slices, in turn with the baseline, each on new connections. So noise of the
/// machine, and how the threads happen to spread over its cores, affect both alike.
#[derive(Clone, Copy, Debug)]
pub struct SamplingSettings {
    pub clients: ClientPool,
    /// Not measured, before each slice.
    pub warm_up: Duration,
    pub slice: Duration,
    /// Slices in a round.
    pub slices: u32,
}

impl SamplingSettings {
    /// The measured time of a round.
    pub fn time(self) -> Duration {
        self.slice * self.slices
    }

    pub async fn measure(&self, target: Target) -> Result<Measurement> {
        closed_loop(target, self.clients, StopCondition::Time { warm_up: self.warm_up, measured: self.slice }).await
    }
}

/// Measures a round of a workload, in turn with the server at `baseline`.
pub async fn measure(
    harness: &mut Harness,
    baseline: SocketAddr,
    sampling: SamplingSettings,
    workload: Workload,
    rounds: &mut PairedRounds,
) -> Result<()> {
    let (campaign, mut target) = prepare(harness, workload).await?;
    let mut baseline = Target { address: baseline, expected: StatusCode::ACCEPTED, ..target };
    let (mut pair, mut confirmed) = (PairedMeasurement::default(), 0);
    for _ in 0..sampling.slices {
        pair.baseline.append(&sampling.measure(baseline).await?);
        // At the same time as the load: what is confirmed afterwards does not count.
        let (measured, newly_confirmed) =
            tokio::try_join!(sampling.measure(target), confirmations(harness, sampling, campaign))?;
        pair.dibs.append(&measured);
        confirmed += newly_confirmed;
        target.first_user += USERS_PER_SLICE;
        baseline.first_user += USERS_PER_SLICE;
        // The next slice of the baseline must not run beside a worker that still confirms.
        if workload == Workload::Confirming {
            harness.until_drained(campaign).await?;
        }
    }
    rounds.add(&pair);
    match workload {
        Workload::Confirming => rounds.dibs.confirmed.push(per_second(confirmed, pair.dibs.elapsed)),
        // A worker of another stack would falsify what is measured without one.
        _ if confirmed > 0 => bail!("another worker confirms claims on these servers: the bench needs its own"),
        _ => {}
    }
    harness.expect_alive()?;
    harness.stop_worker().await?;
    harness.retire(campaign).await
}

/// Measures a round of two targets in turn.
pub async fn measure_in_turn(
    sampling: SamplingSettings,
    baseline: Target,
    target: Target,
    rounds: &mut PairedRounds,
) -> Result<()> {
    let mut pair = PairedMeasurement::default();
    for _ in 0..sampling.slices {
        pair.baseline.append(&sampling.measure(baseline).await?);
        pair.dibs.append(&sampling.measure(target).await?);
    }
    rounds.add(&pair);
    Ok(())
}

/// Creates the campaign of a workload, and the claims on it.
pub async fn prepare(harness: &mut Harness, workload: Workload) -> Result<(BenchCampaign, Target)> {
    let quantity = if workload == Workload::Rejected { 1 } else { UNLIMITED_QUANTITY };
    let campaign = harness.open_campaign(quantity).await?;
    let (address, request) = (harness.api_address(), campaign.request());
    let target = Target { address, request, first_user: 1, expected: StatusCode::ACCEPTED };
    match workload {
        Workload::Accepted => Ok((campaign, target)),
        Workload::Confirming => {
            harness.start_worker().await?;
            Ok((campaign, target))
        }
        Workload::Rejected => {
            // The only coupon of the campaign is claimed first.
            let one = ClientPool { connections: 1, threads: 1 };
            closed_loop(target, one, StopCondition::Requests(1)).await?;
            Ok((campaign, Target { first_user: 2, expected: StatusCode::UNPROCESSABLE_ENTITY, ..target }))
        }
    }
}

/// Claims confirmed during a slice, without its warm-up.
async fn confirmations(harness: &Harness, sampling: SamplingSettings, campaign: BenchCampaign) -> Result<u64> {
    sleep(sampling.warm_up).await;
    let before = harness.confirmed(campaign).await?;
    sleep(sampling.slice).await;
    Ok(harness.confirmed(campaign).await? - before)
}

/// The open model: `rate` accepted claims a second while the worker confirms them.
pub async fn measure_open(harness: &mut Harness, sampling: SamplingSettings, rate: f64) -> Result<Measurement> {
    let (campaign, target) = prepare(harness, Workload::Confirming).await?;
    let load = OpenLoad { rate, warm_up: OPEN_WARM_UP, measured: sampling.time() };
    let measured = open_loop(target, sampling.clients, load).await?;
    harness.until_drained(campaign).await?;
    harness.stop_worker().await?;
    harness.retire(campaign).await?;
    Ok(measured)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measurement(responses: u64, seconds: u64) -> Measurement {
        Measurement { responses, elapsed: Duration::from_secs(seconds), latencies: Latencies::default() }
    }

    #[test]
    fn a_share_is_of_the_baseline_in_the_same_round() {
        let mut rounds = PairedRounds::default();
        rounds.add(&PairedMeasurement { baseline: measurement(200, 2), dibs: measurement(60, 1) });
        rounds.add(&PairedMeasurement { baseline: measurement(400, 2), dibs: measurement(100, 1) });
        assert_eq!((rounds.baseline.rates, rounds.dibs.rates), (vec![100.0, 200.0], vec![60.0, 100.0]));
        assert_eq!((rounds.dibs.shares, rounds.baseline.shares.len()), (vec![0.6, 0.5], 0));
    }

    #[test]
    fn the_time_of_a_round_is_that_of_its_slices() {
        let clients = ClientPool { connections: 1, threads: 1 };
        let slice = Duration::from_millis(500);
        let sampling = SamplingSettings { clients, warm_up: Duration::from_secs(9), slice, slices: 6 };
        assert_eq!(sampling.time(), Duration::from_secs(3));
    }

    #[test]
    fn a_rejection_must_be_cheaper_than_an_acceptance() {
        assert!(Workload::Rejected.threshold() > Workload::Accepted.threshold());
    }
}
