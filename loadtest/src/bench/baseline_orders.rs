//! The baseline of orders: the rows that the worker wrote, 500 orders in each transaction, as the same statements, into
//! tables like its own, on one connection.

use anyhow::{Context as _, Result, bail};
use dibs_common::{
    clock::Timestamp,
    db::statements::{id, moment, text, write_into},
    identifiers::ProductId,
};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, MySqlConnection, MySqlPool};
use tokio::time::Instant;
use uuid::Uuid;

use crate::numbers::per_second;

const ORDERS_PER_TRANSACTION: usize = 500;
const TABLES: [&str; 4] = ["orders", "order_items", "outbox_events", "products"];

/// What the worker wrote for an order.
struct Row {
    order: Uuid,
    user: u64,
    amount: i64,
    created_at: Timestamp,
    expires_at: Timestamp,
    name: String,
    payload: String,
}

/// Writes the rows of these orders again; returns how many orders a second. Building the statements is not counted.
pub async fn insert(pool: &MySqlPool, product: ProductId, orders: &[Uuid]) -> Result<f64> {
    let rows = read(pool, product, orders.len()).await?;
    let mut connection = pool.acquire().await.context("connecting for the baseline")?;
    for table in TABLES {
        let sql = format!("DROP TABLE IF EXISTS {table}_bench; CREATE TABLE {table}_bench LIKE {table}");
        sqlx::raw_sql(AssertSqlSafe(sql))
            .execute(&mut *connection)
            .await
            .context("creating a table of the baseline")?;
    }
    let sql = format!("INSERT INTO products_bench SELECT * FROM products WHERE product_id = {product}");
    connection.execute(AssertSqlSafe(sql)).await.context("copying the product")?;
    let transactions: Vec<String> = rows.chunks(ORDERS_PER_TRANSACTION).map(|rows| statements(product, rows)).collect();
    let rate = run(&mut connection, product, transactions, rows.len()).await?;
    for table in TABLES {
        let dropped = connection.execute(AssertSqlSafe(format!("DROP TABLE {table}_bench"))).await;
        dropped.context("dropping a table of the baseline")?;
    }
    Ok(rate)
}

async fn run(
    connection: &mut MySqlConnection,
    product: ProductId,
    transactions: Vec<String>,
    orders: usize,
) -> Result<f64> {
    let lock = format!(
        "SELECT product_id, name, price, stock, status FROM products_bench WHERE product_id IN ({product}) FOR UPDATE"
    );
    let began = Instant::now();
    // One lock of the product for each batch, as the worker takes it.
    for sql in transactions {
        let mut transaction = connection.begin().await.context("beginning a transaction")?;
        transaction.execute(AssertSqlSafe(lock.clone())).await.context("locking the product")?;
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut *transaction).await.context("writing orders of the baseline")?;
        transaction.commit().await.context("committing orders of the baseline")?;
    }
    Ok(per_second(orders as u64, began.elapsed()))
}

async fn read(pool: &MySqlPool, product: ProductId, expected: usize) -> Result<Vec<Row>> {
    type Columns = (Uuid, u64, i64, Timestamp, Timestamp, String);
    let orders: Vec<Columns> = sqlx::query_as(
        "SELECT o.order_id, o.user_id, o.pay_amount, o.created_at, o.expires_at, i.name FROM order_items i \
         JOIN orders o ON o.order_id = i.order_id WHERE i.product_id = ? ORDER BY o.created_at, o.order_id",
    )
    .bind(product.get())
    .fetch_all(pool)
    .await
    .context("reading the orders")?;
    // One payload for all: its length matters, not its content.
    let payload: String = sqlx::query_scalar(
        "SELECT CAST(payload AS CHAR) FROM outbox_events WHERE type = 'order.created' ORDER BY event_id DESC LIMIT 1",
    )
    .fetch_one(pool)
    .await
    .context("reading an event")?;
    if orders.len() != expected {
        bail!("found {} orders, expected {expected}", orders.len());
    }
    let row = |(order, user, amount, created_at, expires_at, name)| Row {
        order,
        user,
        amount,
        created_at,
        expires_at,
        name,
        payload: payload.clone(),
    };
    Ok(orders.into_iter().map(row).collect())
}

/// The statements that the worker sends for these orders.
fn statements(product: ProductId, rows: &[Row]) -> String {
    let mut sql = String::from(
        "INSERT INTO orders_bench (order_id, user_id, status, code, detail, total_amount, discount_amount, pay_amount, \
         user_coupon_id, payment_id, created_at, expires_at, paid_at, confirmed_at, ended_at) VALUES ",
    );
    separated(&mut sql, rows, |sql, row| {
        let Row { user, amount, .. } = row;
        let (order, created, expires) = (id(row.order), moment(row.created_at), moment(row.expires_at));
        write_into(
            sql,
            format_args!(
                "({order},{user},'DEPOSIT_WAIT',NULL,NULL,{amount},0,{amount},NULL,NULL,{created},{expires},NULL,NULL,NULL)"
            ),
        );
    });
    sql.push_str(";INSERT INTO order_items_bench (order_id, product_id, name, unit_price, quantity) VALUES ");
    separated(&mut sql, rows, |sql, row| {
        write_into(sql, format_args!("({},{product},", id(row.order)));
        text(sql, &row.name);
        write_into(sql, format_args!(",{},1)", row.amount));
    });
    let count = rows.len();
    write_into(
        &mut sql,
        format_args!(
            ";UPDATE products_bench SET stock = stock - {count}, sold = sold + {count} WHERE product_id = {product};\
             INSERT INTO outbox_events_bench (aggregate_type, aggregate_id, type, payload, created_at) VALUES "
        ),
    );
    separated(&mut sql, rows, |sql, row| {
        write_into(sql, format_args!("('ORDER','{}','order.created',", row.order));
        text(sql, &row.payload);
        write_into(sql, format_args!(",{})", moment(row.created_at)));
    });
    sql
}

fn separated(sql: &mut String, rows: &[Row], write: impl Fn(&mut String, &Row)) {
    for (place, row) in rows.iter().enumerate() {
        if place > 0 {
            sql.push(',');
        }
        write(sql, row);
    }
}

#[cfg(test)]
mod tests {
    use dibs_common::clock::from_millis;

    use super::*;

    #[test]
    fn a_batch_writes_orders_items_stock_and_events() {
        let row = |number: u128| Row {
            order: Uuid::from_u128(number),
            user: 7,
            amount: 1_000,
            created_at: from_millis(0),
            expires_at: from_millis(1_800_000),
            name: "Hot".into(),
            payload: r#"{"orderId":"x"}"#.into(),
        };
        let product = ProductId::try_from(5).expect("an id");
        insta::assert_snapshot!(statements(product, &[row(1), row(2)]).replace(';', ";\n"));
    }
}
