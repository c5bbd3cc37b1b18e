//! Sales as the tables of orders show them, and the tables `product_daily_sales` and `best_sellers` that jobs fill with
//! them.

use std::collections::BTreeSet;

use chrono::NaiveDate;
use chrono_tz::Tz;
use futures::TryStreamExt as _;
use sqlx::{Connection as _, MySql, MySqlConnection, MySqlPool, Transaction};

use super::{Database, decode::identifier, epochs};
use crate::{
    clock::Timestamp,
    domain::{
        event::Position,
        ranking::{
            EVENTS, MAX_RANKED_PRODUCTS, SalesChange, Scores, SoldOrder, add, business_day, days_after, days_before,
            sales_changes, start_of,
        },
    },
};

/// Sales from the tables of orders as of one event. All reads see one consistent snapshot. Orders that it contains but
/// whose events have no sequence yet are counted without those events, because the sink will count them when they come.
pub struct SalesSnapshot<'c> {
    /// Every event up to this one is contained, and none after it.
    pub position: Position,
    snapshot: Transaction<'c, MySql>,
    unsequenced: Vec<SalesChange>,
    zone: Tz,
}

impl<'c> SalesSnapshot<'c> {
    /// Opens a snapshot as of the last event with a sequence. It ends when the value is dropped.
    pub async fn open(connection: &'c mut MySqlConnection, zone: Tz) -> Result<Self, sqlx::Error> {
        // Sessions use READ COMMITTED, under which each statement would see a state of its own.
        sqlx::raw_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ").execute(&mut *connection).await?;
        let mut snapshot = connection.begin_with("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY").await?;
        let position = epochs::list(&mut snapshot).await?.position();
        let unsequenced = unsequenced_changes(&mut snapshot, zone).await?;
        Ok(Self { position, snapshot, unsequenced, zone })
    }

    pub async fn day(&mut self, day: NaiveDate) -> Result<Scores, sqlx::Error> {
        let mut scores = sum_of_day(&mut self.snapshot, day, self.zone).await?;
        for change in self.unsequenced.iter().filter(|change| change.day == day) {
            add(&mut scores, change.product, -change.units);
        }
        Ok(scores)
    }
}

async fn unsequenced_changes(connection: &mut MySqlConnection, zone: Tz) -> Result<Vec<SalesChange>, sqlx::Error> {
    let [paid, cancelled] = EVENTS;
    let rows: Vec<(String, sqlx::types::Json<SoldOrder>)> = sqlx::query_as(
        "SELECT /* sales::unsequenced_changes */ type, payload FROM outbox_events WHERE sequence IS NULL AND type IN (?, ?)",
    )
    .bind(paid)
    .bind(cancelled)
    .fetch_all(connection)
    .await?;
    Ok(rows.iter().flat_map(|(kind, order)| sales_changes(kind, order, zone)).collect())
}

/// Units of the orders that were sold on a business day and not cancelled since.
async fn sum_of_day(connection: &mut MySqlConnection, day: NaiveDate, zone: Tz) -> Result<Scores, sqlx::Error> {
    let sql = format!("SELECT /* sales::sum_of_day */ product_id, quantity FROM ({}) AS of_day", sold_sql());
    // Streamed, as a day may have a million products.
    let mut rows = sqlx::query_as::<_, (u64, i64)>(sqlx::AssertSqlSafe(sql))
        .bind(day)
        .bind(start_of(day, zone))
        .bind(start_of(days_after(day, 1), zone))
        .fetch(connection);
    let mut scores = Scores::new();
    while let Some((product, units)) = rows.try_next().await? {
        scores.insert(identifier(product)?, units);
    }
    Ok(scores)
}

/// Units by product of the orders sold on a day and not cancelled since. Binds the day, its start and its end.
fn sold_sql() -> String {
    // FORCE INDEX: the optimizer may prefer the index on `status`, which holds nearly all orders.
    let sum = |condition: &str| {
        format!(
            "SELECT i.product_id, SUM(i.quantity) AS quantity FROM orders o FORCE INDEX (paid_on) \
             JOIN order_items i ON i.order_id = o.order_id \
             WHERE {condition} AND o.status IN ('PAY_DONE', 'BUY_CONFIRM') GROUP BY i.product_id"
        )
    };
    let stored = sum("o.paid_on = ?");
    // Orders that an older version paid and `store_days` has not reached: their time decides.
    let missing = sum("o.paid_on IS NULL AND o.paid_at >= ? AND o.paid_at < ?");
    // Not one WHERE with OR: MariaDB would read every order without a day, which are all that were never paid.
    format!(
        "SELECT product_id, CAST(SUM(quantity) AS SIGNED) AS quantity \
         FROM ({stored} UNION ALL {missing}) AS sold GROUP BY product_id"
    )
}

/// Stores the day of at most `limit` orders that an older version paid, those of the earliest such day. Returns their
/// number. The time zone may have changed since they were paid, which no row shows.
pub async fn store_days(pool: &MySqlPool, zone: Tz, limit: u32) -> Result<u64, sqlx::Error> {
    let first: Option<Timestamp> = sqlx::query_scalar(
        "SELECT /* sales::store_days */ paid_at FROM orders FORCE INDEX (paid_on) \
         WHERE paid_on IS NULL AND paid_at >= ? ORDER BY paid_at LIMIT 1",
    )
    .bind(Timestamp::UNIX_EPOCH)
    .fetch_optional(pool)
    .await?;
    let Some(first) = first else { return Ok(0) };
    let day = business_day(first, zone);
    let stored = sqlx::query(
        "UPDATE orders FORCE INDEX (paid_on) /* sales::store_days */ SET paid_on = ? \
         WHERE paid_on IS NULL AND paid_at >= ? AND paid_at < ? LIMIT ?",
    )
    .bind(day)
    .bind(first)
    .bind(start_of(days_after(day, 1), zone))
    .bind(limit)
    .execute(pool)
    .await?;
    Ok(stored.rows_affected())
}

/// Replaces the rows of a business day in `product_daily_sales`. Returns the number of products. Run it inside
/// [`super::retrying`].
pub async fn persist_day(database: &Database, day: NaiveDate, zone: Tz) -> Result<u64, sqlx::Error> {
    // One transaction: a reader sees the day as it was or as it is, never without rows.
    let mut transaction = database.begin().await?;
    // DELETE and INSERT, not an upsert: a product whose orders were all cancelled must lose its row.
    sqlx::query("DELETE FROM product_daily_sales /* sales::persist_day */ WHERE day = ?")
        .bind(day)
        .execute(&mut *transaction)
        .await?;
    let sql = format!(
        "INSERT INTO product_daily_sales /* sales::persist_day */ (day, product_id, quantity) \
         SELECT ?, product_id, quantity FROM ({}) AS of_day",
        sold_sql()
    );
    let written = sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(day)
        .bind(day)
        .bind(start_of(day, zone))
        .bind(start_of(days_after(day, 1), zone))
        .execute(&mut *transaction)
        .await?;
    transaction.commit().await?;
    Ok(written.rows_affected())
}

/// Replaces the ranking of the three days up to `day` in `best_sellers`, from `product_daily_sales`. Returns the number
/// of products. Run it inside [`super::retrying`].
pub async fn persist_best_sellers(database: &Database, day: NaiveDate) -> Result<u64, sqlx::Error> {
    // One transaction: a reader sees the ranking as it was or as it is, never without rows.
    let mut transaction = database.begin().await?;
    sqlx::query("DELETE FROM best_sellers /* sales::persist_best_sellers */ WHERE day = ?")
        .bind(day)
        .execute(&mut *transaction)
        .await?;
    let written = sqlx::query(
        "INSERT INTO best_sellers /* sales::persist_best_sellers */ (day, rank_number, product_id, quantity) \
         SELECT ?, ROW_NUMBER() OVER (ORDER BY quantity DESC, product_id), product_id, quantity FROM ( \
         SELECT product_id, CAST(SUM(quantity) AS SIGNED) AS quantity FROM product_daily_sales \
         WHERE day BETWEEN ? AND ? GROUP BY product_id ORDER BY quantity DESC, product_id LIMIT ?) AS best",
    )
    .bind(day)
    .bind(days_before(day, 2))
    .bind(day)
    .bind(MAX_RANKED_PRODUCTS)
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(written.rows_affected())
}

/// Business days before `day` whose sales changed from `since` on, because orders that were sold on them were
/// cancelled.
pub async fn list_days_cancelled_since(
    pool: &MySqlPool,
    day: NaiveDate,
    since: Timestamp,
    zone: Tz,
) -> Result<BTreeSet<NaiveDate>, sqlx::Error> {
    let mut paid = sqlx::query_as::<_, (Option<NaiveDate>, Timestamp)>(
        "SELECT /* sales::list_days_cancelled_since */ paid_on, paid_at FROM orders FORCE INDEX (ended_at) \
         WHERE ended_at >= ? AND status = 'CANCELLED' AND paid_at IS NOT NULL",
    )
    .bind(since)
    .fetch(pool);
    // Missing days are found here and not in SQL, whose time zones need tables that a server may not have.
    let mut days = BTreeSet::new();
    while let Some((paid_on, paid_at)) = paid.try_next().await? {
        days.insert(paid_on.unwrap_or_else(|| business_day(paid_at, zone)));
    }
    // Today and, after a change of the time zone, tomorrow are not persisted yet.
    days.retain(|sold_on| *sold_on < day);
    Ok(days)
}
