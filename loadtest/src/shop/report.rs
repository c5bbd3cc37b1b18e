//! What a run prints.

use super::Outcome;
use crate::{
    numbers::{grouped, grouped_rate, per_second},
    output::{self, Table},
};

/// Rates and latencies of each kind of call, and what was refused.
pub fn print(outcome: &Outcome) {
    print_calls(outcome);
    print_refusals(outcome);
    let repeats = &outcome.record.repeats;
    output::line(&format!(
        "\n{} requests made twice at once, {} made again after the answer; SIGKILL to the worker: {} times",
        grouped(repeats.at_once),
        grouped(repeats.afterwards),
        outcome.kills
    ));
}

fn print_calls(Outcome { record, elapsed, .. }: &Outcome) {
    let mut table = Table::new(&["call", "answers", "a second", "202", "p50", "p95", "p99"], 1);
    let (mut all, mut taken) = (crate::latency::Latencies::default(), 0);
    let mut row = |name: &str, latencies: &crate::latency::Latencies, taken: u64| {
        let count = latencies.count();
        let rate = grouped_rate(per_second(count, *elapsed));
        let [p50, p95, p99] = [0.5, 0.95, 0.99].map(|quantile| latencies.at(quantile));
        table.row([name, &*grouped(count), &*rate, &*grouped(taken), &*p50, &*p95, &*p99]);
    };
    for (call, of_call) in &record.calls {
        row(call.name(), &of_call.latencies, of_call.taken);
        all.merge(&of_call.latencies);
        taken += of_call.taken;
    }
    row("all", &all, taken);
    table.print(&format!("Calls in {:.1} s (closed model, goose)", elapsed.as_secs_f64()));
}

fn print_refusals(Outcome { record, .. }: &Outcome) {
    let mut table = Table::new(&["call", "refused", "answers"], 2);
    for (call, of_call) in &record.calls {
        for (refusal, count) in &of_call.refusals {
            table.row([call.name(), &**refusal, &*grouped(*count)]);
        }
    }
    table.print("Refusals");
}
