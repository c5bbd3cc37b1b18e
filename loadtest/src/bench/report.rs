//! What a bench prints.

use super::{
    backlog::BacklogRounds,
    client::Measured,
    rates::{Phase, Rounds},
};
use crate::{
    numbers::{grouped_rate, median},
    output::{self, Table},
};

const CONFIRM_BAR: f64 = 0.7;
const MEMORY_BAR: f64 = 150.0;

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
