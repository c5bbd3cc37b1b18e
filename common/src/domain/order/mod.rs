//! The rules of orders.
//!
//! [`execute`] takes a batch of commands and the locked rows that they need, and decides one command after the other.
//! Its plan has the outcome of each command and the rows to write. The result is the same as if each command came in
//! a batch of its own.

mod command;
mod execute;
mod reject_reason;
mod state;
#[cfg(test)]
mod tests;

use chrono::{DateTime, NaiveDate, Utc};
use serde::{Deserialize, Serialize};
use strum::{EnumString, IntoStaticStr, VariantArray};
use utoipa::ToSchema;

pub use command::{
    Action, Command, CommandKind, Line, MAX_LINES, MAX_QUANTITY, RequiredRows, line_errors, merge_lines,
};
pub use execute::{OrderRules, execute, fail_permanently};
pub use reject_reason::{OrderRejectReason, RejectCode};
pub use state::{
    CommandResult, CouponStatus, IssuedCoupon, LedgerRow, LockedState, OrderOutcome, OrderPlan, Payment, PaymentStatus,
    StockChange, UnpaidOrders,
};

use super::facts::Facts;
use crate::identifiers::{ClaimId, OrderId, PaymentId, ProductId, UserId};

/// Where an order is in its life.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema, EnumString, IntoStaticStr, VariantArray,
)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[strum(serialize_all = "SCREAMING_SNAKE_CASE", const_into_str)]
pub enum OrderStatus {
    /// Placed, to be paid until `expiresAt`.
    DepositWait,
    /// Paid.
    PayDone,
    /// The purchase is confirmed: it can no longer be cancelled.
    BuyConfirm,
    /// Cancelled; stock, coupon and money went back.
    Cancelled,
    /// It was not paid in time; stock and coupon went back.
    Expired,
    /// It was refused; `code` says why.
    Rejected,
}

impl OrderStatus {
    /// Whether an order may move from this status to `next` (I8).
    pub const fn may_become(self, next: Self) -> bool {
        matches!(
            (self, next),
            (Self::DepositWait, Self::PayDone | Self::Cancelled | Self::Expired)
                | (Self::PayDone, Self::BuyConfirm | Self::Cancelled)
        )
    }
}

/// One product of an order, as it was when the order was placed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct OrderItem {
    /// Which product.
    pub product_id: ProductId,
    /// Its name then.
    pub name: String,
    /// What one cost then, in won.
    pub unit_price: i64,
    /// How many.
    pub quantity: u32,
}

impl OrderItem {
    /// In won; none when it overflows.
    pub fn amount(&self) -> Option<i64> {
        self.unit_price.checked_mul(i64::from(self.quantity))
    }
}

/// An order: the response of the order calls, and the payload of every `order.*` event.
// It also travels from worker to API as the outcome of a command. A new field needs a default there: while versions are
// mixed, the other side does not know it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Order {
    /// Its id.
    pub order_id: OrderId,
    /// Whose.
    pub user_id: UserId,
    /// Where it is in its life.
    pub status: OrderStatus,
    /// Why it was REJECTED.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<RejectCode>,
    /// The same in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// The same as fields; which ones, the page of the code says.
    // Boxed: few orders are rejected, and a batch has hundreds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub facts: Option<Box<Facts>>,
    /// What it is for, by product id; none of a refused one.
    pub items: Vec<OrderItem>,
    /// Sum of its items, in won.
    pub total_amount: i64,
    /// What the coupon takes off, in won.
    pub discount_amount: i64,
    /// What is to be paid, in won.
    pub pay_amount: i64,
    /// The coupon that it uses.
    #[schema(required)]
    pub user_coupon_id: Option<ClaimId>,
    /// The payment that paid it.
    #[schema(required)]
    pub payment_id: Option<PaymentId>,
    /// When it was placed.
    #[serde(serialize_with = "crate::clock::serialize")]
    pub created_at: DateTime<Utc>,
    /// Unpaid by then, it ends.
    #[serde(serialize_with = "crate::clock::serialize")]
    pub expires_at: DateTime<Utc>,
    /// When it was paid.
    #[serde(default, skip_serializing_if = "Option::is_none", serialize_with = "crate::clock::serialize")]
    pub paid_at: Option<DateTime<Utc>>,
    /// The business day of that time, on which its units count as sold.
    // Stored and never computed again: the shop may change its time zone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paid_on: Option<NaiveDate>,
    /// When the purchase was confirmed.
    #[serde(default, skip_serializing_if = "Option::is_none", serialize_with = "crate::clock::serialize")]
    pub confirmed_at: Option<DateTime<Utc>>,
    /// When it was cancelled or expired.
    #[serde(default, skip_serializing_if = "Option::is_none", serialize_with = "crate::clock::serialize")]
    pub ended_at: Option<DateTime<Utc>>,
}

impl Order {
    /// Why the order was rejected.
    pub fn reject_reason(&self) -> Option<OrderRejectReason> {
        let reason = OrderRejectReason::new(self.code?, self.detail.clone().unwrap_or_default());
        Some(OrderRejectReason { facts: self.facts.clone().unwrap_or_default(), ..reason })
    }
}
