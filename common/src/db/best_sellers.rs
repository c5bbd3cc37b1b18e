//! What the tables `product_daily_sales` and `best_sellers` tell those who read.

use chrono::NaiveDate;
use sqlx::MySqlPool;

use super::decode::{identifier, parse};
use crate::{
    clock::Timestamp,
    domain::{
        product::ProductStatus,
        ranking::{LONGEST_RANKING, first_of},
    },
    identifiers::ProductId,
};

/// What is shown of a product that is ranked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProductSummary {
    /// What it is called.
    pub name: String,
    /// Won for one.
    pub price: i64,
    /// Whether it is for sale.
    pub status: ProductStatus,
}

/// The names, prices and statuses of these products, of those that there are.
pub async fn list_products(
    pool: &MySqlPool,
    products: impl IntoIterator<Item = ProductId> + Send,
) -> Result<Vec<(ProductId, ProductSummary)>, sqlx::Error> {
    let ids: Vec<String> = products.into_iter().map(|product| product.to_string()).collect();
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let ids = ids.join(",");
    let sql = format!(
        "SELECT /* best_sellers::list_products */ product_id, name, price, status FROM products WHERE product_id IN ({ids})"
    );
    // As text, not prepared: lists of ids come in any length.
    let rows = sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).fetch_all(pool).await?;
    let mut shown = Vec::with_capacity(rows.len());
    for row in &rows {
        let (id, name, price, status) = <(u64, String, i64, String) as sqlx::FromRow<_>>::from_row(row)?;
        let status = parse("products.status", &status)?;
        shown.push((identifier(id)?, ProductSummary { name, price, status }));
    }
    Ok(shown)
}

/// The last day that the job `persist-daily-sales` has persisted, and as of when; none when there is none yet.
pub async fn find_last_day(pool: &MySqlPool) -> Result<Option<(NaiveDate, Timestamp)>, sqlx::Error> {
    sqlx::query_as(
        "SELECT /* best_sellers::find_last_day */ day, as_of FROM job_runs WHERE name = 'persist-daily-sales' \
         AND as_of IS NOT NULL ORDER BY day DESC LIMIT 1",
    )
    .fetch_optional(pool)
    .await
}

/// The products that sold best in the `days` days up to `to`, as the tables know them: those of three days are ranked
/// already.
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
            "SELECT /* best_sellers::list */ product_id, CAST(SUM(quantity) AS SIGNED) AS sold FROM product_daily_sales \
             WHERE day BETWEEN ? AND ? GROUP BY product_id ORDER BY sold DESC, product_id LIMIT ?",
        )
        .bind(first_of(to, days))
        .bind(to)
        .bind(LONGEST_RANKING)
        .fetch_all(pool)
        .await?
    };
    rows.into_iter().map(|(product, units)| Ok((identifier(product)?, units))).collect()
}

/// Units of a product sold in the `days` days up to `to`, as the table of days knows them.
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
