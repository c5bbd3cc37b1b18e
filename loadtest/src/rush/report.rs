//! What a rush prints.

use std::time::Duration;

use super::faults::{Kill, Killed, Victim};
use crate::{
    audit::Check,
    numbers::{grouped, grouped_rate, per_second},
    output::{self, Table},
    record::ClientRecord,
};

/// Answers, rate and latency.
pub fn print_answers(record: &ClientRecord, elapsed: Duration) {
    let counts = record.counts();
    let mut table = Table::new(&["answer", "claims"], 1);
    let rows = [
        ("202 accepted", counts.accepted),
        ("409 COUPON_ALREADY_ISSUED", counts.already_issued),
        ("422 COUPON_EXHAUSTED", counts.exhausted),
        ("anything else", counts.unexpected),
        ("no final answer", counts.unanswered),
        ("all", record.entries.len() as u64),
        ("tries that were made again after a 503 or a broken connection", counts.doubtful_tries),
    ];
    for (answer, claims) in rows {
        table.row([answer, &*grouped(claims)]);
    }
    table.print("OutcomeWaiters");
    let [p50, p99, p999] = record.latencies.percentiles();
    let rate = grouped_rate(per_second(record.entries.len() as u64, elapsed));
    output::line(&format!(
        "\n{rate} requests/s over {:.1} s; latency p50 {p50}, p99 {p99}, p99.9 {p999} (closed model, goose)",
        elapsed.as_secs_f64()
    ));
}

/// What was killed, and when.
pub fn print_kills(schedule: &[Kill], killed: &[Killed]) {
    let mut table = Table::new(&["SIGKILL to", "asked for", "done", "with claims on the stream", "after the rush"], 1);
    for (name, victim) in [("worker", Victim::Worker), ("Redis", Victim::Redis)] {
        let asked = schedule.iter().filter(|kill| kill.victim == victim).count();
        let done = |holds: fn(&Killed) -> bool| {
            killed.iter().filter(|kill| kill.victim == victim && holds(kill)).count().to_string()
        };
        let (all, at_work, after) = (done(|_| true), done(|kill| kill.backlog > 0), done(|kill| kill.was_after_rush));
        table.row([name, &*asked.to_string(), &*all, &*at_work, &*after]);
    }
    table.print("Kills");
}

/// Every seat found somebody: as many were issued as there are coupons, or users if those are fewer.
pub fn all_seats_taken(issued: u64, quantity: u64, users: u64) -> Check {
    let mut check = Check::new("all taken");
    let expected = quantity.min(users);
    check.require(issued == expected, || format!("{issued} issued, expected {expected}"));
    check.compared(format!("{} issued, {} coupons, {} users", grouped(issued), grouped(quantity), grouped(users)));
    check
}
