//! The tables `orders`, `order_items`, `payments` and `order_commands`, and the rows that a batch of commands locks and
//! writes.

mod list;
mod lock;
mod locked;
mod outcomes;
mod read;
mod write;

use chrono::NaiveDate;
pub use list::{OrdersFilter, list};
pub use lock::lock_state;
pub use locked::find_locked;
pub use outcomes::{AwaitedCommand, find_outcomes};
pub use read::{CommandOutcome, OverdueOrder, PaymentView, find, find_command_outcome, find_payment, list_overdue};
use sqlx::{FromRow as _, MySqlExecutor, mysql::MySqlRow, types::Json};
use uuid::Uuid;
pub use write::{PlannedCommands, purge_commands, purge_rejected, write_plan};

use super::{
    decode::{identifier, parse},
    statements,
};
use crate::{
    clock::Timestamp,
    domain::{
        facts::Facts,
        order::{Order, OrderItem, OrderRejectReason, RejectCode},
    },
    identifiers::{ClaimId, OrderId, PaymentId},
};

const COLUMNS: &str = "order_id, user_id, status, code, detail, facts, total_amount, discount_amount, pay_amount, \
    user_coupon_id, payment_id, created_at, expires_at, paid_at, paid_on, confirmed_at, ended_at";

#[derive(sqlx::FromRow)]
struct OrderRow {
    order_id: Uuid,
    user_id: u64,
    status: String,
    code: Option<String>,
    detail: Option<String>,
    facts: Option<StoredFacts>,
    total_amount: i64,
    discount_amount: i64,
    pay_amount: i64,
    user_coupon_id: Option<Uuid>,
    payment_id: Option<Uuid>,
    created_at: Timestamp,
    expires_at: Timestamp,
    paid_at: Option<Timestamp>,
    paid_on: Option<NaiveDate>,
    confirmed_at: Option<Timestamp>,
    ended_at: Option<Timestamp>,
}

impl OrderRow {
    fn decode(self) -> Result<Order, sqlx::Error> {
        Ok(Order {
            order_id: OrderId(self.order_id),
            user_id: identifier(self.user_id)?,
            status: parse("orders.status", &self.status)?,
            code: self.code.as_deref().map(reject_code).transpose()?,
            detail: self.detail,
            facts: self.facts.map(|Json(facts)| facts),
            items: Vec::new(),
            total_amount: self.total_amount,
            discount_amount: self.discount_amount,
            pay_amount: self.pay_amount,
            user_coupon_id: self.user_coupon_id.map(ClaimId),
            payment_id: self.payment_id.map(PaymentId),
            created_at: self.created_at,
            expires_at: self.expires_at,
            paid_at: self.paid_at,
            paid_on: self.paid_on,
            confirmed_at: self.confirmed_at,
            ended_at: self.ended_at,
        })
    }
}

/// The column `facts`: absent in rows of older versions.
type StoredFacts = Json<Box<Facts>>;

/// A command with the columns of [`reject_reason`].
type DecidedRow = (Uuid, Option<String>, Option<String>, Option<StoredFacts>);

/// Why a command or payment was refused, of its columns; none when it was not.
fn reject_reason(
    code: Option<&str>,
    detail: Option<String>,
    facts: Option<StoredFacts>,
) -> Result<Option<OrderRejectReason>, sqlx::Error> {
    let Some(code) = code.map(reject_code).transpose()? else { return Ok(None) };
    let facts = facts.map(|Json(facts)| facts).unwrap_or_default();
    Ok(Some(OrderRejectReason { code, detail: detail.unwrap_or_default(), facts }))
}

fn reject_code(code: &str) -> Result<RejectCode, sqlx::Error> {
    parse("code", code)
}

/// The items of these orders, by order and product. They never change.
async fn list_items(
    executor: impl MySqlExecutor<'_>,
    orders: impl IntoIterator<Item = OrderId>,
) -> Result<Vec<(OrderId, OrderItem)>, sqlx::Error> {
    let ids = statements::ids(orders.into_iter().map(|order| order.0));
    // `IN ()` is a syntax error.
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let sql = format!(
        "SELECT /* orders::list_items */ order_id, product_id, name, unit_price, quantity FROM order_items \
         WHERE order_id IN ({ids}) ORDER BY order_id, product_id"
    );
    // As text, see `lock::list_locked`.
    let rows = sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).fetch_all(executor).await?;
    let item = |row: &MySqlRow| {
        let (order, product, name, unit_price, quantity) = <(Uuid, u64, String, i64, u32)>::from_row(row)?;
        Ok((OrderId(order), OrderItem { product_id: identifier(product)?, name, unit_price, quantity }))
    };
    rows.iter().map(item).collect()
}
