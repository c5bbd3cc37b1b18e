//! The baseline of confirming: the same rows, 500 in each INSERT, into a table like `user_coupons`, on one connection.

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
const ROWS_PER_INSERT: usize = 500;
const COLUMNS: &str = "user_coupon_id, coupon_id, user_id, ordinal, per_user_limit, sequence, discount_type, \
    discount_value, discount_max_amount, minimum_order_amount, status, accepted_at, issued_at, valid_until, used_at";
const COLUMN_COUNT: usize = 15;

/// How the statements are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatementProtocol {
    Prepared,
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

/// The rows of a campaign in the order of acceptance.
pub async fn read_rows(pool: &MySqlPool, coupon: CouponId) -> Result<Vec<Row>> {
    let sql = AssertSqlSafe(format!("SELECT {COLUMNS} FROM user_coupons WHERE coupon_id = ? ORDER BY sequence"));
    sqlx::query_as(sql).bind(coupon.get()).fetch_all(pool).await.context("reading the rows to insert")
}

/// Inserts the rows; returns how many a second. Building the statements is not counted.
pub async fn insert(pool: &MySqlPool, rows: &[Row], protocol: StatementProtocol) -> Result<f64> {
    // One connection, as the worker confirms a partition on one.
    let mut connection = pool.acquire().await.context("connecting for the baseline")?;
    for sql in [format!("DROP TABLE IF EXISTS {TABLE}"), format!("CREATE TABLE {TABLE} LIKE user_coupons")] {
        connection.execute(AssertSqlSafe(sql)).await.context("creating the table of the baseline")?;
    }
    let rate = match protocol {
        StatementProtocol::Prepared => insert_prepared(&mut connection, rows).await?,
        StatementProtocol::Text => insert_text(&mut connection, rows).await?,
    };
    let dropped = connection.execute(AssertSqlSafe(format!("DROP TABLE {TABLE}"))).await;
    dropped.context("dropping the table of the baseline")?;
    Ok(rate)
}

async fn insert_prepared(connection: &mut MySqlConnection, rows: &[Row]) -> Result<f64> {
    let arguments: Vec<(usize, MySqlArguments)> =
        rows.chunks(ROWS_PER_INSERT).map(|step| Ok((step.len(), arguments(step)?))).collect::<Result<_>>()?;
    let group = format!("({})", vec!["?"; COLUMN_COUNT].join(","));
    // The statement of a full batch is the same text each time, so the server prepares it once.
    let full = format!("INSERT INTO {TABLE} ({COLUMNS}) VALUES {}", vec![&*group; ROWS_PER_INSERT].join(","));
    let began = Instant::now();
    for (count, arguments) in arguments {
        let sql = if count == ROWS_PER_INSERT {
            full.clone()
        } else {
            format!("INSERT INTO {TABLE} ({COLUMNS}) VALUES {}", vec![&*group; count].join(","))
        };
        let inserted = sqlx::query_with(AssertSqlSafe(sql), arguments).execute(&mut *connection).await;
        inserted.context("inserting rows of the baseline")?;
    }
    Ok(per_second(rows.len() as u64, began.elapsed()))
}

async fn insert_text(connection: &mut MySqlConnection, rows: &[Row]) -> Result<f64> {
    let statements: Vec<String> = rows.chunks(ROWS_PER_INSERT).map(text).collect();
    let began = Instant::now();
    for sql in statements {
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut *connection).await.context("inserting rows of the baseline")?;
    }
    Ok(per_second(rows.len() as u64, began.elapsed()))
}

fn arguments(rows: &[Row]) -> Result<MySqlArguments> {
    let mut arguments = MySqlArguments::default();
    for row in rows {
        add(&mut arguments, row).map_err(|error| anyhow!("binding a row of the baseline: {error}"))?;
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
        // Writing to a String cannot fail. The strings come from columns with CHECK constraints, so they need no
        // escaping.
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

#[cfg(test)]
mod tests {
    use dibs_common::clock::from_millis;

    use super::*;

    fn row(used_at: Option<Timestamp>) -> Row {
        Row {
            user_coupon_id: Uuid::from_u128(0xab),
            coupon_id: 1,
            user_id: 2,
            ordinal: 1,
            per_user_limit: 1,
            sequence: 3,
            discount_type: "FIXED".into(),
            discount_value: 1_000,
            discount_max_amount: None,
            minimum_order_amount: 0,
            status: "ISSUED".into(),
            accepted_at: from_millis(0),
            issued_at: from_millis(1_001),
            valid_until: from_millis(86_400_000),
            used_at,
        }
    }

    #[test]
    fn a_row_is_written_as_sql_text() {
        let sql = text(&[row(None), row(Some(from_millis(0)))]);
        let (_, values) = sql.split_once(" VALUES ").expect("values");
        let columns = "0x000000000000000000000000000000ab,1,2,1,1,3,'FIXED',1000,NULL,0,'ISSUED',\
            '1970-01-01 00:00:00.000','1970-01-01 00:00:01.001','1970-01-02 00:00:00.000'";
        assert_eq!(values, format!("({columns},NULL),({columns},'1970-01-01 00:00:00.000')"));
    }

    #[test]
    fn a_row_binds_one_argument_for_each_column() {
        use sqlx::Arguments as _;
        assert_eq!(arguments(&[row(None), row(None)]).expect("arguments").len(), 2 * COLUMN_COUNT);
        assert_eq!(COLUMNS.split(", ").count(), COLUMN_COUNT);
    }

    #[tokio::test]
    async fn both_protocols_insert_all_rows_and_leave_no_table() {
        let environment = dibs_common::testing::TestEnvironment::new().await;
        let (pool, coupon) = (&environment.database.pool(), environment.campaign(10).await.id);
        for number in 1..=3 {
            environment
                .execute(&format!(
                    "INSERT INTO user_coupons (user_coupon_id, coupon_id, user_id, ordinal, per_user_limit, sequence, \
                     discount_type, discount_value, minimum_order_amount, accepted_at, issued_at, valid_until) \
                     VALUES (UNHEX(LPAD('{number}', 32, '0')), {coupon}, {number}, 1, 1, {number}, 'PERCENT', 50, 0, NOW(3), \
                     NOW(3), NOW(3) + INTERVAL 1 DAY)"
                ))
                .await;
        }
        let rows = read_rows(pool, coupon).await.expect("rows");
        assert_eq!(rows.iter().map(|row| row.sequence).collect::<Vec<_>>(), [1, 2, 3]);
        for protocol in [StatementProtocol::Prepared, StatementProtocol::Text] {
            assert!(insert(pool, &rows, protocol).await.expect("inserted") > 0.0, "{protocol:?}");
        }
        let tables = "SELECT COUNT(*) FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() \
                      AND TABLE_NAME = 'user_coupons_bench'";
        assert_eq!(environment.count(tables).await, 0);
        environment.end().await;
    }
}
