//! A purchase of points, and what becomes of it.

use chrono::TimeDelta;
use serde::{Deserialize, Serialize};
use strum::{EnumString, IntoStaticStr, VariantArray};
use utoipa::ToSchema;

use crate::{
    clock::Timestamp,
    identifiers::{ChargeId, UserId},
};

/// What a user wants to buy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewCharge {
    /// Its id; the payment gateway knows it as idempotency key.
    pub id: ChargeId,
    /// Who buys.
    pub user: UserId,
    /// How many points, which is how many won.
    pub amount: i64,
    /// As the caller named it, for the payment gateway.
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

/// How a charge ended. It ends once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It is paid.
    Approved,
    /// It is not.
    Declined,
}

impl Decision {
    /// The status of a charge that ended so.
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
    /// What was wanted.
    pub wanted: NewCharge,
    /// What became of it.
    pub status: ChargeStatus,
    /// How often the worker has asked the payment gateway again.
    pub attempts: u32,
    /// When it began.
    pub created_at: Timestamp,
    /// When it was approved or declined.
    pub decided_at: Option<Timestamp>,
}

/// How long a new charge is left to the process that began it, before the worker reconciles it: that process waits up to
/// 2 s for the gateway, and then writes the decision.
pub const LEFT_TO_ITS_PROCESS: TimeDelta = TimeDelta::seconds(5);
