//! Reads of the tables `product_daily_sales` and `best_sellers`: rankings of days that are over.

use chrono::NaiveDate;
use sqlx::MySqlPool;

use super::decode::identifier;
use crate::{
    clock::Timestamp,
    domain::ranking::{MAX_RANKED_PRODUCTS, first_of},
    identifiers::ProductId,
};

/// The last day that the job `persist-daily-sales` has persisted, and the time up to which its sales are contained.
pub async fn find_last_day(pool: &MySqlPool) -> Result<Option<(NaiveDate, Timestamp)>, sqlx::Error> {
    sqlx::query_as(
        "SELECT /* best_sellers::find_last_day */ day, as_of FROM job_runs WHERE name = 'persist-daily-sales' \
         AND as_of IS NOT NULL ORDER BY day DESC LIMIT 1",
    )
    .fetch_optional(pool)
    .await
}

/// The products that sold most in the `days` days up to `to`, and their units. The job has ranked windows of three
/// days; others are summed up here.
pub async fn list(pool: &MySqlPool, to: NaiveDate, days: u8) -> Result<Vec<(ProductId, i64)>, sqlx::Error> {
    let rows: Vec<(u64, i64)> = if days == 3 {
        sqlx::query_as(
            "SELECT /* best_sellers::list */ product_id, quantity FROM best_sellers WHERE day = ? ORDER BY rank_number",
        )
        .bind(to)
        .fetch_all(pool)
        .await?
    } else {
        sqlx::query_as(
            // SUM of integers is a DECIMAL in MySQL, hence the CAST.
            "SELECT /* best_sellers::list */ product_id, CAST(SUM(quantity) AS SIGNED) AS sold FROM product_daily_sales \
             WHERE day BETWEEN ? AND ? GROUP BY product_id ORDER BY sold DESC, product_id LIMIT ?",
        )
        .bind(first_of(to, days))
        .bind(to)
        .bind(MAX_RANKED_PRODUCTS)
        .fetch_all(pool)
        .await?
    };
    rows.into_iter().map(|(product, units)| Ok((identifier(product)?, units))).collect()
}

/// Units of a product sold in the `days` days up to `to`.
pub async fn sum_units(pool: &MySqlPool, product: ProductId, to: NaiveDate, days: u8) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT /* best_sellers::sum_units */ CAST(COALESCE(SUM(quantity), 0) AS SIGNED) FROM product_daily_sales \
         WHERE product_id = ? AND day BETWEEN ? AND ?",
    )
    .bind(product.get())
    .bind(first_of(to, days))
    .bind(to)
    .fetch_one(pool)
    .await
}
