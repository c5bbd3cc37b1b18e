//! Events: each is a row of `outbox_events`, which the relay publishes.

use serde::Serialize;
use strum::IntoStaticStr;

use crate::identifiers::{CouponId, OrderId, ProductId, UserId};

/// What an event is about, spelled as the database holds its type. Events of one aggregate are published in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, IntoStaticStr)]
#[strum(serialize_all = "UPPERCASE", const_into_str)]
pub enum Aggregate {
    Order(OrderId),
    Coupon(CouponId),
    Points(UserId),
    Product(ProductId),
}

impl Aggregate {
    pub fn id(self) -> String {
        match self {
            Self::Order(id) => id.to_string(),
            Self::Coupon(id) => id.to_string(),
            Self::Points(id) => id.to_string(),
            Self::Product(id) => id.to_string(),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub aggregate: Aggregate,
    /// The type, such as `order.paid`.
    pub kind: &'static str,
    /// The aggregate after the event, as JSON.
    pub payload: String,
}

impl Event {
    pub fn new(aggregate: Aggregate, kind: &'static str, payload: &impl Serialize) -> Self {
        // Serialization fails only for maps whose keys are not strings. No payload has one.
        let payload = serde_json::to_string(payload).unwrap_or_else(|_| "null".into());
        Self { aggregate, kind, payload }
    }
}
