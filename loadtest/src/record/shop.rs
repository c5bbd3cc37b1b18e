use std::collections::{BTreeMap, HashMap};

use dibs_common::identifiers::{CouponId, UserId};
use uuid::Uuid;

use super::{ClientRecord, SAMPLES};
use crate::latency::Latencies;

/// The calls that users of a shop make.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Call {
    /// GET /products
    ListProducts,
    /// GET /products/{productId}
    ShowProduct,
    /// POST /points
    Charge,
    /// GET /points
    Balance,
    /// GET /points/history
    History,
    /// POST /coupons/issue
    Claim,
    /// GET /users/{userId}/coupons
    Coupons,
    /// POST /orders
    Place,
    /// POST /payments/confirm
    Pay,
    /// POST /orders/{orderId}/confirm
    Confirm,
    /// POST /orders/{orderId}/cancel
    Cancel,
    /// GET /orders/{orderId}
    ShowOrder,
    /// GET /orders
    ListOrders,
    /// GET of the Location of a 202
    FollowUp,
}

impl Call {
    /// Method and path.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ListProducts => "GET /products",
            Self::ShowProduct => "GET /products/{productId}",
            Self::Charge => "POST /points",
            Self::Balance => "GET /points",
            Self::History => "GET /points/history",
            Self::Claim => "POST /coupons/issue",
            Self::Coupons => "GET /users/{userId}/coupons",
            Self::Place => "POST /orders",
            Self::Pay => "POST /payments/confirm",
            Self::Confirm => "POST /orders/{orderId}/confirm",
            Self::Cancel => "POST /orders/{orderId}/cancel",
            Self::ShowOrder => "GET /orders/{orderId}",
            Self::ListOrders => "GET /orders",
            Self::FollowUp => "GET Location of a 202",
        }
    }
}

/// What a client was told of something that Dibs made or changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// The order was placed.
    Placed,
    /// The command that places the order was taken.
    PlaceTaken,
    /// The order was paid.
    Paid,
    /// The purchase was confirmed.
    Confirmed,
    /// The order was cancelled.
    Cancelled,
    /// The command, to pay, confirm or cancel, was taken.
    CommandTaken,
    /// The charge was approved.
    Charged,
    /// The charge was taken.
    ChargeTaken,
}

impl Told {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Placed,
        Self::PlaceTaken,
        Self::Paid,
        Self::Confirmed,
        Self::Cancelled,
        Self::CommandTaken,
        Self::Charged,
        Self::ChargeTaken,
    ];

    /// Whether it was a 202, whose outcome was still to come.
    pub const fn is_pending(self) -> bool {
        matches!(self, Self::PlaceTaken | Self::CommandTaken | Self::ChargeTaken)
    }

    /// What must be so in the end.
    pub const fn describe(self) -> &'static str {
        match self {
            Self::Placed => "an order that was placed",
            Self::PlaceTaken => "an order, placed or refused",
            Self::Paid => "an order that was paid",
            Self::Confirmed => "a confirmed purchase",
            Self::Cancelled => "a cancelled order",
            Self::CommandTaken => "a command with an outcome",
            Self::Charged => "an approved charge",
            Self::ChargeTaken => "a charge that was decided",
        }
    }
}

/// Something that a client was told, to be held against the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Promise {
    /// Of an order, a command or a charge.
    pub id: Uuid,
    /// Whose.
    pub user: UserId,
    /// What was said.
    pub told: Told,
}

/// What should not have been: all are counted, a few kept.
#[derive(Clone, Debug, Default)]
pub struct Oddities {
    count: u64,
    samples: Vec<String>,
}

impl Oddities {
    /// Counts one.
    pub fn add(&mut self, what: String) {
        self.count += 1;
        if self.samples.len() < SAMPLES {
            self.samples.push(what);
        }
    }

    /// How many.
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// A few of them.
    pub fn samples(&self) -> &[String] {
        &self.samples
    }
}

/// Requests that were made again with the same key.
#[derive(Clone, Debug, Default)]
pub struct Repeats {
    /// Twice at the same time.
    pub at_once: u64,
    /// Once more after the answer.
    pub afterwards: u64,
    /// Of these, answered 409 `IDEMPOTENCY_IN_PROGRESS`.
    pub in_progress: u64,
    /// Answers that were not the same.
    pub unequal: Oddities,
}

/// The answers to one kind of call.
#[derive(Clone, Debug, Default)]
pub struct CallRecord {
    /// Of every answer.
    pub latencies: Latencies,
    /// 202 of a command or a charge.
    pub taken: u64,
    /// How many were refused, by status and code.
    pub refusals: BTreeMap<String, u64>,
}

/// All that the users of a shop were answered.
#[derive(Clone, Debug, Default)]
pub struct ShopRecord {
    /// By kind.
    pub calls: BTreeMap<Call, CallRecord>,
    /// What they were told was done, or will be.
    pub promises: Vec<Promise>,
    /// Of requests that were made again.
    pub repeats: Repeats,
    /// Answers that no call may have, and outcomes that never came.
    pub strange: Oddities,
    /// Claims, by campaign.
    pub claims: HashMap<CouponId, ClientRecord>,
}
