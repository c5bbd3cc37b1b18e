use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::{Deserialize, Serialize};
use strum::{EnumString, IntoStaticStr, VariantArray};
use utoipa::ToSchema;

use super::{Order, OrderRejectReason};
use crate::{
    clock::Timestamp,
    domain::{
        campaign::Discount,
        event::Event,
        points::{Account, LedgerType},
        product::Product,
    },
    identifiers::{ClaimId, CommandId, OrderId, PaymentId, ProductId, UserId},
};

/// What became of an issued coupon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumString, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "UPPERCASE", const_into_str)]
pub enum CouponStatus {
    /// It can be used while it is valid.
    Issued,
    /// An order uses it.
    Used,
    /// Its validity is over.
    Expired,
    /// An administrator took it back.
    Revoked,
}

/// A coupon in a user's hands, as far as orders need it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuedCoupon {
    /// Whose.
    pub user: UserId,
    /// What it takes off.
    pub discount: Discount,
    /// The smallest order total that it can be used on, in won.
    pub minimum_order_amount: i64,
    /// Until when it can be used.
    pub valid_until: Timestamp,
    /// What became of it.
    pub status: CouponStatus,
    /// When an order used it.
    pub used_at: Option<Timestamp>,
}

/// The rows that a batch of commands needs, locked.
#[derive(Clone, Debug, Default)]
pub struct LockedState {
    /// Orders that are there.
    pub orders: BTreeMap<OrderId, Order>,
    /// Products that are there.
    pub products: BTreeMap<ProductId, Product>,
    /// Coupons that are there.
    pub coupons: BTreeMap<ClaimId, IssuedCoupon>,
    /// Accounts that are there.
    pub accounts: BTreeMap<UserId, Account>,
    /// Commands that have their outcome: none when it was done.
    pub answered: HashMap<CommandId, Option<OrderRejectReason>>,
}

/// A row to add to the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerRow {
    /// Whose.
    pub user: UserId,
    /// Why.
    pub kind: LedgerType,
    /// Positive when points came in, in won.
    pub amount: i64,
    /// The balance after it, in won.
    pub balance_after: i64,
    /// The payment made or refunded.
    pub payment: PaymentId,
    /// Of which order.
    pub order: OrderId,
}

/// Where a payment is in its life.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema, EnumString, IntoStaticStr, VariantArray,
)]
#[serde(rename_all = "UPPERCASE")]
#[strum(serialize_all = "UPPERCASE", const_into_str)]
pub enum PaymentStatus {
    /// Asked for, not yet carried out.
    Ready,
    /// Paid.
    Done,
    /// Refused; `code` says why.
    Fail,
    /// Paid, and refunded.
    Cancelled,
}

/// A payment to add.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payment {
    /// Its id.
    pub id: PaymentId,
    /// Of which order.
    pub order: OrderId,
    /// Whose.
    pub user: UserId,
    /// In won.
    pub amount: i64,
    /// DONE or FAIL; CANCELLED when it was refunded in the same batch.
    pub status: PaymentStatus,
    /// Why it failed.
    pub refusal: Option<OrderRejectReason>,
}

/// What a command left behind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandResult {
    /// The order after it.
    pub order: Order,
    /// The user's points after it, in won, when it had to do with them.
    pub balance: Option<i64>,
}

/// The durable answer to a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OrderOutcome {
    /// It was carried out, now or before.
    Done(Box<CommandResult>),
    /// It was refused, and changed nothing.
    Rejected(OrderRejectReason),
}

/// What becomes of a batch, and what is to be written. Rows that changed are found, as they are now, in the [`LockedState`].
#[derive(Clone, Debug, Default)]
pub struct OrderPlan {
    /// Of each command, in order.
    pub outcomes: Vec<OrderOutcome>,
    /// Places of the commands whose outcome is to be written for itself.
    pub decided: Vec<usize>,
    /// Orders to add.
    pub placed: BTreeSet<OrderId>,
    /// Orders to change.
    pub changed: BTreeSet<OrderId>,
    /// Units sold and units given back, by product.
    pub stock: BTreeMap<ProductId, (i64, i64)>,
    /// Coupons to change.
    pub coupons: BTreeSet<ClaimId>,
    /// Accounts to change.
    pub accounts: BTreeSet<UserId>,
    /// Rows to add to the ledger, in order.
    pub ledger: Vec<LedgerRow>,
    /// Payments to add.
    pub payments: Vec<Payment>,
    /// Payments of earlier batches that were refunded.
    pub refunded: BTreeSet<PaymentId>,
    /// What happened, in order.
    pub events: Vec<Event>,
}
