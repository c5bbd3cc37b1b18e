//! Compares what a client was answered with what became of it.

use std::collections::HashSet;

use anyhow::{Context as _, Result};
use sqlx::{MySqlPool, QueryBuilder};
use uuid::Uuid;

use crate::{
    audit::{Check, STEP},
    numbers::grouped,
    record::{Promise, ShopRecord, Told},
};

/// Every call was answered as such a call may be, and every 202 had an outcome where it said.
pub fn answers(record: &ShopRecord) -> Check {
    let mut check = Check::new("answers");
    check.add(record.strange.count(), record.strange.samples().iter().cloned());
    let calls: u64 = record.calls.values().map(|call| call.latencies.count()).sum();
    check.compared(format!("{} calls: answered as expected, each 202 with an outcome in the end", grouped(calls)));
    check
}

/// I12: a repeat was answered as the first was.
pub fn repeats(record: &ShopRecord) -> Check {
    let mut check = Check::new("I12");
    let repeats = &record.repeats;
    check.add(repeats.unequal.count(), repeats.unequal.samples().iter().cloned());
    check.compared(format!(
        "client: {} requests made again with their key, {} of them at once: the same answer, or in progress ({})",
        grouped(repeats.afterwards + repeats.at_once),
        grouped(repeats.at_once),
        grouped(repeats.in_progress)
    ));
    check
}

/// What the client was told is so, and every command that was answered 202 has its durable outcome.
pub async fn outcomes(pool: &MySqlPool, record: &ShopRecord) -> Result<Check> {
    let mut check = Check::new("outcomes");
    for told in Told::ALL {
        let promises: Vec<&Promise> = record.promises.iter().filter(|promise| promise.told == told).collect();
        for step in promises.chunks(STEP) {
            let kept = kept(pool, told, step).await?;
            for Promise { id, user, .. } in step {
                check.require(kept.contains(&(*id, user.get())), || {
                    format!("user {user} was told of {id} that it is {}; it is not", told.describe())
                });
            }
        }
    }
    let taken = record.promises.iter().filter(|promise| promise.told.is_pending()).count() as u64;
    let (all, taken) = (grouped(record.promises.len() as u64), grouped(taken));
    check.compared(format!("client: {all} answers of what was done, {taken} of them 202: so it is in MySQL"));
    Ok(check)
}

/// Those of the promises that the tables keep: id and user.
async fn kept(pool: &MySqlPool, told: Told, promises: &[&Promise]) -> Result<HashSet<(Uuid, u64)>> {
    let mut query = QueryBuilder::new(match told {
        Told::Placed => "SELECT order_id, user_id FROM orders WHERE status <> 'REJECTED' AND order_id IN (",
        Told::PlaceTaken => "SELECT order_id, user_id FROM orders WHERE order_id IN (",
        Told::Paid => "SELECT order_id, user_id FROM orders WHERE paid_at IS NOT NULL AND order_id IN (",
        Told::Confirmed => "SELECT order_id, user_id FROM orders WHERE status = 'BUY_CONFIRM' AND order_id IN (",
        Told::Cancelled => "SELECT order_id, user_id FROM orders WHERE status = 'CANCELLED' AND order_id IN (",
        Told::CommandTaken => "SELECT command_id, user_id FROM order_commands WHERE command_id IN (",
        Told::Charged => "SELECT charge_id, user_id FROM charges WHERE status = 'APPROVED' AND charge_id IN (",
        Told::ChargeTaken => "SELECT charge_id, user_id FROM charges WHERE status <> 'PENDING' AND charge_id IN (",
    });
    let mut ids = query.separated(", ");
    for promise in promises {
        ids.push_bind(promise.id);
    }
    query.push(")");
    let rows: Vec<(Uuid, u64)> = query.build_query_as().fetch_all(pool).await.context("reading outcomes")?;
    Ok(rows.into_iter().collect())
}
