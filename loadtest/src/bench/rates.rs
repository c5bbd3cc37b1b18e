//! Requests a second: accepted claims, and refused ones, each right after the bare server.

use std::time::Duration;

use anyhow::{Result, bail};
use hyper::StatusCode;
use tokio::time::sleep;

use super::{
    client::{ClientPool, Extent, Measured, Target, closed_loop},
    harness::{Harness, Subject},
    open_loop::open_loop,
};
use crate::{latency::Latencies, numbers::per_second};

/// More coupons than a bench can claim.
const ENDLESS: u32 = 2_000_000_000;
/// More claims than a slice can make, so that each has users of its own.
const USERS_A_SLICE: u64 = 100_000_000;
const OPEN_WARM_UP: Duration = Duration::from_secs(1);

/// What the API is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Claims that are accepted; nobody confirms.
    Accepted,
    /// Claims that are accepted, and confirmed at the same time.
    Confirming,
    /// Claims on a campaign that is sold out.
    Refused,
}

impl Phase {
    /// As the table names it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Accepted => "accepted, worker stopped",
            Self::Confirming => "accepted, worker confirming",
            Self::Refused => "refused, sold out",
        }
    }

    /// The least share of the bare server's rate.
    pub const fn bar(self) -> f64 {
        match self {
            Self::Accepted | Self::Confirming => 0.6,
            Self::Refused => 0.85,
        }
    }
}

/// The rounds of one phase.
#[derive(Clone, Debug, Default)]
pub struct Rounds {
    /// Requests a second, of each round.
    pub rates: Vec<f64>,
    /// Share of the bare server's rate meanwhile, of each round; empty for the bare server itself.
    pub shares: Vec<f64>,
    /// Rows confirmed a second meanwhile, of each round with a worker.
    pub confirmed: Vec<f64>,
    /// Of all rounds.
    pub latencies: Latencies,
}

impl Rounds {
    fn add(&mut self, measured: &Measured) {
        self.rates.push(measured.rate());
        self.latencies.merge(&measured.latencies);
    }
}

/// How each phase is measured: in slices, in turn with the bare server, each on new connections. So whatever else
/// the machine does, and however it happens to spread threads over cores, hits both alike.
#[derive(Clone, Copy, Debug)]
pub struct Manner {
    /// By whom.
    pub crowd: ClientPool,
    /// For how long, before a slice counts.
    pub warm_up: Duration,
    /// For how long, in each slice.
    pub slice: Duration,
    /// How many slices a round has.
    pub slices: u32,
}

impl Manner {
    /// The time of all slices together.
    pub fn time(self) -> Duration {
        self.slice * self.slices
    }

    async fn measure(&self, target: Target) -> Result<Measured> {
        closed_loop(target, self.crowd, Extent::Time { warm_up: self.warm_up, measured: self.slice }).await
    }
}

/// A round: measures bare server and phase in turn; adds to both.
pub async fn measure(
    rig: &mut Harness,
    manner: Manner,
    phase: Phase,
    (bare, rounds): (&mut Rounds, &mut Rounds),
) -> Result<()> {
    let (subject, mut target) = prepare(rig, phase).await?;
    let bare_target = Target { address: rig.bare_address(), expected: StatusCode::ACCEPTED, ..target };
    let (mut bare_total, mut total, mut confirmed) = (Measured::default(), Measured::default(), 0);
    for _ in 0..manner.slices {
        bare_total.append(&manner.measure(bare_target).await?);
        let (measured, newly_confirmed) =
            tokio::try_join!(manner.measure(target), confirmations(rig, manner, subject))?;
        total.append(&measured);
        confirmed += newly_confirmed;
        target.first_user += USERS_A_SLICE;
        if phase == Phase::Confirming {
            rig.until_drained(subject).await?;
        }
    }
    bare.add(&bare_total);
    rounds.add(&total);
    rounds.shares.push(total.rate() / bare_total.rate());
    match phase {
        Phase::Confirming => rounds.confirmed.push(per_second(confirmed, total.elapsed)),
        // Somebody else's worker would take part in what is measured without one.
        _ if confirmed > 0 => bail!("another worker confirms claims here: give the bench its own"),
        _ => {}
    }
    rig.expect_alive()?;
    rig.stop_worker().await?;
    rig.retire(subject).await
}

/// A round of two targets that need nothing done around them: measures both in turn, and adds to their rounds.
pub async fn in_turn(
    manner: Manner,
    (bare_target, target): (Target, Target),
    (bare, rounds): (&mut Rounds, &mut Rounds),
) -> Result<()> {
    let (mut bare_total, mut total) = (Measured::default(), Measured::default());
    for _ in 0..manner.slices {
        bare_total.append(&manner.measure(bare_target).await?);
        total.append(&manner.measure(target).await?);
    }
    bare.add(&bare_total);
    rounds.add(&total);
    rounds.shares.push(total.rate() / bare_total.rate());
    Ok(())
}

/// A campaign for the phase, and the claims to make.
async fn prepare(rig: &mut Harness, phase: Phase) -> Result<(Subject, Target)> {
    let subject = rig.open_campaign(if phase == Phase::Refused { 1 } else { ENDLESS }).await?;
    let (address, call) = (rig.api_address(), subject.call());
    let target = Target { address, call, first_user: 1, expected: StatusCode::ACCEPTED };
    match phase {
        Phase::Accepted => Ok((subject, target)),
        Phase::Confirming => {
            rig.start_worker().await?;
            Ok((subject, target))
        }
        Phase::Refused => {
            let first = ClientPool { connections: 1, threads: 1 };
            closed_loop(target, first, Extent::Count(1)).await?;
            Ok((subject, Target { first_user: 2, expected: StatusCode::UNPROCESSABLE_ENTITY, ..target }))
        }
    }
}

/// Rows confirmed while a slice counts.
async fn confirmations(rig: &Harness, manner: Manner, subject: Subject) -> Result<u64> {
    sleep(manner.warm_up).await;
    let before = rig.confirmed(subject).await?;
    sleep(manner.slice).await;
    Ok(rig.confirmed(subject).await? - before)
}

/// The open model: `rate` accepted claims a second while the worker confirms them.
pub async fn measure_open(rig: &mut Harness, manner: Manner, rate: f64) -> Result<Measured> {
    let (subject, target) = prepare(rig, Phase::Confirming).await?;
    let measured = open_loop(target, manner.crowd, rate, OPEN_WARM_UP, manner.time()).await?;
    rig.until_drained(subject).await?;
    rig.stop_worker().await?;
    rig.retire(subject).await?;
    Ok(measured)
}
