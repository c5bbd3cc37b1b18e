//! Compares the responses that users recorded with MySQL.

use std::collections::HashSet;

use anyhow::{Context as _, Result};
use sqlx::{MySqlPool, QueryBuilder};
use strum::IntoEnumIterator as _;
use uuid::Uuid;

use crate::{
    audit::{BATCH_SIZE, Check},
    numbers::grouped,
    record::{Expectation, ExpectedState, ShopRecord},
};

/// Every response keeps the contract of its operation, and every 202 has an outcome at its `Location`.
pub fn responses(record: &ShopRecord) -> Check {
    let mut check = Check::new("responses");
    check.add(record.anomalies.count(), record.anomalies.samples().iter().cloned());
    let count: u64 = record.operations.values().map(|stats| stats.latencies.count()).sum();
    // The count shows that the load did run.
    check.compared(format!("{} responses: as specified, each 202 with an outcome", grouped(count)));
    check
}

/// I12: two requests with the same key have the same response.
pub fn duplicates(record: &ShopRecord) -> Check {
    let mut check = Check::new("I12");
    let duplicates = &record.duplicates;
    check.add(duplicates.mismatches.count(), duplicates.mismatches.samples().iter().cloned());
    check.compared(format!(
        "client: {} requests repeated with their key, {} of them at the same time: the same response, or in progress ({})",
        grouped(duplicates.sequential + duplicates.concurrent),
        grouped(duplicates.concurrent),
        grouped(duplicates.in_progress)
    ));
    check
}

/// What each response promised is in MySQL, and every 202 has a durable outcome.
pub async fn outcomes(pool: &MySqlPool, record: &ShopRecord) -> Result<Check> {
    let mut check = Check::new("outcomes");
    // By state, so that each batch is one query.
    for state in ExpectedState::iter() {
        let expectations: Vec<&Expectation> =
            record.expectations.iter().filter(|expectation| expectation.state == state).collect();
        for batch in expectations.chunks(BATCH_SIZE) {
            let met = met(pool, state, batch).await?;
            for Expectation { id, user, .. } in batch {
                check.require(met.contains(&(*id, user.get())), || {
                    format!("user {user} received {id} as {}, and MySQL does not have it", state.describe())
                });
            }
        }
    }
    let pending = record.expectations.iter().filter(|expectation| expectation.state.is_pending()).count() as u64;
    let (all, pending) = (grouped(record.expectations.len() as u64), grouped(pending));
    check.compared(format!("client: {all} promised outcomes, {pending} of them by a 202: each in MySQL"));
    Ok(check)
}

/// The expectations that MySQL meets: id and user.
async fn met(pool: &MySqlPool, state: ExpectedState, expectations: &[&Expectation]) -> Result<HashSet<(Uuid, u64)>> {
    let mut query = QueryBuilder::new(select(state));
    let mut ids = query.separated(", ");
    for expectation in expectations {
        ids.push_bind(expectation.id);
    }
    query.push(")");
    let rows: Vec<(Uuid, u64)> = query.build_query_as().fetch_all(pool).await.context("reading outcomes")?;
    Ok(rows.into_iter().collect())
}

const fn select(state: ExpectedState) -> &'static str {
    match state {
        ExpectedState::Placed => "SELECT order_id, user_id FROM orders WHERE status <> 'REJECTED' AND order_id IN (",
        ExpectedState::PlaceAccepted => "SELECT order_id, user_id FROM orders WHERE order_id IN (",
        ExpectedState::Paid => "SELECT order_id, user_id FROM orders WHERE paid_at IS NOT NULL AND order_id IN (",
        ExpectedState::Confirmed => {
            "SELECT order_id, user_id FROM orders WHERE status = 'BUY_CONFIRM' AND order_id IN ("
        }
        ExpectedState::Cancelled => "SELECT order_id, user_id FROM orders WHERE status = 'CANCELLED' AND order_id IN (",
        ExpectedState::CommandAccepted => "SELECT command_id, user_id FROM order_commands WHERE command_id IN (",
        ExpectedState::Charged => "SELECT charge_id, user_id FROM charges WHERE status = 'APPROVED' AND charge_id IN (",
        ExpectedState::ChargeAccepted => {
            "SELECT charge_id, user_id FROM charges WHERE status <> 'PENDING' AND charge_id IN ("
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_anomaly_is_a_difference() {
        let mut record = ShopRecord::default();
        assert_eq!(responses(&record).differences(), 0);
        (0..12).for_each(|_| record.anomalies.add("POST /orders: 500".into()));
        let check = responses(&record);
        assert_eq!((check.differences(), check.examples().len(), check.invariant()), (12, 5, "responses"));
    }

    #[test]
    fn i12_a_mismatch_is_a_difference_and_an_in_progress_is_not() {
        let mut record = ShopRecord::default();
        record.duplicates.in_progress = 3;
        assert_eq!((duplicates(&record).differences(), duplicates(&record).invariant()), (0, "I12"));
        record.duplicates.mismatches.add("POST /orders: 201, then 422".into());
        assert_eq!(duplicates(&record).examples(), ["POST /orders: 201, then 422"]);
    }
}
