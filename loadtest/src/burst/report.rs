//! The report of a burst.

use std::time::Duration;

use crate::{
    audit::Check,
    numbers::{grouped, grouped_rate, per_second},
    output::Table,
    record::ClientRecord,
};

/// Claims by response, rate and latency.
pub fn responses(record: &ClientRecord, elapsed: Duration) -> String {
    let counts = record.counts();
    let mut table = Table::new(&["response", "claims"], 1);
    let rows = [
        ("202 accepted", counts.accepted),
        ("409 COUPON_ALREADY_ISSUED", counts.already_issued),
        ("422 COUPON_EXHAUSTED", counts.exhausted),
        ("unexpected response", counts.unexpected),
        ("no final response", counts.unanswered),
        ("all claims", record.observations.len() as u64),
        ("retries after a 503 or a broken connection", counts.uncertain_attempts),
    ];
    for (response, claims) in rows {
        table.row([response, &*grouped(claims)]);
    }
    let [p50, p99, p999] = record.latencies.percentiles();
    let rate = grouped_rate(per_second(record.observations.len() as u64, elapsed));
    format!(
        "{}\n\n{rate} claims/s over {:.1} s; latency p50 {p50}, p99 {p99}, p99.9 {p999} (closed model, goose)",
        table.render("Responses"),
        elapsed.as_secs_f64()
    )
}

/// The whole quantity is issued, or one coupon to each user if there are fewer users.
pub fn fully_issued(issued: u64, quantity: u64, users: u64) -> Check {
    let mut check = Check::new("fully issued");
    // The per-user limit of the campaign is 1.
    let expected = quantity.min(users);
    check.require(issued == expected, || format!("{issued} issued, expected {expected}"));
    check.compared(format!("{} issued, {} coupons, {} users", grouped(issued), grouped(quantity), grouped(users)));
    check
}

#[cfg(test)]
mod tests {
    use dibs_common::identifiers::{ClaimId, UserId};

    use super::*;
    use crate::record::{ClaimObservation, ClaimResponse, Receipt};

    fn record() -> ClientRecord {
        let mut record = ClientRecord::default();
        let accepted = ClaimResponse::Accepted(Receipt { claim_id: ClaimId::generate(), sequence: 1 });
        for (user, response, uncertain_attempts) in [
            (1, accepted, 0),
            (2, ClaimResponse::AlreadyIssued(None), 2),
            (3, ClaimResponse::Exhausted, 0),
            (4, ClaimResponse::Exhausted, 0),
            (5, ClaimResponse::Unanswered, 7),
            (6, ClaimResponse::Unexpected("500 broken".into()), 0),
        ] {
            let user = UserId::try_from(user).expect("an id");
            record.observations.push(ClaimObservation { user, response, uncertain_attempts });
            record.latencies.record(Duration::from_millis(4));
        }
        record
    }

    #[test]
    fn responses_are_counted_by_their_code() {
        insta::assert_snapshot!(responses(&record(), Duration::from_secs(2)));
    }

    #[test]
    fn the_whole_quantity_or_one_coupon_a_user_is_issued() {
        let differences = |issued, quantity, users| fully_issued(issued, quantity, users).differences();
        assert_eq!([differences(10, 10, 20), differences(7, 10, 7)], [0, 0]);
        assert_eq!([differences(9, 10, 20), differences(11, 10, 20), differences(6, 10, 7)], [1, 1, 1]);
    }
}
