//! What a bench prints.

use super::{
    backlog::BacklogRounds,
    client::Measured,
    orders::{MemoryWatch, OrderRounds, OverHttp},
    ranking::{JobWatch, ReadRounds, RelayRounds},
    rates::{Phase, Rounds},
};
use crate::{
    numbers::{grouped, grouped_rate, median, real},
    output::{self, Table},
};

const CONFIRM_BAR: f64 = 0.7;
const MEMORY_BAR: f64 = 150.0;
const ONE_AT_A_TIME_BAR: f64 = 15.0;
const BARE_ORDERS_BAR: f64 = 0.6;
const FLAT_PERCENT: f64 = 10.0;
const READS_BAR: f64 = 0.8;
const RELAY_BAR: f64 = 0.5;

/// Requests a second, beside the bare server.
pub fn print_rates(bare: &Rounds, phases: &[(Phase, Rounds)], seconds: u32) {
    let headers =
        ["claims", "requests/s", "lowest", "highest", "of bare", "bar", "", "p50", "p99", "p99.9", "confirmed/s"];
    let mut table = Table::new(&headers, 1);
    let row = |name: &str, rounds: &Rounds, comparison: [String; 3]| {
        let [p50, p99, p999] = rounds.latencies.percentiles();
        let [lowest, highest] = extremes(&rounds.rates).map(grouped_rate);
        let confirmed =
            if rounds.confirmed.is_empty() { String::new() } else { grouped_rate(median(&rounds.confirmed)) };
        let [share, bar, verdict] = comparison;
        let rate = grouped_rate(median(&rounds.rates));
        [name.to_owned(), rate, lowest, highest, share, bar, verdict, p50, p99, p999, confirmed]
    };
    table.row(row("bare server", bare, ["1.00".into(), String::new(), String::new()]));
    for (phase, rounds) in phases {
        let share = median(&rounds.shares);
        let bar = phase.bar();
        let comparison = [format!("{share:.2}"), format!(">= {bar:.2}"), at_least(share, bar)];
        table.row(row(phase.name(), rounds, comparison));
    }
    let title = "Requests a second (closed model; medians of the rounds, each beside the bare server in turn";
    table.print(&format!("{title}, {seconds} s each)"));
}

/// Latency in the open model.
pub fn print_open(rate: f64, open: &Measured) {
    let [p50, p99, p999] = open.latencies.percentiles();
    let answered = grouped_rate(open.rate());
    output::line(&format!(
        "\nOpen model, {} accepted claims/s planned (half of the peak with the worker confirming), {answered} answered: \
         latency from the planned moment p50 {p50}, p99 {p99}, p99.9 {p999}",
        grouped_rate(rate)
    ));
}

/// Rows a second, beside bare inserts.
pub fn print_confirmation(rounds: &BacklogRounds, backlog: u64) {
    let mut table = Table::new(&["rows", "rows/s", "lowest", "highest", "of bare", "bar", ""], 1);
    let row = |name: &str, rates: &[f64], comparison: [String; 3]| {
        let [lowest, highest] = extremes(rates).map(grouped_rate);
        let [share, bar, verdict] = comparison;
        [name.to_owned(), grouped_rate(median(rates)), lowest, highest, share, bar, verdict]
    };
    let is_text_faster = median(&rounds.text) > median(&rounds.prepared);
    let (fast, slow) = if is_text_faster { (&rounds.text, &rounds.prepared) } else { (&rounds.prepared, &rounds.text) };
    let [fast_name, slow_name] = if is_text_faster { ["text", "prepared"] } else { ["prepared", "text"] };
    let bare = |name| format!("bare INSERTs of 500 rows, {name}");
    let shares: Vec<f64> = rounds.confirmed.iter().zip(fast).map(|(confirmed, bare)| confirmed / bare).collect();
    let share = median(&shares);
    table.row(row(&bare(fast_name), fast, ["1.00".into(), String::new(), String::new()]));
    table.row(row(&bare(slow_name), slow, [String::new(), String::new(), String::new()]));
    let comparison = [format!("{share:.2}"), format!(">= {CONFIRM_BAR:.2}"), at_least(share, CONFIRM_BAR)];
    table.row(row("confirmed by the worker", &rounds.confirmed, comparison));
    table.print(&format!("Rows a second out of a backlog of {backlog} claims"));
}

/// Bytes of Redis for each claim.
pub fn print_memory(rounds: &BacklogRounds) {
    let mut table = Table::new(&["memory of Redis", "bytes a claim", "bar", ""], 1);
    for (name, bytes) in
        [("its entry on the stream", &rounds.bytes_on_stream), ("once it is confirmed", &rounds.bytes_confirmed)]
    {
        let bytes = median(bytes);
        table.row([name.to_owned(), format!("{bytes:.0}"), format!("<= {MEMORY_BAR:.0}"), at_most(bytes, MEMORY_BAR)]);
    }
    table.print("Memory");
}

/// Orders a second on one hot product, beside one a transaction and beside bare statements.
pub fn print_orders(rounds: &OrderRounds, backlog: u64) {
    let mut table = Table::new(&["orders", "orders/s", "lowest", "highest", "the worker is", "bar", ""], 1);
    let against = |others: &[f64]| {
        let shares: Vec<f64> = rounds.worker.iter().zip(others).map(|(worker, other)| worker / other).collect();
        median(&shares)
    };
    let mut row = |name: &str, rates: &[f64], comparison: [String; 3]| {
        let [lowest, highest] = extremes(rates).map(grouped_rate);
        let [share, bar, verdict] = comparison;
        table.row([name.to_owned(), grouped_rate(median(rates)), lowest, highest, share, bar, verdict]);
    };
    let compared = |share: f64, bar: f64| [format!("{share:.2} x"), format!(">= {bar}"), at_least(share, bar)];
    row(
        "one a transaction, FOR UPDATE, 32 connections",
        &rounds.one_at_a_time,
        compared(against(&rounds.one_at_a_time), ONE_AT_A_TIME_BAR),
    );
    row("bare statements of 500 orders", &rounds.bare, compared(against(&rounds.bare), BARE_ORDERS_BAR));
    row("carried out by the worker", &rounds.worker, [String::new(), String::new(), String::new()]);
    table.print(&format!("Orders a second on one product, out of a backlog of {backlog}"));
}

/// Orders through the API.
pub fn print_orders_over_http(measured: &OverHttp) {
    let mut table =
        Table::new(&["orders over HTTP, each answered with its outcome", "orders/s", "p50", "p99", "p99.9"], 1);
    for (name, measured) in [("closed model", &measured.peak), ("open model, half of that planned", &measured.half)] {
        let [p50, p99, p999] = measured.latencies.percentiles();
        table.row([name.to_owned(), grouped_rate(measured.rate()), p50, p99, p999]);
    }
    table.print("Orders over HTTP");
}

/// Memory of both processes while orders pass.
pub fn print_order_memory(watch: &MemoryWatch) {
    let mut table = Table::new(&["orders", "API MiB", "worker MiB"], 0);
    let mebibytes = |bytes: u64| format!("{:.1}", real(bytes) / 1_048_576.0);
    for (orders, api, worker) in &watch.samples {
        table.row([grouped(*orders), mebibytes(*api), mebibytes(*worker)]);
    }
    table.print("Memory while orders pass");
    // What the first tenth fills (pools, caches, buffers) is not growth.
    let settled = watch.samples.get(1..).unwrap_or_default();
    for (name, bytes) in [
        ("API", settled.iter().map(|sample| real(sample.1)).collect::<Vec<f64>>()),
        ("worker", settled.iter().map(|sample| real(sample.2)).collect()),
    ] {
        let middle = median(&bytes);
        let [lowest, highest] = extremes(&bytes);
        let off = ((highest - middle) / middle).max((middle - lowest) / middle) * 100.0;
        let verdict = at_most(off, FLAT_PERCENT);
        output::line(&format!(
            "{name}: at most {off:.1} % from the median after the first tenth (bar 10 %: {verdict})"
        ));
    }
    let [p50, p99, p999] = watch.latencies.percentiles();
    output::line(&format!("{} orders/s; p50 {p50}, p99 {p99}, p99.9 {p999}", grouped_rate(watch.rate)));
}

/// Reads of what sold best, beside the bare server.
pub fn print_reads(rounds: &ReadRounds, seconds: u32) {
    let mut table =
        Table::new(&["reads", "requests/s", "lowest", "highest", "of bare", "bar", "", "p50", "p99", "p99.9"], 1);
    let share = median(&rounds.read.shares);
    let compared = [format!("{share:.2}"), format!(">= {READS_BAR:.2}"), at_least(share, READS_BAR)];
    let bare = ["1.00".to_owned(), String::new(), String::new()];
    for (name, rounds, [share, bar, verdict]) in
        [("bare server, a page as long", &rounds.bare, bare), ("what sold best, ten products", &rounds.read, compared)]
    {
        let [p50, p99, p999] = rounds.latencies.percentiles();
        let [lowest, highest] = extremes(&rounds.rates).map(grouped_rate);
        let rate = grouped_rate(median(&rounds.rates));
        table.row([name.to_owned(), rate, lowest, highest, share, bar, verdict, p50, p99, p999]);
    }
    table.print(&format!("Reads of what sold best a second (closed model; in turn, {seconds} s each)"));
}

/// What the hourly job costs.
pub fn print_job(watch: &JobWatch) {
    let mebibytes = |bytes: u64| format!("{:.0} MiB", real(bytes) / 1_048_576.0);
    let mut table = Table::new(&["the hourly job", ""], 1);
    table.row(["time, the process included".to_owned(), format!("{:.1} s", watch.time.as_secs_f64())]);
    table.row(["memory of the worker at most".to_owned(), mebibytes(watch.worker_bytes)]);
    table.row(["memory of Redis with seven days".to_owned(), mebibytes(watch.days_bytes)]);
    table.row(["memory of Redis with the windows".to_owned(), mebibytes(watch.windows_bytes)]);
    for (name, quantile) in [("p50", 0.5), ("p99", 0.99), ("the longest", 1.0)] {
        table.row([format!("another client's PING meanwhile, {name}"), watch.waits.at(quantile)]);
    }
    table.print(&format!("The hourly job over {} products, each sold on seven days", grouped(watch.products)));
}

/// Events a second, beside claims confirmed a second.
pub fn print_relay(rounds: &RelayRounds, events: u64) {
    let mut table = Table::new(&["events", "a second", "lowest", "highest", "of confirmed", "bar", ""], 1);
    let shares: Vec<f64> = rounds.relayed.iter().zip(&rounds.confirmed).map(|(one, other)| one / other).collect();
    let share = median(&shares);
    let compared = [format!("{share:.2}"), format!(">= {RELAY_BAR:.2}"), at_least(share, RELAY_BAR)];
    let confirmed = ["1.00".to_owned(), String::new(), String::new()];
    for (name, rates, [share, bar, verdict]) in [
        ("claims confirmed by the worker", &rounds.confirmed, confirmed),
        ("paid orders numbered, sent on and counted", &rounds.relayed, compared),
    ] {
        let [lowest, highest] = extremes(rates).map(grouped_rate);
        table.row([name.to_owned(), grouped_rate(median(rates)), lowest, highest, share, bar, verdict]);
    }
    table.print(&format!("Events a second out of a backlog of {}", grouped(events)));
}

fn extremes(values: &[f64]) -> [f64; 2] {
    let lowest = values.iter().copied().reduce(f64::min).unwrap_or(0.0);
    [lowest, values.iter().copied().reduce(f64::max).unwrap_or(0.0)]
}

fn at_least(value: f64, bar: f64) -> String {
    if value >= bar { "met".into() } else { format!("missed by {:.0} %", (bar - value) / bar * 100.0) }
}

fn at_most(value: f64, bar: f64) -> String {
    if value <= bar { "met".into() } else { format!("missed by {:.0} %", (value - bar) / bar * 100.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_met_or_missed_by_how_much() {
        assert_eq!((at_least(0.6, 0.6), at_least(0.54, 0.6)), ("met".to_owned(), "missed by 10 %".to_owned()));
        assert_eq!((at_most(150.0, 150.0), at_most(165.0, 150.0)), ("met".to_owned(), "missed by 10 %".to_owned()));
    }
}
