//! Measurements, each beside the barest thing that could do the same, in alternation on one machine.

mod backlog;
mod bare_inserts;
mod bare_orders;
mod client;
mod harness;
mod open_loop;
mod orders;
mod ranking;
mod rates;
mod report;

use std::time::Duration;

use anyhow::Result;
use backlog::BacklogRounds;
use clap::{Args, ValueEnum};
use client::ClientPool;
use harness::Harness;
use orders::OrderRounds;
use ranking::RelayRounds;
use rates::{Manner, Phase, Rounds};

use crate::{Verdict, numbers::median, output, stores::StoreArguments};

/// What to measure.
#[derive(Debug, Args)]
pub struct BenchArguments {
    /// Measure only this; everything when left out
    #[arg(long, value_enum)]
    pub only: Option<Figure>,
    /// How many seconds each phase is measured in each round, in turn with the bare server
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=600))]
    pub seconds: u32,
    /// How long it runs before each of these seconds without being measured
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u64).range(..=60_000))]
    pub warm_up_millis: u64,
    /// Connections, each with one request in flight
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u16).range(1..))]
    pub connections: u16,
    /// Threads of the client
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub client_threads: u16,
    /// How often everything is measured; medians are shown
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=100))]
    pub rounds: u16,
    /// Claims that wait for the worker when it is measured how fast it confirms
    #[arg(long, default_value_t = 200_000, value_parser = clap::value_parser!(u64).range(1000..))]
    pub backlog: u64,
    /// Orders that wait for the worker when it is measured how fast it carries them out
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1000..))]
    pub orders: u64,
    /// Orders that pass while the memory of API and worker is watched; only when that is asked for with --only
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1000..))]
    pub memory_orders: u64,
    /// Products sold on each of seven days when it is measured what the hourly job costs
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1000..=10_000_000))]
    pub ranked_products: u64,
    /// Events that wait for the relay when it is measured how fast it sends them on
    #[arg(long, default_value_t = 200_000, value_parser = clap::value_parser!(u64).range(10_000..))]
    pub events: u64,
    /// Where the stack is to keep its data
    #[command(flatten)]
    pub stores: StoreArguments,
}

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Figure {
    /// Accepted claims a second
    Accepted,
    /// Claims a second that are refused because the campaign is sold out
    Refused,
    /// Rows a second that the worker confirms
    Confirm,
    /// Bytes of Redis for each claim
    Memory,
    /// Orders a second on one hot product
    Orders,
    /// Memory of API and worker while many orders pass
    OrderMemory,
    /// Reads of what sold best a second
    BestSellers,
    /// What the hourly job costs that adds up what sold
    Warm,
    /// Events a second that the relay sends on
    Relay,
}

impl BenchArguments {
    fn wants(&self, figure: Figure) -> bool {
        self.only.is_none_or(|only| only == figure)
    }

    fn crowd(&self) -> ClientPool {
        let connections = usize::from(self.connections);
        ClientPool { connections, threads: usize::from(self.client_threads).min(connections) }
    }

    fn manner(&self) -> Manner {
        Manner {
            crowd: self.crowd(),
            warm_up: Duration::from_millis(self.warm_up_millis),
            slice: Duration::from_secs(1),
            slices: self.seconds,
        }
    }
}

/// Measures and prints.
pub async fn run(arguments: BenchArguments) -> Result<Verdict> {
    let mut rig = Harness::start(&arguments.stores).await?;
    measure_rates(&arguments, &mut rig).await?;
    measure_backlog(&arguments, &mut rig).await?;
    measure_orders(&arguments, &mut rig).await?;
    measure_ranking(&arguments, &mut rig).await?;
    rig.stop().await?;
    Ok(Verdict::Right)
}

async fn measure_rates(arguments: &BenchArguments, rig: &mut Harness) -> Result<()> {
    let mut bare = Rounds::default();
    let mut phases: Vec<(Phase, Rounds)> = Vec::new();
    if arguments.wants(Figure::Accepted) {
        phases.extend([Phase::Accepted, Phase::Confirming].map(|phase| (phase, Rounds::default())));
    }
    if arguments.wants(Figure::Refused) {
        phases.push((Phase::Refused, Rounds::default()));
    }
    if phases.is_empty() {
        return Ok(());
    }
    for round in 1..=arguments.rounds {
        for (phase, rounds) in &mut phases {
            output::note(&format!("round {round} of {}: bare server and {}, in turn", arguments.rounds, phase.name()));
            rates::measure(rig, arguments.manner(), *phase, (&mut bare, rounds)).await?;
        }
    }
    report::print_rates(&bare, &phases, arguments.seconds);
    if let Some((_, confirming)) = phases.iter().find(|(phase, _)| *phase == Phase::Confirming) {
        let rate = median(&confirming.rates) / 2.0;
        output::note("open model");
        let open = rates::measure_open(rig, arguments.manner(), rate).await?;
        report::print_open(rate, &open);
    }
    Ok(())
}

async fn measure_backlog(arguments: &BenchArguments, rig: &mut Harness) -> Result<()> {
    let (confirm, memory) = (arguments.wants(Figure::Confirm), arguments.wants(Figure::Memory));
    if !confirm && !memory {
        return Ok(());
    }
    let mut rounds = BacklogRounds::default();
    // Memory does not change from round to round.
    for round in 1..=if confirm { arguments.rounds } else { 1 } {
        output::note(&format!("round {round} of {}: a backlog of {} claims", arguments.rounds, arguments.backlog));
        let crowd = arguments.crowd();
        backlog::measure(rig, crowd, arguments.backlog, confirm, &mut rounds).await?;
    }
    if confirm {
        report::print_confirmation(&rounds, arguments.backlog);
    }
    if memory {
        report::print_memory(&rounds);
    }
    Ok(())
}

async fn measure_ranking(arguments: &BenchArguments, rig: &mut Harness) -> Result<()> {
    if arguments.wants(Figure::BestSellers) {
        output::note("bare server and what sold best, in turn");
        let rounds = ranking::measure_reads(rig, arguments.manner(), arguments.rounds).await?;
        report::print_reads(&rounds, arguments.seconds);
    }
    if arguments.wants(Figure::Warm) {
        output::note(&format!("the hourly job over {} products and seven days", arguments.ranked_products));
        report::print_job(&ranking::watch_job(rig, arguments.ranked_products).await?);
    }
    if arguments.wants(Figure::Relay) {
        let mut rounds = RelayRounds::default();
        for round in 1..=arguments.rounds {
            output::note(&format!("round {round} of {}: a backlog of {} events", arguments.rounds, arguments.events));
            let mut claims = BacklogRounds::default();
            backlog::measure(rig, arguments.crowd(), arguments.backlog, false, &mut claims).await?;
            rounds.confirmed.extend(claims.confirmed);
            rounds.relayed.push(ranking::measure_relay(rig, arguments.events).await?);
        }
        report::print_relay(&rounds, arguments.events);
    }
    Ok(())
}

async fn measure_orders(arguments: &BenchArguments, rig: &mut Harness) -> Result<()> {
    if arguments.wants(Figure::Orders) {
        let mut rounds = OrderRounds::default();
        for round in 1..=arguments.rounds {
            output::note(&format!("round {round} of {}: a backlog of {} orders", arguments.rounds, arguments.orders));
            orders::measure(rig, arguments.manner(), arguments.orders, &mut rounds).await?;
        }
        report::print_orders(&rounds, arguments.orders);
        output::note("orders over HTTP");
        report::print_orders_over_http(&orders::measure_over_http(rig, arguments.manner()).await?);
    }
    // So many orders take minutes: not without being asked.
    if arguments.only == Some(Figure::OrderMemory) {
        output::note(&format!("{} orders over HTTP, in ten parts", arguments.memory_orders));
        let watch = orders::watch_memory(rig, arguments.crowd(), arguments.memory_orders).await?;
        report::print_order_memory(&watch);
    }
    Ok(())
}
