//! The reports of the bench: one function for each table.

use super::{
    backlog::BacklogRounds,
    client::Measurement,
    console::BROWSERS,
    order_memory::{MemorySample, OrderMemory},
    orders::{HttpOrderResults, OrderRounds},
    ranking::{JobCost, RelayRounds},
    rates::{PairedRounds, Rounds, Workload},
    sustained::{HELD_FOR, PART_LOAD, Sustained},
};
use crate::{
    numbers::{grouped, grouped_rate, median, per_second, real},
    output::Table,
};

/// The acceptable shares of a baseline, in a row of a table: "at least 0.60", met or missed.
const CONFIRM_THRESHOLD: f64 = 0.7;
const SINGLE_ORDER_THRESHOLD: f64 = 15.0;
const BASELINE_ORDERS_THRESHOLD: f64 = 0.6;
const READ_THRESHOLD: f64 = 0.8;
const PEER_THRESHOLD: f64 = 2.0;
const CONSOLE_THRESHOLD: f64 = 0.98;
const RELAY_THRESHOLD: f64 = 0.5;
/// Bytes of Redis per claim.
const MEMORY_THRESHOLD: f64 = 150.0;
/// How far the memory may be off its median, in percent.
const MEMORY_DRIFT_THRESHOLD: f64 = 10.0;

/// The columns of a comparison: the ratio to a baseline, its threshold, and whether it is met.
#[derive(Default)]
struct Comparison([String; 3]);

impl Comparison {
    const HEADERS: [&'static str; 3] = ["ratio", "threshold", "result"];

    /// The baseline itself.
    fn baseline() -> Self {
        Self(["1.00".into(), String::new(), String::new()])
    }

    fn at_least(ratio: f64, threshold: f64) -> Self {
        Self([format!("{ratio:.2}"), format!(">= {threshold:.2}"), at_least(ratio, threshold)])
    }
}

/// The median of the rounds with its extremes, the comparison, and further cells.
fn row(
    name: &str,
    rates: &[f64],
    Comparison(comparison): Comparison,
    more: impl IntoIterator<Item = String>,
) -> Vec<String> {
    let [lowest, highest] = extremes(rates).map(grouped_rate);
    let mut cells = vec![name.to_owned(), grouped_rate(median(rates)), lowest, highest];
    cells.extend(comparison);
    cells.extend(more);
    cells
}

fn table(name: &'static str, rate: &'static str, more: &[&'static str]) -> Table {
    let headers = [&[name, rate, "lowest", "highest"], &Comparison::HEADERS[..], more].concat();
    Table::new(&headers, 1)
}

/// The ratio of each round to the same round of `others`; their median.
fn ratio(rates: &[f64], others: &[f64]) -> f64 {
    let ratios: Vec<f64> = rates.iter().zip(others).map(|(rate, other)| rate / other).collect();
    median(&ratios)
}

/// The sustained rate, its latency, and the limits of the same cores.
pub fn sustained(measured: &Sustained) -> String {
    let mut table = Table::new(&["load", "a second", "confirmed", "backlog at most", "p50", "p99", "p99.9"], 1);
    for (name, trial) in [
        (format!("sustained for {} s", HELD_FOR.as_secs()), &measured.held),
        (format!("{:.0} % of it", PART_LOAD * 100.0), &measured.part_load),
    ] {
        let confirmed = grouped_rate(per_second(trial.confirmed, trial.measured.elapsed));
        let [p50, p99, p999] = trial.measured.latencies.percentiles();
        table.row([name, grouped_rate(trial.measured.rate()), confirmed, grouped(trial.backlog), p50, p99, p999]);
    }
    for (name, rate) in
        [("limit: requests of the baseline server", measured.bare), ("limit: plain INSERTs", measured.inserts)]
    {
        table.row([name.to_owned(), grouped_rate(rate)]);
    }
    table.render("The sustained rate: as many claims confirmed as accepted, a backlog of at most a second (open model)")
}

/// Claims a second by workload, compared with the baseline server.
pub fn rates(workloads: &[(Workload, PairedRounds)], seconds: u32) -> String {
    let mut table = table("claims", "requests/s", &["p50", "p99", "p99.9", "confirmed/s"]);
    let cells = |name: &str, rounds: &Rounds, comparison| {
        let confirmed =
            if rounds.confirmed.is_empty() { String::new() } else { grouped_rate(median(&rounds.confirmed)) };
        row(name, &rounds.rates, comparison, rounds.latencies.percentiles().into_iter().chain([confirmed]))
    };
    let mut baseline = Rounds::default();
    for (_, rounds) in workloads {
        baseline.rates.extend(&rounds.baseline.rates);
        baseline.latencies.merge(&rounds.baseline.latencies);
    }
    table.row(cells("baseline server", &baseline, Comparison::baseline()));
    for (workload, rounds) in workloads {
        let comparison = Comparison::at_least(median(&rounds.dibs.shares), workload.threshold());
        table.row(cells(workload.name(), &rounds.dibs, comparison));
    }
    let title = "Claims a second (closed model; medians of the rounds, each in turn with the baseline server";
    table.render(&format!("{title}, {seconds} s each)"))
}

/// Accepted claims a second beside those of a peer.
pub fn peer(rounds: &PairedRounds, seconds: u32) -> String {
    let mut table = table("claims", "accepted/s", &["p50", "p99", "p99.9", "confirmed/s"]);
    let comparison = Comparison::at_least(median(&rounds.dibs.shares), PEER_THRESHOLD);
    let confirmed = grouped_rate(median(&rounds.dibs.confirmed));
    for (name, rounds, comparison, confirmed) in [
        ("the peer, which persists nothing", &rounds.baseline, Comparison::baseline(), String::new()),
        ("Dibs, worker confirming", &rounds.dibs, comparison, confirmed),
    ] {
        let cells = rounds.latencies.percentiles().into_iter().chain([confirmed]);
        table.row(row(name, &rounds.rates, comparison, cells));
    }
    table.render(&format!("Claims a second beside a peer (closed model; in turn, {seconds} s each)"))
}

pub fn console(rounds: &PairedRounds, seconds: u32) -> String {
    let mut table = table("claims", "accepted/s", &["p50", "p99", "p99.9"]);
    let comparison = Comparison::at_least(median(&rounds.dibs.shares), CONSOLE_THRESHOLD);
    let beside = format!("while {BROWSERS} browsers show the console");
    for (name, rounds, comparison) in
        [("alone", &rounds.baseline, Comparison::baseline()), (&beside, &rounds.dibs, comparison)]
    {
        table.row(row(name, &rounds.rates, comparison, rounds.latencies.percentiles()));
    }
    table.render(&format!("Accepted claims a second beside the console (closed model; in turn, {seconds} s each)"))
}

/// Latency in the open model.
pub fn open_model(rate: f64, open: &Measurement) -> String {
    let [p50, p99, p999] = open.latencies.percentiles();
    format!(
        "\nOpen model: {} accepted claims/s planned (half of the peak with the worker confirming), {} responses/s; latency \
         from the planned time p50 {p50}, p99 {p99}, p99.9 {p999}",
        grouped_rate(rate),
        grouped_rate(open.rate())
    )
}

/// Confirmed claims a second, compared with the faster kind of plain INSERTs.
pub fn confirmation(rounds: &BacklogRounds, backlog: u64) -> String {
    let mut table = table("rows", "rows/s", &[]);
    let mut plain = [("text protocol", &rounds.text), ("prepared", &rounds.prepared)];
    // Which protocol is faster depends on server and version.
    plain.sort_by(|(_, one), (_, other)| median(other).total_cmp(&median(one)));
    let [(fast_name, fast), (slow_name, slow)] = plain;
    let name = |kind| format!("plain INSERTs of 500 rows, {kind}");
    table.row(row(&name(fast_name), fast, Comparison::baseline(), []));
    table.row(row(&name(slow_name), slow, Comparison::default(), []));
    let comparison = Comparison::at_least(ratio(&rounds.confirmed, fast), CONFIRM_THRESHOLD);
    table.row(row("confirmed by the worker", &rounds.confirmed, comparison, []));
    table.render(&format!("Rows a second out of a backlog of {} claims", grouped(backlog)))
}

/// Bytes of Redis per claim.
pub fn claim_memory(rounds: &BacklogRounds) -> String {
    let mut table = Table::new(&["memory of Redis", "bytes a claim", "threshold", "result"], 1);
    for (name, bytes) in [
        ("with its entry on the stream", &rounds.bytes_per_claim.on_stream),
        ("after it is confirmed", &rounds.bytes_per_claim.confirmed),
    ] {
        let (bytes, threshold) = (median(bytes), MEMORY_THRESHOLD);
        table.row([name.to_owned(), format!("{bytes:.0}"), format!("<= {threshold:.0}"), at_most(bytes, threshold)]);
    }
    table.render("Memory of a claim")
}

/// Orders of one hot product a second. The ratios are the worker's rate to that of the row.
pub fn orders(rounds: &OrderRounds, backlog: u64) -> String {
    let mut table = table("orders", "orders/s", &[]);
    for (name, rates, threshold) in [
        ("one in each transaction, FOR UPDATE, 32 connections", &rounds.single_orders, SINGLE_ORDER_THRESHOLD),
        ("plain statements of 500 orders", &rounds.baseline, BASELINE_ORDERS_THRESHOLD),
    ] {
        table.row(row(name, rates, Comparison::at_least(ratio(&rounds.worker, rates), threshold), []));
    }
    table.row(row("processed by the worker", &rounds.worker, Comparison::default(), []));
    let backlog = grouped(backlog);
    table.render(&format!(
        "Orders of one product a second, out of a backlog of {backlog} (ratio: the worker to the row)"
    ))
}

/// Orders over HTTP.
pub fn http_orders(results: &HttpOrderResults) -> String {
    let mut table = Table::new(&["load", "orders/s", "p50", "p99", "p99.9"], 1);
    for (name, measured) in
        [("closed model", &results.peak), ("open model, half of that rate planned", &results.half_load)]
    {
        let [p50, p99, p999] = measured.latencies.percentiles();
        table.row([name.to_owned(), grouped_rate(measured.rate()), p50, p99, p999]);
    }
    table.render("Orders over HTTP, each response with the outcome")
}

/// Resident memory of both processes while orders are processed.
pub fn order_memory(memory: &OrderMemory) -> String {
    let mut table = Table::new(&["orders", "API", "worker"], 0);
    for MemorySample { orders, resident } in &memory.samples {
        table.row([grouped(*orders), mebibytes(resident.api), mebibytes(resident.worker)]);
    }
    let mut lines = vec![table.render("Resident memory while orders are processed")];
    // The first tenth fills pools, caches and buffers: that is no growth.
    let settled = memory.samples.get(1..).unwrap_or_default();
    for (name, bytes) in [
        ("API", settled.iter().map(|sample| real(sample.resident.api)).collect::<Vec<f64>>()),
        ("worker", settled.iter().map(|sample| real(sample.resident.worker)).collect()),
    ] {
        let (middle, [lowest, highest]) = (median(&bytes), extremes(&bytes));
        let drift = ((highest - middle) / middle).max((middle - lowest) / middle) * 100.0;
        let result = at_most(drift, MEMORY_DRIFT_THRESHOLD);
        lines.push(format!(
            "{name}: at most {drift:.1} % off the median after the first tenth (threshold {MEMORY_DRIFT_THRESHOLD:.0} %: {result})"
        ));
    }
    let [p50, p99, p999] = memory.latencies.percentiles();
    lines.push(format!("{} orders/s; p50 {p50}, p99 {p99}, p99.9 {p999}", grouped_rate(memory.rate)));
    lines.join("\n")
}

/// Reads of the best sellers a second, compared with the baseline server.
pub fn reads(rounds: &PairedRounds, seconds: u32) -> String {
    let mut table = table("reads", "requests/s", &["p50", "p99", "p99.9"]);
    let comparison = Comparison::at_least(median(&rounds.dibs.shares), READ_THRESHOLD);
    for (name, rounds, comparison) in [
        ("baseline server, page of the same length", &rounds.baseline, Comparison::baseline()),
        ("GET /products/best-sellers, ten products", &rounds.dibs, comparison),
    ] {
        table.row(row(name, &rounds.rates, comparison, rounds.latencies.percentiles()));
    }
    table.render(&format!("Reads of the best sellers a second (closed model; in turn, {seconds} s each)"))
}

/// The cost of the hourly job.
pub fn job(cost: &JobCost) -> String {
    let mut table = Table::new(&["job warm-ranking", ""], 1);
    table.row(["time, with the start of the process".to_owned(), format!("{:.1} s", cost.time.as_secs_f64())]);
    table.row(["resident memory at most".to_owned(), mebibytes(cost.worker_bytes)]);
    table.row(["memory of Redis with seven days".to_owned(), mebibytes(cost.days_bytes)]);
    table.row(["memory of Redis with the windows, too".to_owned(), mebibytes(cost.windows_bytes)]);
    for (name, quantile) in [("p50", 0.5), ("p99", 0.99), ("maximum", 1.0)] {
        table.row([format!("PING of another client during the job, {name}"), cost.pings.at(quantile)]);
    }
    table.render(&format!("The hourly job over {} products, each sold on seven days", grouped(cost.products)))
}

/// Relayed events a second, compared with confirmed claims.
pub fn relay(rounds: &RelayRounds, events: u64) -> String {
    let mut table = table("items", "items/s", &[]);
    let comparison = Comparison::at_least(ratio(&rounds.relayed, &rounds.confirmed), RELAY_THRESHOLD);
    table.row(row("claims confirmed by the worker", &rounds.confirmed, Comparison::baseline(), []));
    table.row(row("paid orders sequenced, relayed and ranked", &rounds.relayed, comparison, []));
    table.render(&format!("Events a second out of a backlog of {}", grouped(events)))
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", real(bytes) / 1_048_576.0)
}

fn extremes(values: &[f64]) -> [f64; 2] {
    let lowest = values.iter().copied().reduce(f64::min).unwrap_or(0.0);
    [lowest, values.iter().copied().reduce(f64::max).unwrap_or(0.0)]
}

fn at_least(value: f64, threshold: f64) -> String {
    missed((threshold - value) / threshold)
}

fn at_most(value: f64, threshold: f64) -> String {
    missed((value - threshold) / threshold)
}

fn missed(share: f64) -> String {
    if share <= 0.0 { "met".into() } else { format!("missed by {:.0} %", share * 100.0) }
}

#[cfg(test)]
#[path = "report_tests.rs"]
mod tests;
