//! What happened, for those who are told of it: a row of `outbox_events` each.

use serde::Serialize;

use crate::identifiers::{CouponId, OrderId, ProductId, UserId};

/// What an event is about. Events of one aggregate are told in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Aggregate {
    /// An order.
    Order(OrderId),
    /// A campaign.
    Coupon(CouponId),
    /// A user's points.
    Points(UserId),
    /// A product.
    Product(ProductId),
}

impl Aggregate {
    /// Its type, as the database spells it.
    pub const fn type_name(self) -> &'static str {
        match self {
            Self::Order(_) => "ORDER",
            Self::Coupon(_) => "COUPON",
            Self::Points(_) => "POINTS",
            Self::Product(_) => "PRODUCT",
        }
    }

    /// Its id as text.
    pub fn id(self) -> String {
        match self {
            Self::Order(id) => id.to_string(),
            Self::Coupon(id) => id.to_string(),
            Self::Points(id) => id.to_string(),
            Self::Product(id) => id.to_string(),
        }
    }
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// What it is about.
    pub aggregate: Aggregate,
    /// What happened, such as `order.paid`.
    pub kind: &'static str,
    /// The thing after it happened, as JSON.
    pub payload: String,
}

impl Event {
    /// That `kind` happened to `aggregate`, which looks like `payload` now.
    pub fn new(aggregate: Aggregate, kind: &'static str, payload: &impl Serialize) -> Self {
        // Only maps whose keys are no text cannot be JSON, and no payload has one.
        let payload = serde_json::to_string(payload).unwrap_or_else(|_| "null".into());
        Self { aggregate, kind, payload }
    }
}
