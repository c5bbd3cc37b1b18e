use std::time::Duration;

use super::{
    super::{backlog::MemoryRounds, sustained::Trial},
    *,
};
use crate::{latency::Latencies, processes::ResidentBytes};

fn latencies(milliseconds: u64) -> Latencies {
    let mut latencies = Latencies::default();
    (0..100).for_each(|_| latencies.record(Duration::from_millis(milliseconds)));
    latencies
}

fn measurement(responses: u64, milliseconds: u64) -> Measurement {
    Measurement { responses, elapsed: Duration::from_secs(2), latencies: latencies(milliseconds) }
}

fn paired(baseline: &[f64], dibs: &[f64]) -> PairedRounds {
    let shares = dibs.iter().zip(baseline).map(|(rate, other)| rate / other).collect();
    PairedRounds {
        baseline: Rounds { rates: baseline.to_vec(), latencies: latencies(1), ..Rounds::default() },
        dibs: Rounds { rates: dibs.to_vec(), shares, latencies: latencies(3), ..Rounds::default() },
    }
}

#[test]
fn a_threshold_is_met_or_missed_by_a_share() {
    assert_eq!((at_least(0.6, 0.6), at_least(0.54, 0.6)), ("met".to_owned(), "missed by 10 %".to_owned()));
    assert_eq!((at_most(150.0, 150.0), at_most(165.0, 150.0)), ("met".to_owned(), "missed by 10 %".to_owned()));
}

#[test]
fn extremes_of_no_values_are_zero() {
    assert_eq!([extremes(&[]), extremes(&[2.0, 1.0, 3.0])], [[0.0, 0.0], [1.0, 3.0]]);
}

#[test]
fn a_ratio_compares_the_rounds_one_by_one() {
    assert!((ratio(&[10.0, 30.0, 20.0], &[10.0, 10.0, 10.0]) - 2.0).abs() < f64::EPSILON);
    assert!(ratio(&[], &[]).abs() < f64::EPSILON);
}

#[test]
fn rates_are_compared_with_the_baseline() {
    let accepted = paired(&[50_000.0, 52_000.0, 54_000.0], &[36_000.0, 35_000.0, 37_000.0]);
    let mut confirming = paired(&[50_000.0, 52_000.0, 54_000.0], &[25_000.0, 26_000.0, 27_000.0]);
    confirming.dibs.confirmed = vec![21_000.0, 22_000.0, 23_000.0];
    insta::assert_snapshot!(rates(&[(Workload::Accepted, accepted), (Workload::Confirming, confirming)], 5));
}

#[test]
fn a_peer_is_the_baseline_of_its_report() {
    let mut rounds = paired(&[10_000.0, 12_000.0], &[25_000.0, 26_000.0]);
    rounds.dibs.confirmed = vec![21_000.0, 22_000.0];
    insta::assert_snapshot!(peer(&rounds, 5));
}

#[test]
fn claims_beside_the_console_are_compared_with_claims_alone() {
    insta::assert_snapshot!(console(&paired(&[50_000.0, 52_000.0], &[49_900.0, 50_000.0]), 5));
}

#[test]
fn the_sustained_rate_is_shown_beside_the_limits() {
    let trial =
        |rate, responses, backlog| Trial { rate, measured: measurement(responses, 2), confirmed: responses, backlog };
    let (held, part_load) = (trial(8_000.0, 16_000, 700), trial(5_600.0, 11_200, 40));
    insta::assert_snapshot!(sustained(&Sustained { held, part_load, bare: 50_000.0, inserts: 40_000.0 }));
}

#[test]
fn the_open_model_reports_planned_and_actual_rate() {
    insta::assert_snapshot!(open_model(13_000.0, &measurement(25_900, 2)));
}

#[test]
fn confirmation_is_compared_with_the_faster_inserts() {
    let rounds = BacklogRounds {
        confirmed: vec![60_000.0, 70_000.0],
        prepared: vec![80_000.0, 90_000.0],
        text: vec![90_000.0, 100_000.0],
        ..BacklogRounds::default()
    };
    insta::assert_snapshot!(confirmation(&rounds, 200_000));
}

#[test]
fn the_memory_of_a_claim_has_an_upper_threshold() {
    let rounds = BacklogRounds {
        bytes_per_claim: MemoryRounds { on_stream: vec![180.0], confirmed: vec![90.0, 92.0] },
        ..BacklogRounds::default()
    };
    insta::assert_snapshot!(claim_memory(&rounds));
}

#[test]
fn the_worker_is_compared_with_single_orders_and_with_plain_statements() {
    let rounds = OrderRounds {
        worker: vec![9_000.0, 10_000.0],
        single_orders: vec![500.0, 500.0],
        baseline: vec![20_000.0, 25_000.0],
    };
    insta::assert_snapshot!(orders(&rounds, 100_000));
}

#[test]
fn orders_over_http_have_a_peak_and_a_half_load() {
    let results = HttpOrderResults { peak: measurement(8_000, 20), half_load: measurement(4_000, 8) };
    insta::assert_snapshot!(http_orders(&results));
}

#[test]
fn memory_drift_ignores_the_first_tenth() {
    let sample = |orders, api: u64, worker: u64| {
        let resident = ResidentBytes { api: api * 1_048_576, worker: worker * 1_048_576 };
        MemorySample { orders, resident }
    };
    let samples = vec![sample(1_000, 10, 10), sample(2_000, 100, 50), sample(3_000, 101, 60), sample(4_000, 102, 50)];
    insta::assert_snapshot!(order_memory(&OrderMemory { samples, latencies: latencies(5), rate: 3_000.0 }));
}

#[test]
fn reads_are_compared_with_a_page_of_the_same_length() {
    insta::assert_snapshot!(reads(&paired(&[40_000.0], &[34_000.0]), 5));
}

#[test]
fn the_job_is_reported_with_its_effect_on_other_clients() {
    let cost = JobCost {
        products: 1_000_000,
        time: Duration::from_millis(32_500),
        worker_bytes: 112 << 20,
        days_bytes: 840 << 20,
        windows_bytes: 1_200 << 20,
        pings: latencies(2),
    };
    insta::assert_snapshot!(job(&cost));
}

#[test]
fn the_relay_is_compared_with_confirmation() {
    let rounds = RelayRounds { relayed: vec![20_000.0], confirmed: vec![45_000.0] };
    insta::assert_snapshot!(relay(&rounds, 200_000));
}
