//! The tables `product_daily_sales` and `best_sellers`, and what orders themselves say of sales.

use std::collections::BTreeSet;

use chrono::NaiveDate;
use chrono_tz::Tz;
use futures::TryStreamExt as _;
use sqlx::{Connection as _, MySql, MySqlConnection, MySqlPool, Transaction};

use super::{Database, decode::identifier};
use crate::{
    clock::Timestamp,
    domain::ranking::{
        EVENTS, Effect, LONGEST_RANKING, Scores, SoldOrder, add, business_day, days_after, days_before, effects,
        start_of,
    },
};

/// What orders say was sold, as of one event: everything is read of one moment, and orders that were changed by then
/// whose events have no sequence yet are counted as they were before, as these events will be counted.
pub struct SalesSnapshot<'c> {
    /// Every event up to this sequence is counted, and none after it.
    pub sequence: u64,
    moment: Transaction<'c, MySql>,
    unnumbered: Vec<Effect>,
    zone: Tz,
}

impl<'c> SalesSnapshot<'c> {
    /// Sales as of the last event that has its sequence.
    pub async fn open(connection: &'c mut MySqlConnection, zone: Tz) -> Result<Self, sqlx::Error> {
        sqlx::raw_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ").execute(&mut *connection).await?;
        let mut moment = connection.begin_with("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY").await?;
        let sequence = sqlx::query_scalar("SELECT /* sales::sales_snapshot */ last_sequence FROM outbox_sequence")
            .fetch_one(&mut *moment)
            .await?;
        let unnumbered = unnumbered_effects(&mut moment, zone).await?;
        Ok(Self { sequence, moment, unnumbered, zone })
    }

    /// The scores of a business day.
    pub async fn day(&mut self, day: NaiveDate) -> Result<Scores, sqlx::Error> {
        let mut scores = sum_of_day(&mut self.moment, day, self.zone).await?;
        for effect in self.unnumbered.iter().filter(|effect| effect.day == day) {
            add(&mut scores, effect.product, -effect.units);
        }
        Ok(scores)
    }
}

async fn unnumbered_effects(connection: &mut MySqlConnection, zone: Tz) -> Result<Vec<Effect>, sqlx::Error> {
    let [paid, cancelled] = EVENTS;
    let rows: Vec<(String, sqlx::types::Json<SoldOrder>)> = sqlx::query_as(
        "SELECT /* sales::sales_snapshot */ type, payload FROM outbox_events WHERE sequence IS NULL AND type IN (?, ?)",
    )
    .bind(paid)
    .bind(cancelled)
    .fetch_all(connection)
    .await?;
    Ok(rows.iter().flat_map(|(kind, order)| effects(kind, order, zone)).collect())
}

/// What orders paid on a business day are for, and were not cancelled since.
async fn sum_of_day(connection: &mut MySqlConnection, day: NaiveDate, zone: Tz) -> Result<Scores, sqlx::Error> {
    let sql = format!("SELECT /* sales::sum_of_day */ product_id, quantity FROM ({SOLD}) AS sold");
    let mut rows = sqlx::query_as::<_, (u64, i64)>(sqlx::AssertSqlSafe(sql))
        .bind(start_of(day, zone))
        .bind(start_of(days_after(day, 1), zone))
        .fetch(connection);
    let mut scores = Scores::new();
    while let Some((product, units)) = rows.try_next().await? {
        scores.insert(identifier(product)?, units);
    }
    Ok(scores)
}

/// Units by product of the orders that were paid from one moment on and before another.
const SOLD: &str = "SELECT i.product_id, CAST(SUM(i.quantity) AS SIGNED) AS quantity \
    FROM orders o FORCE INDEX (paid_at) JOIN order_items i ON i.order_id = o.order_id \
    WHERE o.paid_at >= ? AND o.paid_at < ? AND o.status IN ('PAY_DONE', 'BUY_CONFIRM') GROUP BY i.product_id";

/// Writes what was sold on a business day into `product_daily_sales`, in the place of what was there; how many
/// products. Run it inside [`super::retrying`].
pub async fn persist_day(database: &Database, day: NaiveDate, zone: Tz) -> Result<u64, sqlx::Error> {
    let mut transaction = database.begin().await?;
    sqlx::query("DELETE FROM product_daily_sales /* sales::persist_day */ WHERE day = ?")
        .bind(day)
        .execute(&mut *transaction)
        .await?;
    let sql = format!(
        "INSERT INTO product_daily_sales /* sales::persist_day */ (day, product_id, quantity) \
         SELECT ?, product_id, quantity FROM ({SOLD}) AS sold"
    );
    let written = sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(day)
        .bind(start_of(day, zone))
        .bind(start_of(days_after(day, 1), zone))
        .execute(&mut *transaction)
        .await?;
    transaction.commit().await?;
    Ok(written.rows_affected())
}

/// Ranks the three days up to `day`, as `product_daily_sales` knows them, in `best_sellers`, in the place of what was
/// there; how many products. Run it inside [`super::retrying`].
pub async fn persist_best_sellers(database: &Database, day: NaiveDate) -> Result<u64, sqlx::Error> {
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
    .bind(LONGEST_RANKING)
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(written.rows_affected())
}

/// Business days before `day` on which orders were paid that were cancelled from `since` on.
pub async fn list_days_cancelled_since(
    pool: &MySqlPool,
    day: NaiveDate,
    since: Timestamp,
    zone: Tz,
) -> Result<BTreeSet<NaiveDate>, sqlx::Error> {
    let mut paid = sqlx::query_scalar::<_, Timestamp>(
        "SELECT /* sales::list_days_cancelled_since */ paid_at FROM orders FORCE INDEX (ended_at) \
         WHERE ended_at >= ? AND status = 'CANCELLED' AND paid_at < ?",
    )
    .bind(since)
    .bind(start_of(day, zone))
    .fetch(pool);
    let mut days = BTreeSet::new();
    while let Some(paid_at) = paid.try_next().await? {
        days.insert(business_day(paid_at, zone));
    }
    Ok(days)
}
