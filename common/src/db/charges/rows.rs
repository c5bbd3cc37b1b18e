use sqlx::{MySqlConnection, MySqlPool};
use uuid::Uuid;

use crate::{
    clock::Timestamp,
    db::{
        decode::{identifier, parse},
        retention::delete_older,
    },
    domain::{
        charge::{Charge, ChargeStatus, NewCharge, RECONCILIATION_GRACE_PERIOD},
        points::LedgerType,
    },
    identifiers::ChargeId,
};

#[derive(sqlx::FromRow)]
struct ChargeRow {
    charge_id: Uuid,
    user_id: u64,
    amount: i64,
    payment_method: Option<String>,
    status: String,
    attempts: u32,
    created_at: Timestamp,
    decided_at: Option<Timestamp>,
}

const COLUMNS: &str = "charge_id, user_id, amount, payment_method, status, attempts, created_at, decided_at";

impl ChargeRow {
    fn decode(self) -> Result<Charge, sqlx::Error> {
        Ok(Charge {
            status: parse("charges.status", &self.status)?,
            wanted: NewCharge {
                id: ChargeId(self.charge_id),
                user: identifier(self.user_id)?,
                amount: self.amount,
                payment_method: self.payment_method,
            },
            attempts: self.attempts,
            created_at: self.created_at,
            decided_at: self.decided_at,
        })
    }
}

/// The charge of that id, if it exists.
pub async fn find(pool: &MySqlPool, charge: ChargeId) -> Result<Option<Charge>, sqlx::Error> {
    let sql = format!("SELECT /* charges::find */ {COLUMNS} FROM charges WHERE charge_id = ?");
    let row: Option<ChargeRow> = sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(charge.0).fetch_optional(pool).await?;
    row.map(ChargeRow::decode).transpose()
}

/// How many charges wait for the payment gateway.
pub async fn count_pending(pool: &MySqlPool) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar("SELECT /* charges::count_pending */ COUNT(*) FROM charges WHERE status = 'PENDING'")
        .fetch_one(pool)
        .await
}

/// Makes a pending charge due at `next_attempt_at`. Does nothing to a charge that was settled meanwhile.
pub async fn postpone(pool: &MySqlPool, charge: ChargeId, next_attempt_at: Timestamp) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE charges /* charges::postpone */ SET next_attempt_at = ? WHERE charge_id = ? AND status = 'PENDING'",
    )
    .bind(next_attempt_at)
    .bind(charge.0)
    .execute(pool)
    .await
    .map(drop)
}

pub(super) async fn lock(connection: &mut MySqlConnection, charge: ChargeId) -> Result<Option<Charge>, sqlx::Error> {
    let sql = format!(
        "SELECT /* charges::lock: a charge is settled once, under this lock */ {COLUMNS} FROM charges \
         WHERE charge_id = ? FOR UPDATE"
    );
    let row: Option<ChargeRow> =
        sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(charge.0).fetch_optional(connection).await?;
    row.map(ChargeRow::decode).transpose()
}

pub(super) async fn insert(
    connection: &mut MySqlConnection,
    wanted: &NewCharge,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO charges /* charges::insert */ (charge_id, user_id, amount, payment_method, status, \
         next_attempt_at, created_at) VALUES (?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(wanted.id.0)
    .bind(wanted.user.get())
    .bind(wanted.amount)
    .bind(&wanted.payment_method)
    .bind(ChargeStatus::Pending.into_str())
    // Until then the process that began the charge asks the gateway itself.
    .bind(now + RECONCILIATION_GRACE_PERIOD)
    .bind(now)
    .execute(connection)
    .await
    .map(drop)
}

pub(super) async fn insert_ledger_row(
    connection: &mut MySqlConnection,
    charge: &Charge,
    balance_after: i64,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO point_histories /* charges::insert_ledger_row */ (user_id, type, amount, balance_after, \
         reference_id, created_at) VALUES (?, ?, ?, ?, ?, ?)",
    )
    .bind(charge.wanted.user.get())
    .bind(LedgerType::Charge.into_str())
    .bind(charge.wanted.amount)
    .bind(balance_after)
    .bind(charge.wanted.id.0)
    .bind(now)
    .execute(connection)
    .await
    .map(drop)
}

/// The balance right after a charge was credited; none when it was not.
pub(super) async fn find_balance_after(
    connection: &mut MySqlConnection,
    charge: ChargeId,
) -> Result<Option<i64>, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT /* charges::find_balance_after */ balance_after FROM point_histories \
         WHERE reference_id = ? AND type = ?",
    )
    .bind(charge.0)
    .bind(LedgerType::Charge.into_str())
    .fetch_optional(connection)
    .await
}

pub(super) async fn update_status(connection: &mut MySqlConnection, charge: &Charge) -> Result<(), sqlx::Error> {
    let updated = sqlx::query(
        "UPDATE charges /* charges::update_status */ SET status = ?, decided_at = ?, next_attempt_at = NULL \
         WHERE charge_id = ? AND status = 'PENDING'",
    )
    .bind(charge.status.into_str())
    .bind(charge.decided_at)
    .bind(charge.wanted.id.0)
    .execute(connection)
    .await?;
    // The caller holds the row's lock and has seen it pending.
    if updated.rows_affected() == 1 { Ok(()) } else { Err(sqlx::Error::RowNotFound) }
}

/// Locks at most `limit` pending charges that are due.
pub(super) async fn lock_due(
    connection: &mut MySqlConnection,
    limit: u32,
    now: Timestamp,
) -> Result<Vec<Charge>, sqlx::Error> {
    // Read in the order of another index, InnoDB would lock every due row and not only those that are taken.
    let sql = format!(
        "SELECT /* charges::lock_due: skips charges that another worker takes or that are settled now */ {COLUMNS} \
         FROM charges FORCE INDEX (due) WHERE status = 'PENDING' AND next_attempt_at <= ? ORDER BY next_attempt_at \
         LIMIT ? FOR UPDATE SKIP LOCKED"
    );
    let rows: Vec<ChargeRow> =
        sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(now).bind(limit).fetch_all(connection).await?;
    rows.into_iter().map(ChargeRow::decode).collect()
}

pub(super) async fn mark_taken(
    connection: &mut MySqlConnection,
    charges: &[Charge],
    until: Timestamp,
) -> Result<(), sqlx::Error> {
    let places = vec!["?"; charges.len()].join(", ");
    let sql = format!(
        "UPDATE charges /* charges::mark_taken */ SET attempts = attempts + 1, next_attempt_at = ? \
         WHERE charge_id IN ({places})"
    );
    let mut query = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(until);
    for charge in charges {
        query = query.bind(charge.wanted.id.0);
    }
    query.execute(connection).await.map(drop)
}

/// Deletes at most `limit` charges that the payment gateway declined before `before`. Returns their number.
pub async fn purge_declined(pool: &MySqlPool, before: Timestamp, limit: u32) -> Result<u64, sqlx::Error> {
    let sql = "DELETE /* charges::purge_declined */ FROM charges WHERE status = 'DECLINED' AND decided_at < ? LIMIT ?";
    delete_older(pool, sql, before, limit).await
}
