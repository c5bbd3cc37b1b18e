//! Measurements of Dibs, each in turn with a baseline on the same machine.

mod backlog;
mod baseline_inserts;
mod baseline_orders;
mod client;
mod console;
mod cost;
mod cost_report;
mod harness;
mod open_loop;
mod order_memory;
mod orders;
mod progress;
mod ranking;
mod rates;
mod report;
mod sustained;

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::Result;
use backlog::BacklogRounds;
use clap::{Args, ValueEnum};
use client::ClientPool;
use cost::CostRounds;
use harness::Harness;
use orders::OrderRounds;
use ranking::RelayRounds;
use rates::{PairedRounds, SamplingSettings, Workload};

use crate::{RunStatus, numbers::median, output, stores::StoreArguments};

#[derive(Debug, Args)]
pub struct BenchArguments {
    /// Run only this benchmark; all except order-memory and peer when left out
    #[arg(long, value_enum)]
    pub only: Option<Benchmark>,
    /// Measured seconds of each workload in each round, in slices of one second in turn with the baseline
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=600))]
    pub seconds: u32,
    /// Milliseconds of load before each slice that are not measured
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u64).range(..=60_000))]
    pub warm_up_millis: u64,
    /// Client connections, each with one request in flight
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u16).range(1..))]
    pub connections: u16,
    /// Client threads
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub client_threads: u16,
    /// Rounds of each measurement; the report shows medians
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=100))]
    pub rounds: u16,
    /// Claims in the backlog of `confirm`, `memory` and `relay`
    #[arg(long, default_value_t = 200_000, value_parser = clap::value_parser!(u64).range(1000..))]
    pub backlog: u64,
    /// Orders in the backlog of `orders`
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1000..))]
    pub orders: u64,
    /// Orders of `order-memory`
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1000..))]
    pub memory_orders: u64,
    /// Products of `warm`, each sold on seven days
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1000..=10_000_000))]
    pub ranked_products: u64,
    /// Events in the backlog of `relay`
    #[arg(long, default_value_t = 200_000, value_parser = clap::value_parser!(u64).range(10_000..))]
    pub events: u64,
    /// The address of a program of loadtest/peers, for `peer`
    #[arg(long, env = "PEER_ADDRESS", required_if_eq("only", "peer"))]
    pub peer: Option<SocketAddr>,
    /// Print the report of `cost` as JSON
    #[arg(long)]
    pub json: bool,
    /// Compare the report of `cost` with an earlier one, a file of --json
    #[arg(long)]
    pub compare: Option<PathBuf>,
    /// MySQL and Redis of the bench.
    #[command(flatten)]
    pub stores: StoreArguments,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Benchmark {
    /// CPU time of each process for each claim and order; MySQL and Redis must run on this machine
    Cost,
    /// The load at which as many claims are confirmed as accepted, held for a minute; takes about five
    Sustained,
    /// Accepted claims a second beside another program, with the worker confirming; see loadtest/peers
    Peer,
    /// Accepted claims a second while browsers show the console, beside none
    Console,
    /// Accepted claims a second
    Accepted,
    /// Rejected claims a second on a sold-out campaign
    #[value(alias = "refused")]
    Rejected,
    /// Claims a second that the worker confirms
    Confirm,
    /// Memory of Redis per claim
    Memory,
    /// Orders a second of one hot product
    Orders,
    /// Resident memory of API and worker while many orders are processed; takes minutes
    OrderMemory,
    /// Reads a second of the best sellers
    BestSellers,
    /// Cost of the hourly job that computes the ranking windows
    Warm,
    /// Events a second that the relay delivers
    Relay,
}

impl BenchArguments {
    fn wants(&self, benchmark: Benchmark) -> bool {
        // Order memory takes minutes, and a peer must be started first.
        let by_default = !matches!(benchmark, Benchmark::OrderMemory | Benchmark::Peer);
        self.only.map_or(by_default, |only| only == benchmark)
    }

    fn clients(&self) -> ClientPool {
        let connections = usize::from(self.connections);
        ClientPool { connections, threads: usize::from(self.client_threads).min(connections) }
    }

    fn sampling(&self) -> SamplingSettings {
        SamplingSettings {
            clients: self.clients(),
            warm_up: Duration::from_millis(self.warm_up_millis),
            // Short enough that the noise of the machine hits the slices of both.
            slice: Duration::from_secs(1),
            slices: self.seconds,
        }
    }

    fn workloads(&self) -> Vec<(Workload, PairedRounds)> {
        let mut workloads = Vec::new();
        if self.wants(Benchmark::Accepted) {
            workloads.extend([Workload::Accepted, Workload::Confirming]);
        }
        if self.wants(Benchmark::Rejected) {
            workloads.push(Workload::Rejected);
        }
        workloads.into_iter().map(|workload| (workload, PairedRounds::default())).collect()
    }

    fn note_round(&self, round: u16, what: &str) {
        output::note(&format!("round {round} of {}: {what}", self.rounds));
    }
}

/// Runs the benchmarks and prints their reports.
pub async fn run(arguments: BenchArguments) -> Result<RunStatus> {
    let mut harness = Harness::start(&arguments.stores).await?;
    measure_cost(&arguments, &mut harness).await?;
    measure_sustained(&arguments, &mut harness).await?;
    measure_rates(&arguments, &mut harness).await?;
    measure_peer(&arguments, &mut harness).await?;
    measure_console(&arguments, &mut harness).await?;
    measure_backlog(&arguments, &mut harness).await?;
    measure_orders(&arguments, &mut harness).await?;
    measure_ranking(&arguments, &mut harness).await?;
    harness.stop().await?;
    Ok(RunStatus::Passed)
}

async fn measure_cost(arguments: &BenchArguments, harness: &mut Harness) -> Result<()> {
    if !arguments.wants(Benchmark::Cost) {
        return Ok(());
    }
    // Read first: a wrong file should not cost minutes.
    let earlier = arguments.compare.as_deref().map(cost::read_report).transpose()?;
    let mut rounds = CostRounds::default();
    for round in 1..=arguments.rounds {
        arguments.note_round(round, "CPU time of claims and orders");
        cost::measure(harness, arguments.sampling(), arguments.orders, &mut rounds).await?;
    }
    let measured = rounds.measured();
    output::line(&if arguments.json {
        serde_json::to_string_pretty(&measured)?
    } else {
        cost_report::table(&measured, earlier.as_deref())
    });
    Ok(())
}

async fn measure_sustained(arguments: &BenchArguments, harness: &mut Harness) -> Result<()> {
    if arguments.wants(Benchmark::Sustained) {
        output::note("the sustained rate");
        let sustained = sustained::measure(harness, arguments.clients(), arguments.backlog).await?;
        output::line(&report::sustained(&sustained));
    }
    Ok(())
}

async fn measure_rates(arguments: &BenchArguments, harness: &mut Harness) -> Result<()> {
    let mut workloads = arguments.workloads();
    if workloads.is_empty() {
        return Ok(());
    }
    let baseline = harness.baseline_address();
    for round in 1..=arguments.rounds {
        for (workload, rounds) in &mut workloads {
            arguments.note_round(round, &format!("{}, in turn with the baseline server", workload.name()));
            rates::measure(harness, baseline, arguments.sampling(), *workload, rounds).await?;
        }
    }
    output::line(&report::rates(&workloads, arguments.seconds));
    if let Some((_, confirming)) = workloads.iter().find(|(workload, _)| *workload == Workload::Confirming) {
        // Half of the peak: at the peak itself an open model only measures its growing queue.
        let rate = median(&confirming.dibs.rates) / 2.0;
        output::note("open model");
        let open = rates::measure_open(harness, arguments.sampling(), rate).await?;
        output::line(&report::open_model(rate, &open));
    }
    Ok(())
}

async fn measure_peer(arguments: &BenchArguments, harness: &mut Harness) -> Result<()> {
    let Some(peer) = arguments.peer.filter(|_| arguments.wants(Benchmark::Peer)) else { return Ok(()) };
    let mut rounds = PairedRounds::default();
    for round in 1..=arguments.rounds {
        arguments.note_round(round, "claims, in turn with the peer");
        rates::measure(harness, peer, arguments.sampling(), Workload::Confirming, &mut rounds).await?;
    }
    output::line(&report::peer(&rounds, arguments.seconds));
    Ok(())
}

async fn measure_console(arguments: &BenchArguments, harness: &mut Harness) -> Result<()> {
    if !arguments.wants(Benchmark::Console) {
        return Ok(());
    }
    let mut rounds = PairedRounds::default();
    for round in 1..=arguments.rounds {
        arguments.note_round(round, "claims without browsers, in turn with claims beside browsers");
        console::measure(harness, arguments.sampling(), &mut rounds).await?;
    }
    output::line(&report::console(&rounds, arguments.seconds));
    Ok(())
}

async fn measure_backlog(arguments: &BenchArguments, harness: &mut Harness) -> Result<()> {
    let (confirm, memory) = (arguments.wants(Benchmark::Confirm), arguments.wants(Benchmark::Memory));
    if !confirm && !memory {
        return Ok(());
    }
    let mut rounds = BacklogRounds::default();
    // The memory of a claim is the same in each round.
    for round in 1..=if confirm { arguments.rounds } else { 1 } {
        arguments.note_round(round, &format!("a backlog of {} claims", arguments.backlog));
        backlog::measure(harness, arguments.clients(), arguments.backlog, confirm, &mut rounds).await?;
    }
    if confirm {
        output::line(&report::confirmation(&rounds, arguments.backlog));
    }
    if memory {
        output::line(&report::claim_memory(&rounds));
    }
    Ok(())
}

async fn measure_ranking(arguments: &BenchArguments, harness: &mut Harness) -> Result<()> {
    if arguments.wants(Benchmark::BestSellers) {
        output::note("best sellers, in turn with the baseline server");
        let rounds = ranking::measure_reads(harness, arguments.sampling(), arguments.rounds).await?;
        output::line(&report::reads(&rounds, arguments.seconds));
    }
    if arguments.wants(Benchmark::Warm) {
        output::note(&format!("the hourly job over {} products and seven days", arguments.ranked_products));
        output::line(&report::job(&ranking::measure_job(harness, arguments.ranked_products).await?));
    }
    if arguments.wants(Benchmark::Relay) {
        let mut rounds = RelayRounds::default();
        for round in 1..=arguments.rounds {
            arguments.note_round(round, &format!("a backlog of {} events", arguments.events));
            let mut claims = BacklogRounds::default();
            // The confirmation in the same round is what the relay is compared with.
            backlog::measure(harness, arguments.clients(), arguments.backlog, false, &mut claims).await?;
            rounds.confirmed.extend(claims.confirmed);
            rounds.relayed.push(ranking::measure_relay(harness, arguments.events).await?);
        }
        output::line(&report::relay(&rounds, arguments.events));
    }
    Ok(())
}

async fn measure_orders(arguments: &BenchArguments, harness: &mut Harness) -> Result<()> {
    if arguments.wants(Benchmark::Orders) {
        let mut rounds = OrderRounds::default();
        for round in 1..=arguments.rounds {
            arguments.note_round(round, &format!("a backlog of {} orders", arguments.orders));
            orders::measure(harness, arguments.sampling(), arguments.orders, &mut rounds).await?;
        }
        output::line(&report::orders(&rounds, arguments.orders));
        output::note("orders over HTTP");
        output::line(&report::http_orders(&orders::measure_over_http(harness, arguments.sampling()).await?));
    }
    if arguments.wants(Benchmark::OrderMemory) {
        output::note(&format!("{} orders over HTTP, in ten parts", arguments.memory_orders));
        let memory = order_memory::measure(harness, arguments.clients(), arguments.memory_orders).await?;
        output::line(&report::order_memory(&memory));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        bench: BenchArguments,
    }

    fn arguments(more: &[&str]) -> BenchArguments {
        Line::parse_from(["bench", "--database-url=mysql://h/dibs"].iter().chain(more)).bench
    }

    fn wanted(arguments: &BenchArguments) -> Vec<Benchmark> {
        Benchmark::value_variants().iter().copied().filter(|benchmark| arguments.wants(*benchmark)).collect()
    }

    #[test]
    fn all_but_the_longest_benchmark_run_by_default() {
        let mut expected = Benchmark::value_variants().to_vec();
        expected.retain(|benchmark| !matches!(benchmark, Benchmark::OrderMemory | Benchmark::Peer));
        assert_eq!(wanted(&arguments(&[])), expected);
        assert_eq!(wanted(&arguments(&["--only=order-memory"])), [Benchmark::OrderMemory]);
    }

    #[test]
    fn claims_are_measured_with_and_without_a_worker() {
        let workloads =
            |more| arguments(more).workloads().into_iter().map(|(workload, _)| workload).collect::<Vec<_>>();
        assert_eq!(workloads(&["--only=accepted"]), [Workload::Accepted, Workload::Confirming]);
        assert_eq!(workloads(&["--only=rejected"]), [Workload::Rejected]);
        assert_eq!(workloads(&["--only=orders"]), []);
    }

    #[test]
    fn a_peer_needs_its_address() {
        let line = ["bench", "--database-url=mysql://h/dibs", "--only=peer"];
        assert!(Line::try_parse_from(line).is_err());
        assert_eq!(wanted(&arguments(&["--only=peer", "--peer=127.0.0.1:3000"])), [Benchmark::Peer]);
    }

    #[test]
    fn no_client_thread_is_without_a_connection() {
        let clients = arguments(&["--connections=3", "--client-threads=8"]).clients();
        assert_eq!((clients.connections, clients.threads), (3, 3));
    }

    #[test]
    fn a_round_is_made_of_slices_of_a_second() {
        let sampling = arguments(&["--seconds=7", "--warm-up-millis=100"]).sampling();
        assert_eq!((sampling.time(), sampling.slices), (Duration::from_secs(7), 7));
        assert_eq!(sampling.warm_up, Duration::from_millis(100));
    }
}
