//! I9: the sales of each day and window in Redis, and of each day in the stored table, equal the units of the orders.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use chrono::{NaiveDate, TimeDelta};
use chrono_tz::Tz;
use dibs_common::{
    clock::{self, Timestamp},
    domain::ranking::{KEPT_DAYS, WINDOWS, business_day, days_after, days_before, last_days, start_of},
    redis::sales,
};
use sqlx::MySqlPool;

use crate::{audit::Check, numbers::grouped, stores::Stores};

/// Stored days that are compared.
const STORED_DAYS: u64 = 31;
/// How much later than `ended_at` a cancellation may commit.
const COMMIT_SLACK: TimeDelta = TimeDelta::minutes(1);

/// A day is stored at 00:10, or by the hourly check; it is missing when this time has passed since its end.
const PERSIST_DEADLINE: TimeDelta = TimeDelta::hours(2);

/// The units of each product on each day in Redis.
pub async fn days_in_redis(stores: &Stores, zone: Tz) -> Result<Check> {
    let mut check = Check::new("I9");
    let is_counted = sales::applied(&stores.redis).await.context("reading the applied sequence in Redis")?.is_some();
    check.require(is_counted, || "Redis does not know which events it has applied".into());
    let (mut products, today) = (0, business_day(clock::now(), zone));
    for day in last_days(today, KEPT_DAYS) {
        let counted = sales::daily(&stores.redis, day).await.context("reading the sales of a day in Redis")?;
        // Plain ids, as the query of the orders returns them.
        let counted = counted.into_iter().map(|(product, units)| (product.get(), units)).collect();
        let sold = sold(&stores.database.pool(), day, None).await?;
        products += sold.values().filter(|units| units.live > 0).count();
        compare(&mut check, "in Redis", day, &sold, &counted);
    }
    check.compared(format!(
        "{} products in {KEPT_DAYS} days: units in Redis, units of orders",
        grouped(products as u64)
    ));
    Ok(check)
}

/// The units of each product in each window in Redis. A window that expired is compared no more.
pub async fn windows_in_redis(stores: &Stores) -> Result<Check> {
    let mut check = Check::new("I9");
    let (mut products, mut windows) = (0, 0);
    for days in WINDOWS {
        let info = sales::window_info(&stores.redis, days).await.context("reading a window of sales in Redis")?;
        let Some(info) = info else { continue };
        let shown = sales::whole_window(&stores.redis, days).await.context("reading a window of sales in Redis")?;
        let shown = shown.into_iter().map(|(product, units)| (product.get(), units)).collect();
        let mut sold_in_all: BTreeMap<u64, Units> = BTreeMap::new();
        for day in last_days(info.to, days.into()) {
            for (product, units) in sold(&stores.database.pool(), day, None).await? {
                let in_all = sold_in_all.entry(product).or_default();
                in_all.live += units.live;
                in_all.counted_at_most += units.counted_at_most;
            }
        }
        windows += 1;
        products += sold_in_all.values().filter(|units| units.live > 0).count();
        compare(&mut check, &format!("in the window of {days} days"), info.to, &sold_in_all, &shown);
    }
    let products = grouped(products as u64);
    check.compared(format!("{products} products in {windows} windows: units in Redis, units of orders"));
    Ok(check)
}

/// The units of each product on each stored day, as of the last run of the job.
pub async fn stored_days(stores: &Stores, zone: Tz) -> Result<Check> {
    let mut check = Check::new("I9");
    let pool = &stores.database.pool();
    let today = business_day(clock::now(), zone);
    let (mut products, mut days) = (0, 0);
    for day in last_days(days_before(today, 1), STORED_DAYS) {
        let Some(as_of) = written_at(pool, day).await? else {
            let is_due = clock::now() > start_of(days_after(day, 1), zone) + PERSIST_DEADLINE;
            // A day without paid orders has no rows, so it is no difference that it was not written.
            let is_missed = is_due && !sold(pool, day, None).await?.is_empty();
            check.require(!is_missed, || format!("{day}: orders were paid, but the day is not stored"));
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
        compare(&mut check, "stored", day, &sold(pool, day, Some(as_of - COMMIT_SLACK)).await?, &rows);
    }
    let products = grouped(products as u64);
    check.compared(format!("{products} products in {days} stored days: units stored, units of orders"));
    Ok(check)
}

/// The start of the last run that wrote this day or verified it; none without such a run.
async fn written_at(pool: &MySqlPool, day: NaiveDate) -> Result<Option<Timestamp>> {
    let as_of: Option<Timestamp> = sqlx::query_scalar(
        "SELECT /* audit written_at */ MAX(later.as_of) FROM job_runs own JOIN job_runs later \
         ON later.name = own.name AND later.day >= own.day \
         WHERE own.name = 'persist-daily-sales' AND own.day = ? AND own.as_of IS NOT NULL",
    )
    .bind(day)
    .fetch_one(pool)
    .await
    .context("reading the runs of jobs")?;
    Ok(as_of)
}

/// Units of a product on a day.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Units {
    /// Of orders that are not cancelled.
    live: i64,
    /// With orders that were cancelled so late that the day may still count them.
    counted_at_most: i64,
}

/// The units of orders sold on a day. Orders cancelled from `late` on may still be counted.
async fn sold(pool: &MySqlPool, day: NaiveDate, late: Option<Timestamp>) -> Result<BTreeMap<u64, Units>> {
    let rows: Vec<(u64, i64, i64)> = sqlx::query_as(
        "SELECT /* audit sold */ i.product_id, \
             CAST(SUM(IF(o.status = 'CANCELLED', 0, i.quantity)) AS SIGNED), \
             CAST(SUM(IF(o.status = 'CANCELLED' AND COALESCE(o.ended_at < ?, TRUE), 0, i.quantity)) AS SIGNED) \
         FROM orders o JOIN order_items i ON i.order_id = o.order_id \
         WHERE o.paid_on = ? GROUP BY i.product_id",
    )
    .bind(late)
    .bind(day)
    .fetch_all(pool)
    .await
    .context("summing up orders")?;
    Ok(rows.into_iter().map(|(product, live, at_most)| (product, Units { live, counted_at_most: at_most })).collect())
}

fn compare(check: &mut Check, place: &str, day: NaiveDate, sold: &BTreeMap<u64, Units>, found: &BTreeMap<u64, i64>) {
    for (product, units) in sold {
        let found = found.get(product).copied().unwrap_or(0);
        // A cancellation at the time of the job is counted or not, and both are correct.
        check.require((units.live..=units.counted_at_most).contains(&found), || {
            format!("{day}: {found} units of product {product} {place}, {} units sold", units.live)
        });
    }
    for (product, found) in found.iter().filter(|(product, _)| !sold.contains_key(product)) {
        check.require(false, || format!("{day}: {found} units of product {product} {place}, none sold"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compared(sold: &[(u64, i64, i64)], found: &[(u64, i64)]) -> Vec<String> {
        let mut check = Check::new("I9");
        let units = |&(product, live, counted_at_most)| (product, Units { live, counted_at_most });
        let day = NaiveDate::from_ymd_opt(2026, 1, 2).expect("a day");
        let (sold, found) = (sold.iter().map(units).collect(), found.iter().copied().collect());
        compare(&mut check, "stored", day, &sold, &found);
        check.examples().to_vec()
    }

    #[test]
    fn i9_equal_units_are_no_difference() {
        assert_eq!(compared(&[(1, 5, 5), (2, 0, 0)], &[(1, 5)]), Vec::<String>::new());
    }

    #[test]
    fn i9_a_late_cancellation_may_or_may_not_be_counted() {
        for found in [5, 6, 7] {
            assert_eq!(compared(&[(1, 5, 7)], &[(1, found)]), Vec::<String>::new());
        }
        assert_eq!(compared(&[(1, 5, 7)], &[(1, 8)]).len(), 1);
    }

    #[test]
    fn i9_missing_and_surplus_units_are_differences() {
        let expected = ["2026-01-02: 0 units of product 1 stored, 5 units sold"];
        assert_eq!(compared(&[(1, 5, 5)], &[]), expected);
        assert_eq!(compared(&[], &[(3, 2)]), ["2026-01-02: 2 units of product 3 stored, none sold"]);
    }
}
