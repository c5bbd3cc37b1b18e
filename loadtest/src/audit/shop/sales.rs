//! I9: what was sold on each day, in Redis and in the stored table, is what the orders themselves come to.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use chrono::{NaiveDate, TimeDelta};
use chrono_tz::Tz;
use dibs_common::{
    clock::{self, Timestamp},
    domain::ranking::{KEPT_DAYS, business_day, days_after, days_before, last_days, start_of},
    redis::sales,
};
use sqlx::MySqlPool;

use crate::{audit::Check, numbers::grouped, stores::Stores};

/// Stored days that are looked at, today included.
const STORED_DAYS: u64 = 31;
/// By how much later than it says an order may have been cancelled: the transaction had to end.
const LATE: TimeDelta = TimeDelta::minutes(1);

/// How long after its end a day is stored at the latest: 00:10, or within the hour.
const DUE_AFTER: TimeDelta = TimeDelta::hours(2);

/// Each day that Redis keeps: the units of each product.
pub async fn days_in_redis(stores: &Stores, zone: Tz) -> Result<Check> {
    let mut check = Check::new("I9");
    let is_counting = sales::applied(&stores.redis).await.context("reading Redis")?.is_some();
    check.require(is_counting, || "Redis does not know which events it has counted".into());
    let (mut products, today) = (0, business_day(clock::now(), zone));
    for day in last_days(today, KEPT_DAYS) {
        let counted = sales::daily(&stores.redis, day).await.context("reading Redis")?;
        let counted = counted.into_iter().map(|(product, units)| (product.get(), units)).collect();
        let sold = sold(stores.database.pool(), day, zone, None).await?;
        products += sold.values().filter(|units| units.live > 0).count();
        compare(&mut check, "in Redis", day, &sold, &counted);
    }
    check.compared(format!(
        "{} products in {KEPT_DAYS} days: units in Redis, units of orders",
        grouped(products as u64)
    ));
    Ok(check)
}

/// Each day that is persisted: the units of each product, as of the last time that days were written.
pub async fn stored_days(stores: &Stores, zone: Tz) -> Result<Check> {
    let mut check = Check::new("I9");
    let pool = stores.database.pool();
    let today = business_day(clock::now(), zone);
    let (mut products, mut days) = (0, 0);
    for day in last_days(days_before(today, 1), STORED_DAYS) {
        let Some(as_of) = written_at(pool, day).await? else {
            let is_due = clock::now() > start_of(days_after(day, 1), zone) + DUE_AFTER;
            let is_missed = is_due && !sold(pool, day, zone, None).await?.is_empty();
            check.require(!is_missed, || format!("{day}: orders were paid, and the day is not stored"));
            continue;
        };
        let rows: BTreeMap<u64, i64> = sqlx::query_as(
            "SELECT /* audit stored_days */ product_id, quantity FROM product_daily_sales WHERE day = ?",
        )
        .bind(day)
        .fetch_all(pool)
        .await
        .context("reading stored days")?
        .into_iter()
        .collect();
        days += 1;
        products += rows.len();
        compare(&mut check, "stored", day, &sold(pool, day, zone, Some(as_of - LATE)).await?, &rows);
    }
    let products = grouped(products as u64);
    check.compared(format!("{products} products in {days} stored days: units stored, units of orders"));
    Ok(check)
}

/// When the last run began that wrote this day or looked whether it had to; none when no run ever did.
async fn written_at(pool: &MySqlPool, day: NaiveDate) -> Result<Option<Timestamp>> {
    let is_persisted: Option<Timestamp> = sqlx::query_scalar(
        "SELECT /* audit written_at */ MAX(later.as_of) FROM job_runs own JOIN job_runs later \
         ON later.name = own.name AND later.day >= own.day \
         WHERE own.name = 'persist-daily-sales' AND own.day = ? AND own.as_of IS NOT NULL",
    )
    .bind(day)
    .fetch_one(pool)
    .await
    .context("reading the runs of jobs")?;
    Ok(is_persisted)
}

/// Units of a product, sold on a day.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Units {
    /// Of orders that are not cancelled.
    live: i64,
    /// With those that were cancelled so late that they may still be counted.
    counted_at_most: i64,
}

/// What the orders paid on a day come to. Those that were cancelled from `late` on may still be counted.
async fn sold(pool: &MySqlPool, day: NaiveDate, zone: Tz, late: Option<Timestamp>) -> Result<BTreeMap<u64, Units>> {
    let rows: Vec<(u64, i64, i64)> = sqlx::query_as(
        "SELECT /* audit sold */ i.product_id, \
             CAST(SUM(IF(o.status = 'CANCELLED', 0, i.quantity)) AS SIGNED), \
             CAST(SUM(IF(o.status = 'CANCELLED' AND COALESCE(o.ended_at < ?, TRUE), 0, i.quantity)) AS SIGNED) \
         FROM orders o JOIN order_items i ON i.order_id = o.order_id \
         WHERE o.paid_at >= ? AND o.paid_at < ? GROUP BY i.product_id",
    )
    .bind(late)
    .bind(start_of(day, zone))
    .bind(start_of(days_after(day, 1), zone))
    .fetch_all(pool)
    .await
    .context("adding up orders")?;
    Ok(rows.into_iter().map(|(product, live, at_most)| (product, Units { live, counted_at_most: at_most })).collect())
}

fn compare(check: &mut Check, place: &str, day: NaiveDate, sold: &BTreeMap<u64, Units>, found: &BTreeMap<u64, i64>) {
    for (product, units) in sold {
        let found = found.get(product).copied().unwrap_or(0);
        check.require((units.live..=units.counted_at_most).contains(&found), || {
            format!("{day}: {found} of product {product} are {place}, {} were sold", units.live)
        });
    }
    for (product, found) in found.iter().filter(|(product, _)| !sold.contains_key(product)) {
        check.require(false, || format!("{day}: {found} of product {product} are {place}, none were sold"));
    }
}
