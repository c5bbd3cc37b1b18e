//! The table `products`.

use sqlx::MySqlPool;

use crate::clock::Timestamp;

/// Whether there is any product.
pub async fn has_products(pool: &MySqlPool) -> Result<bool, sqlx::Error> {
    let found: Option<u64> =
        sqlx::query_scalar("SELECT /* has_products */ product_id FROM products LIMIT 1").fetch_optional(pool).await?;
    Ok(found.is_some())
}

/// Adds a product that is for sale; `price` in won.
pub async fn create_product(
    pool: &MySqlPool,
    name: &str,
    price: i64,
    stock: i64,
    now: Timestamp,
) -> Result<u64, sqlx::Error> {
    let inserted = sqlx::query(
        "INSERT INTO products /* create_product */ (name, price, stock, initial_stock, created_at, updated_at) VALUES (?, ?, ?, ?, ?, ?)",
    )
    .bind(name)
    .bind(price)
    .bind(stock)
    .bind(stock)
    .bind(now)
    .bind(now)
    .execute(pool)
    .await?;
    Ok(inserted.last_insert_id())
}
