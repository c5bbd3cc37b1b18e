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
    identifiers::{ClaimId, CommandId, CouponId, OrderId, PaymentId, ProductId, UserId},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumString, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "UPPERCASE", const_into_str)]
pub enum CouponStatus {
    /// Usable until the end of its validity.
    Issued,
    Used,
    Expired,
    /// An administrator took it back.
    Revoked,
}

/// The columns of `user_coupons` that orders need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuedCoupon {
    /// The campaign that issued it.
    pub campaign: CouponId,
    pub user: UserId,
    pub discount: Discount,
    /// The smallest total of an order that can use it, in won.
    pub minimum_order_amount: i64,
    pub valid_until: Timestamp,
    pub status: CouponStatus,
    pub used_at: Option<Timestamp>,
}

/// What a user's unpaid orders hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnpaidOrders {
    pub orders: i64,
    pub units: BTreeMap<ProductId, i64>,
}

/// The locked rows that a batch of commands needs, as far as they exist.
#[derive(Clone, Debug, Default)]
pub struct LockedState {
    pub orders: BTreeMap<OrderId, Order>,
    pub products: BTreeMap<ProductId, Product>,
    pub coupons: BTreeMap<ClaimId, IssuedCoupon>,
    pub accounts: BTreeMap<UserId, Account>,
    /// Of the users who place orders without paying.
    pub unpaid: BTreeMap<UserId, UnpaidOrders>,
    /// Commands that have an outcome: the reason of their rejection, or none when they succeeded.
    pub decided: HashMap<CommandId, Option<OrderRejectReason>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerRow {
    pub user: UserId,
    pub kind: LedgerType,
    /// In won; negative when points were spent.
    pub amount: i64,
    /// The balance after it, in won.
    pub balance_after: i64,
    pub payment: PaymentId,
    pub order: OrderId,
}

/// Where a payment is in its life.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema, EnumString, IntoStaticStr, VariantArray,
)]
#[serde(rename_all = "UPPERCASE")]
#[strum(serialize_all = "UPPERCASE", const_into_str)]
pub enum PaymentStatus {
    /// Requested, not yet executed.
    Ready,
    /// Paid.
    Done,
    /// Refused; `code` says why.
    Fail,
    /// Paid, and refunded.
    Cancelled,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payment {
    pub id: PaymentId,
    pub order: OrderId,
    pub user: UserId,
    /// In won.
    pub amount: i64,
    /// DONE or FAIL; CANCELLED when it was refunded in the same batch.
    pub status: PaymentStatus,
    /// Why it failed.
    pub reject_reason: Option<OrderRejectReason>,
}

/// What a successful command returns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandResult {
    pub order: Order,
    /// The user's points after the command, in won; none when the command moves no points.
    pub balance: Option<i64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OrderOutcome {
    /// Executed, now or by an earlier delivery.
    Done(Box<CommandResult>),
    /// Changed nothing.
    Rejected(OrderRejectReason),
}

/// Units sold by a batch, and units that it put back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StockChange {
    pub sold: i64,
    pub restored: i64,
}

/// The outcomes of a batch, and the rows to write. The [`LockedState`] has the rows as they are after the batch.
#[derive(Clone, Debug, Default)]
pub struct OrderPlan {
    /// One for each command, in order.
    pub outcomes: Vec<OrderOutcome>,
    /// Indexes of the commands whose outcome is a row of its own.
    pub decided: Vec<usize>,
    pub placed: BTreeSet<OrderId>,
    pub changed: BTreeSet<OrderId>,
    pub stock: BTreeMap<ProductId, StockChange>,
    pub coupons: BTreeSet<ClaimId>,
    /// Accounts to update, or to insert.
    pub accounts: BTreeSet<UserId>,
    /// In order: each row has the balance after it.
    pub ledger: Vec<LedgerRow>,
    pub payments: Vec<Payment>,
    /// Payments of earlier batches that were refunded.
    pub refunded: BTreeSet<PaymentId>,
    /// In order.
    pub events: Vec<Event>,
}
