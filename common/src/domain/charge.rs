//! Charges: purchases of points through the payment gateway.

use chrono::TimeDelta;
use serde::{Deserialize, Serialize};
use strum::{EnumString, IntoStaticStr, VariantArray};
use utoipa::ToSchema;

use crate::{
    clock::Timestamp,
    identifiers::{ChargeId, UserId},
};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewCharge {
    /// The payment gateway gets it as idempotency key.
    pub id: ChargeId,
    pub user: UserId,
    /// Points, and won.
    pub amount: i64,
    /// The caller's text, passed to the payment gateway.
    pub payment_method: Option<String>,
}

/// The state of a charge.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema, EnumString, IntoStaticStr, VariantArray,
)]
#[serde(rename_all = "UPPERCASE")]
#[strum(serialize_all = "UPPERCASE", const_into_str)]
pub enum ChargeStatus {
    /// The payment gateway has not answered yet.
    Pending,
    /// Paid; the points are credited.
    Approved,
    /// Not paid; no points.
    Declined,
}

/// The decision of the payment gateway. A charge is decided once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr)]
#[strum(serialize_all = "snake_case", const_into_str)]
pub enum Decision {
    Approved,
    Declined,
}

impl Decision {
    pub const fn status(self) -> ChargeStatus {
        match self {
            Self::Approved => ChargeStatus::Approved,
            Self::Declined => ChargeStatus::Declined,
        }
    }
}

/// A charge as the database holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Charge {
    pub wanted: NewCharge,
    pub status: ChargeStatus,
    /// Reconciliations so far: how often the worker asked the payment gateway.
    pub attempts: u32,
    pub created_at: Timestamp,
    pub decided_at: Option<Timestamp>,
}

/// The age of a charge at its first reconciliation. Until then the API process that created it waits for the payment
/// gateway, up to 2 s, and writes the decision.
pub const RECONCILIATION_GRACE_PERIOD: TimeDelta = TimeDelta::seconds(5);
