use chrono::{DateTime, Utc};
use sqlx::{MySqlPool, types::Json};
use uuid::Uuid;

use super::{COLUMNS, OrderRow, StoredFacts, list_items, reject_code, reject_reason};
use crate::{
    clock::Timestamp,
    db::decode::{identifier, parse},
    domain::{
        facts::Facts,
        order::{CommandKind, Order, OrderRejectReason, PaymentStatus, RejectCode},
    },
    identifiers::{CommandId, OrderId, PaymentId, UserId},
};

/// The order of that id with its items, if it exists.
pub async fn find(pool: &MySqlPool, id: OrderId) -> Result<Option<Order>, sqlx::Error> {
    let sql = format!("SELECT /* orders::find */ {COLUMNS} FROM orders WHERE order_id = ?");
    let row: Option<OrderRow> = sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(id.0).fetch_optional(pool).await?;
    // Two statements, not a join: a join would repeat the order for each of its items.
    let orders = row.map(OrderRow::decode).transpose()?.into_iter().collect();
    Ok(with_items(pool, orders).await?.pop())
}

pub(super) async fn with_items(pool: &MySqlPool, mut orders: Vec<Order>) -> Result<Vec<Order>, sqlx::Error> {
    for (id, item) in list_items(pool, orders.iter().map(|order| order.order_id)).await? {
        if let Some(order) = orders.iter_mut().find(|order| order.order_id == id) {
            order.items.push(item);
        }
    }
    Ok(orders)
}

/// A payment of an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PaymentView {
    pub payment_id: PaymentId,
    pub order_id: OrderId,
    pub user_id: UserId,
    pub status: PaymentStatus,
    /// In won.
    pub amount: i64,
    /// Why it failed.
    pub code: Option<RejectCode>,
    /// The same as fields; which ones, the page of the code says.
    pub facts: Option<Box<Facts>>,
    /// When it was executed, or failed.
    pub created_at: DateTime<Utc>,
    /// When it was refunded.
    pub cancelled_at: Option<DateTime<Utc>>,
}

/// The payment of that id, if it exists.
pub async fn find_payment(pool: &MySqlPool, id: PaymentId) -> Result<Option<PaymentView>, sqlx::Error> {
    type Row = (Uuid, u64, i64, String, Option<String>, Option<StoredFacts>, Timestamp, Option<Timestamp>);
    let row: Option<Row> = sqlx::query_as(
        "SELECT /* orders::find_payment */ order_id, user_id, amount, status, code, facts, created_at, \
         cancelled_at FROM payments WHERE payment_id = ?",
    )
    .bind(id.0)
    .fetch_optional(pool)
    .await?;
    let Some((order, user, amount, status, code, facts, created_at, cancelled_at)) = row else { return Ok(None) };
    Ok(Some(PaymentView {
        payment_id: id,
        order_id: OrderId(order),
        user_id: identifier(user)?,
        status: parse("payments.status", &status)?,
        amount,
        code: code.as_deref().map(reject_code).transpose()?,
        facts: facts.map(|Json(facts)| facts),
        created_at,
        cancelled_at,
    }))
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandOutcome {
    pub order: OrderId,
    pub user: UserId,
    /// PAY, CONFIRM or CANCEL.
    pub kind: CommandKind,
    /// Why it was rejected; none when it was executed.
    pub refusal: Option<OrderRejectReason>,
    pub decided_at: Timestamp,
}

/// The outcome of a command to pay, confirm or cancel, if it has one. The outcome of placing an order is the order.
pub async fn find_command_outcome(pool: &MySqlPool, id: CommandId) -> Result<Option<CommandOutcome>, sqlx::Error> {
    type Row = (Uuid, u64, String, Option<String>, Option<String>, Option<StoredFacts>, Timestamp);
    let row: Option<Row> = sqlx::query_as(
        "SELECT /* orders::find_command_outcome */ order_id, user_id, type, code, detail, facts, decided_at \
         FROM order_commands WHERE command_id = ?",
    )
    .bind(id.0)
    .fetch_optional(pool)
    .await?;
    let Some((order, user, kind, code, detail, facts, decided_at)) = row else { return Ok(None) };
    let refusal = reject_reason(code.as_deref(), detail, facts)?;
    let kind = parse("order_commands.type", &kind)?;
    Ok(Some(CommandOutcome { order: OrderId(order), user: identifier(user)?, kind, refusal, decided_at }))
}

/// An unpaid order whose time to pay is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OverdueOrder {
    pub expires_at: Timestamp,
    pub order: OrderId,
    pub user: UserId,
}

/// At most `limit` overdue orders, by expiry and id, after the position `after`.
pub async fn list_overdue(
    pool: &MySqlPool,
    now: Timestamp,
    after: Option<(Timestamp, OrderId)>,
    limit: u32,
) -> Result<Vec<OverdueOrder>, sqlx::Error> {
    let (after_time, after_order) = after.unwrap_or((Timestamp::UNIX_EPOCH, OrderId(Uuid::nil())));
    // `expires_at >= ?` alone lets the index `expiring` begin at the position; the OR would not.
    let rows: Vec<(Timestamp, Uuid, u64)> = sqlx::query_as(
        "SELECT /* orders::list_overdue */ expires_at, order_id, user_id FROM orders WHERE status = 'DEPOSIT_WAIT' \
         AND expires_at <= ? AND expires_at >= ? AND (expires_at > ? OR order_id > ?) \
         ORDER BY expires_at, order_id LIMIT ?",
    )
    .bind(now)
    .bind(after_time)
    .bind(after_time)
    .bind(after_order.0)
    .bind(limit)
    .fetch_all(pool)
    .await?;
    let overdue =
        |(expires_at, order, user)| Ok(OverdueOrder { expires_at, order: OrderId(order), user: identifier(user)? });
    rows.into_iter().map(overdue).collect()
}
