//! Faults of a run: which, when, and their outcome.
//!
//! A fault is due at a point of the load, so that all of them fall into the time in which the stack works. One is
//! injected at a time, and the next one after the stack has recovered.

mod report;
mod schedule;

use std::time::Duration;

use anyhow::Result;
use clap::Args;
pub use report::render;
pub use schedule::{Planned, schedule};
use strum::{EnumIter, IntoEnumIterator as _};
use tokio::time::sleep;

use crate::processes::{DedicatedStack, Program};

const POLL_INTERVAL: Duration = Duration::from_millis(1);
/// The most faults of one kind.
const MAX: u64 = 1000;

/// How often each fault is injected. Any of them makes the run start a stack of its own.
#[derive(Clone, Copy, Debug, Default, Args)]
#[command(next_help_heading = "Faults, on a stack of the run's own, spread evenly over the load")]
pub struct FaultArguments {
    /// Send SIGKILL to the worker so many times, and start another
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=MAX))]
    pub worker_kills: u64,
    /// Send SIGKILL to the API so many times, and start another
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=MAX))]
    pub api_kills: u64,
    /// Send SIGKILL to Redis so many times, and start it again after 1.5 s
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=MAX))]
    pub redis_kills: u64,
    /// Send SIGKILL to MySQL so many times, and start it again after 1.5 s: a server of the run's own, mysqld or
    /// mariadbd on PATH
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=MAX))]
    pub database_kills: u64,
    /// Stop the API and the worker in turn with SIGSTOP, and let it go on after 4 s, so many times
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=MAX))]
    pub freezes: u64,
    /// Cut the network between the programs and MySQL or Redis for 4 s, so many times. In turn: connections break and
    /// new ones are refused; nothing passes, and then goes on; connections stay silent for good, and new ones work
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=MAX))]
    pub cuts: u64,
}

impl FaultArguments {
    pub fn total(&self) -> u64 {
        FaultKind::iter().map(|kind| self.count(kind)).sum()
    }

    fn count(&self, kind: FaultKind) -> u64 {
        match kind {
            FaultKind::WorkerKill => self.worker_kills,
            FaultKind::ApiKill => self.api_kills,
            FaultKind::RedisKill => self.redis_kills,
            FaultKind::DatabaseKill => self.database_kills,
            FaultKind::Freeze => self.freezes,
            FaultKind::Cut => self.cuts,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumIter)]
pub enum FaultKind {
    WorkerKill,
    ApiKill,
    RedisKill,
    DatabaseKill,
    Freeze,
    Cut,
}

impl FaultKind {
    pub const fn describe(self) -> &'static str {
        match self {
            Self::WorkerKill => "SIGKILL to the worker",
            Self::ApiKill => "SIGKILL to the API",
            Self::RedisKill => "SIGKILL to Redis",
            Self::DatabaseKill => "SIGKILL to MySQL",
            Self::Freeze => "freeze of a process",
            Self::Cut => "cut of a network",
        }
    }

    /// The fault with this number of its kind, from 0 on. Targets and ways take turns.
    fn number(self, number: u64) -> Fault {
        let program = if number.is_multiple_of(2) { Program::Api } else { Program::Worker };
        let server = if number.is_multiple_of(2) { Server::Database } else { Server::Redis };
        match self {
            Self::WorkerKill => Fault::Kill(Program::Worker),
            Self::ApiKill => Fault::Kill(Program::Api),
            Self::RedisKill => Fault::RedisKill,
            Self::DatabaseKill => Fault::DatabaseKill,
            Self::Freeze => Fault::Freeze(program),
            Self::Cut => Fault::Cut(server, [Cut::Break, Cut::Silence, Cut::Forget][(number / 2 % 3) as usize]),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    Kill(Program),
    RedisKill,
    DatabaseKill,
    Freeze(Program),
    Cut(Server, Cut),
}

impl Fault {
    pub const fn kind(self) -> FaultKind {
        match self {
            Self::Kill(Program::Worker) => FaultKind::WorkerKill,
            Self::Kill(Program::Api) => FaultKind::ApiKill,
            Self::RedisKill => FaultKind::RedisKill,
            Self::DatabaseKill => FaultKind::DatabaseKill,
            Self::Freeze(_) => FaultKind::Freeze,
            Self::Cut(..) => FaultKind::Cut,
        }
    }
}

/// Whose network is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Server {
    Database,
    Redis,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Connections break, and new ones are refused.
    Break,
    /// Nothing passes; afterwards what was held back does.
    Silence,
    /// Connections stay silent for good, as after a firewall forgot them. New ones work at once.
    Forget,
}

/// A fault that was injected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Injected {
    pub kind: FaultKind,
    /// Whether the worker had something to do.
    pub was_busy: bool,
    /// Whether the load was over before it.
    pub was_late: bool,
}

/// The load that faults are spread over.
pub(crate) trait Load {
    /// How far it is, in the unit of the schedule.
    fn position(&self) -> u64;

    fn is_over(&self) -> bool;

    /// Keeps the load from passing a position before the fault that is due earlier is over.
    fn hold_at(&self, _position: u64) {}

    /// Waits a little until the worker has something to do; whether it has.
    async fn is_busy(&self) -> bool {
        true
    }
}

/// Injects the faults of a schedule while the load goes on.
pub(crate) async fn inject(
    schedule: &[Planned],
    load: &impl Load,
    stack: &mut DedicatedStack,
) -> Result<Vec<Injected>> {
    let mut injected = Vec::with_capacity(schedule.len());
    for (place, planned) in schedule.iter().enumerate() {
        load.hold_at(schedule::next_due(schedule, place));
        // It needs no limit of its own: the load ends.
        while load.position() < planned.due && !load.is_over() {
            stack.expect_alive()?;
            sleep(POLL_INTERVAL).await;
        }
        let (was_busy, was_late) = (load.is_busy().await, load.is_over());
        injected.push(Injected { kind: planned.fault.kind(), was_busy, was_late });
        if let Err(error) = stack.inject(planned.fault).await {
            // Its logs show why it did not recover.
            stack.keep();
            return Err(error.context(format!("{:?}, fault {} of {}", planned.fault, place + 1, schedule.len())));
        }
    }
    Ok(injected)
}
