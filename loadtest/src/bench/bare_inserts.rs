//! The barest way to confirm: the same rows, 500 in each INSERT, into a table like `user_coupons`, one after the
//! other on one connection.

use std::fmt::Write as _;

use anyhow::{Context as _, Result, anyhow};
use dibs_common::{clock::Timestamp, identifiers::CouponId};
use sqlx::{
    Arguments as _, AssertSqlSafe, Executor as _, FromRow, MySqlConnection, MySqlPool, error::BoxDynError,
    mysql::MySqlArguments,
};
use tokio::time::Instant;
use uuid::Uuid;

use crate::numbers::per_second;

const TABLE: &str = "user_coupons_bench";
const ROWS_AN_INSERT: usize = 500;
const COLUMNS: &str = "user_coupon_id, coupon_id, user_id, ordinal, per_user_limit, sequence, discount_type, \
    discount_value, discount_max_amount, minimum_order_amount, status, accepted_at, issued_at, valid_until, used_at";
const COLUMN_COUNT: usize = 15;

/// How the rows are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// As a prepared statement.
    Prepared,
    /// As text.
    Text,
}

/// A row of `user_coupons`.
#[derive(Clone, Debug, FromRow)]
pub struct Row {
    user_coupon_id: Uuid,
    coupon_id: u64,
    user_id: u64,
    ordinal: u16,
    per_user_limit: u16,
    sequence: u32,
    discount_type: String,
    discount_value: i64,
    discount_max_amount: Option<i64>,
    minimum_order_amount: i64,
    status: String,
    accepted_at: Timestamp,
    issued_at: Timestamp,
    valid_until: Timestamp,
    used_at: Option<Timestamp>,
}

/// The rows of a campaign in the order in which they were confirmed.
pub async fn read_rows(pool: &MySqlPool, coupon: CouponId) -> Result<Vec<Row>> {
    let sql = AssertSqlSafe(format!("SELECT {COLUMNS} FROM user_coupons WHERE coupon_id = ? ORDER BY sequence"));
    sqlx::query_as(sql).bind(coupon.get()).fetch_all(pool).await.context("reading the rows to insert")
}

/// Inserts the rows; answers how many a second. Putting the statements together is not counted.
pub async fn insert(pool: &MySqlPool, rows: &[Row], way: Way) -> Result<f64> {
    let mut connection = pool.acquire().await.context("a connection for bare inserts")?;
    for sql in [format!("DROP TABLE IF EXISTS {TABLE}"), format!("CREATE TABLE {TABLE} LIKE user_coupons")] {
        connection.execute(AssertSqlSafe(sql)).await.context("making a table for bare inserts")?;
    }
    let rate = match way {
        Way::Prepared => insert_prepared(&mut connection, rows).await?,
        Way::Text => insert_text(&mut connection, rows).await?,
    };
    let dropped = connection.execute(AssertSqlSafe(format!("DROP TABLE {TABLE}"))).await;
    dropped.context("removing the table of bare inserts")?;
    Ok(rate)
}

async fn insert_prepared(connection: &mut MySqlConnection, rows: &[Row]) -> Result<f64> {
    let arguments: Vec<(usize, MySqlArguments)> =
        rows.chunks(ROWS_AN_INSERT).map(|step| Ok((step.len(), arguments(step)?))).collect::<Result<_>>()?;
    let group = format!("({})", vec!["?"; COLUMN_COUNT].join(","));
    let whole = format!("INSERT INTO {TABLE} ({COLUMNS}) VALUES {}", vec![&*group; ROWS_AN_INSERT].join(","));
    let began = Instant::now();
    for (count, arguments) in arguments {
        let sql = if count == ROWS_AN_INSERT {
            whole.clone()
        } else {
            format!("INSERT INTO {TABLE} ({COLUMNS}) VALUES {}", vec![&*group; count].join(","))
        };
        let inserted = sqlx::query_with(AssertSqlSafe(sql), arguments).execute(&mut *connection).await;
        inserted.context("a bare insert")?;
    }
    Ok(per_second(rows.len() as u64, began.elapsed()))
}

async fn insert_text(connection: &mut MySqlConnection, rows: &[Row]) -> Result<f64> {
    let statements: Vec<String> = rows.chunks(ROWS_AN_INSERT).map(text).collect();
    let began = Instant::now();
    for sql in statements {
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut *connection).await.context("a bare insert")?;
    }
    Ok(per_second(rows.len() as u64, began.elapsed()))
}

fn arguments(rows: &[Row]) -> Result<MySqlArguments> {
    let mut arguments = MySqlArguments::default();
    for row in rows {
        add(&mut arguments, row).map_err(|error| anyhow!("a row to insert: {error}"))?;
    }
    Ok(arguments)
}

fn add(arguments: &mut MySqlArguments, row: &Row) -> Result<(), BoxDynError> {
    arguments.add(row.user_coupon_id)?;
    arguments.add(row.coupon_id)?;
    arguments.add(row.user_id)?;
    arguments.add(row.ordinal)?;
    arguments.add(row.per_user_limit)?;
    arguments.add(row.sequence)?;
    arguments.add(&*row.discount_type)?;
    arguments.add(row.discount_value)?;
    arguments.add(row.discount_max_amount)?;
    arguments.add(row.minimum_order_amount)?;
    arguments.add(&*row.status)?;
    arguments.add(row.accepted_at)?;
    arguments.add(row.issued_at)?;
    arguments.add(row.valid_until)?;
    arguments.add(row.used_at)
}

fn text(rows: &[Row]) -> String {
    let mut sql = format!("INSERT INTO {TABLE} ({COLUMNS}) VALUES ");
    for (place, row) in rows.iter().enumerate() {
        let separator = if place == 0 { "" } else { "," };
        let cap = row.discount_max_amount.map_or_else(|| "NULL".into(), |amount| amount.to_string());
        let moment = |moment: Timestamp| moment.format("'%Y-%m-%d %H:%M:%S%.3f'");
        let used = row.used_at.map_or_else(|| "NULL".into(), |used| moment(used).to_string());
        // Writing to a String cannot fail. The names come out of the database's own CHECKs.
        let _ = write!(
            sql,
            "{separator}(0x{},{},{},{},{},{},'{}',{},{cap},{},'{}',{},{},{},{used})",
            row.user_coupon_id.simple(),
            row.coupon_id,
            row.user_id,
            row.ordinal,
            row.per_user_limit,
            row.sequence,
            row.discount_type,
            row.discount_value,
            row.minimum_order_amount,
            row.status,
            moment(row.accepted_at),
            moment(row.issued_at),
            moment(row.valid_until),
        );
    }
    sql
}
