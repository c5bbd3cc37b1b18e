//! The tables `point_accounts` and `point_histories`: the balances of users and their ledger.

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::{MySqlConnection, MySqlPool};
use utoipa::ToSchema;
use uuid::Uuid;

use super::decode::{identifier, parse};
use crate::{
    clock::Timestamp,
    domain::points::{Account, LedgerType},
    identifiers::{AdjustmentId, ChargeId, OrderId, PaymentId, PointHistoryId, UserId},
};

/// Locks a user's account, and creates it if it does not exist. Every transaction on a charge begins with it, so that
/// the transactions of one user run one after the other.
pub async fn lock(connection: &mut MySqlConnection, user: UserId, now: Timestamp) -> Result<Account, sqlx::Error> {
    if let Some(account) = lock_existing(connection, user).await? {
        return Ok(account);
    }
    // Not INSERT IGNORE: on a duplicate key it takes a shared lock. Two transactions that hold it and then both want to
    // write are a deadlock. ON DUPLICATE KEY UPDATE takes an exclusive lock at once.
    sqlx::query(
        "INSERT INTO point_accounts /* points::lock */ (user_id, balance, created_at, updated_at) \
         VALUES (?, 0, ?, ?) ON DUPLICATE KEY UPDATE updated_at = updated_at",
    )
    .bind(user.get())
    .bind(now)
    .bind(now)
    .execute(&mut *connection)
    .await?;
    lock_existing(connection, user).await?.ok_or(sqlx::Error::RowNotFound)
}

async fn lock_existing(connection: &mut MySqlConnection, user: UserId) -> Result<Option<Account>, sqlx::Error> {
    let row: Option<(i64, i64)> = sqlx::query_as(
        "SELECT /* points::lock_existing: the cap is checked and the balance changed under this lock */ balance, pending \
         FROM point_accounts WHERE user_id = ? FOR UPDATE",
    )
    .bind(user.get())
    .fetch_optional(connection)
    .await?;
    Ok(row.map(|(balance, pending)| Account { balance, pending }))
}

/// Updates an account that the caller has locked with [`lock`].
pub async fn update(
    connection: &mut MySqlConnection,
    user: UserId,
    account: Account,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    let written = sqlx::query(
        "UPDATE point_accounts /* points::update */ SET balance = ?, pending = ?, updated_at = ? WHERE user_id = ?",
    )
    .bind(account.balance)
    .bind(account.pending)
    .bind(now)
    .bind(user.get())
    .execute(connection)
    .await?;
    // sqlx asks the server for matched rows, not for changed ones: an unchanged balance counts too.
    if written.rows_affected() == 1 { Ok(()) } else { Err(sqlx::Error::RowNotFound) }
}

/// What a user can spend; 0 for a user without an account.
pub async fn find_balance(pool: &MySqlPool, user: UserId) -> Result<i64, sqlx::Error> {
    let balance: Option<i64> =
        sqlx::query_scalar("SELECT /* points::find_balance */ balance FROM point_accounts WHERE user_id = ?")
            .bind(user.get())
            .fetch_optional(pool)
            .await?;
    Ok(balance.unwrap_or(0))
}

/// A row of the ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LedgerEntry {
    /// Later rows have higher ids.
    pub point_history_id: PointHistoryId,
    #[serde(rename = "type")]
    pub kind: LedgerType,
    /// Won: positive when points came in, negative when they went out.
    pub amount: i64,
    /// The balance right after it.
    pub balance_after: i64,
    /// The charge, for a CHARGE.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub charge_id: Option<ChargeId>,
    /// The payment that was made or refunded, for a PAYMENT or a REFUND.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payment_id: Option<PaymentId>,
    /// What an administrator granted or took back, for a GRANT or a DEDUCTION.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adjustment_id: Option<AdjustmentId>,
    /// The order of that payment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub order_id: Option<OrderId>,
    #[serde(serialize_with = "crate::clock::serialize")]
    pub created_at: DateTime<Utc>,
}

#[derive(sqlx::FromRow)]
struct LedgerRow {
    point_history_id: u64,
    #[sqlx(rename = "type")]
    kind: String,
    amount: i64,
    balance_after: i64,
    reference_id: Uuid,
    order_id: Option<Uuid>,
    created_at: Timestamp,
}

impl LedgerRow {
    fn decode(self) -> Result<LedgerEntry, sqlx::Error> {
        let kind = parse("point_histories.type", &self.kind)?;
        let of = |kinds: &[LedgerType]| kinds.contains(&kind).then_some(self.reference_id);
        Ok(LedgerEntry {
            point_history_id: identifier(self.point_history_id)?,
            kind,
            amount: self.amount,
            balance_after: self.balance_after,
            charge_id: of(&[LedgerType::Charge]).map(ChargeId),
            payment_id: of(&[LedgerType::Payment, LedgerType::Refund]).map(PaymentId),
            adjustment_id: of(&[LedgerType::Grant, LedgerType::Deduction]).map(AdjustmentId),
            order_id: self.order_id.map(OrderId),
            created_at: self.created_at,
        })
    }
}

/// At most `limit` rows of a user's ledger, newest first, before the row `before`.
pub async fn list_history(
    pool: &MySqlPool,
    user: UserId,
    before: Option<PointHistoryId>,
    limit: u32,
) -> Result<Vec<LedgerEntry>, sqlx::Error> {
    let rows: Vec<LedgerRow> = sqlx::query_as(
        "SELECT /* points::list_history */ point_history_id, type, amount, balance_after, reference_id, order_id, created_at \
         FROM point_histories WHERE user_id = ? AND point_history_id < ? ORDER BY point_history_id DESC LIMIT ?",
    )
    .bind(user.get())
    .bind(before.map_or(u64::MAX, PointHistoryId::get))
    .bind(limit)
    .fetch_all(pool)
    .await?;
    rows.into_iter().map(LedgerRow::decode).collect()
}
