use std::fmt;

use serde::{Deserialize, Serialize};
use strum::{EnumString, IntoStaticStr, VariantArray};
use utoipa::ToSchema;

use crate::domain::facts::Facts;

/// The rule that refused a command.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema, EnumString, IntoStaticStr, VariantArray,
)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[strum(serialize_all = "SCREAMING_SNAKE_CASE", const_into_str)]
pub enum RejectCode {
    /// There is no such product.
    ProductNotFound,
    /// The product is not for sale now.
    ProductNotSelling,
    /// Less is in stock than was ordered.
    StockInsufficient,
    /// The coupon is not the user's, or used, or over, or the order is too small for it.
    CouponNotUsable,
    /// The order's total is more money than can be counted.
    ValidationFailed,
    /// A product of the order has to be paid with the order.
    PaymentRequired,
    /// The user has too many unpaid orders.
    UnpaidOrdersLimitExceeded,
    /// The user's unpaid orders would hold too many units of a product.
    UnpaidUnitsLimitExceeded,
    /// The user has fewer points than are to be paid.
    PointsInsufficient,
    /// The refund would lift the balance above the holding cap.
    PointsCapExceeded,
    /// The user has no such order.
    OrderNotFound,
    /// The order's status does not allow it.
    OrderStateConflict,
    /// The command failed permanently, by a defect of Dibs.
    CommandFailed,
}

/// Why a command was refused. It changed nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderRejectReason {
    pub code: RejectCode,
    /// The same in words: which thing, and what was expected.
    pub detail: String,
    /// The same as fields. Outcomes of older versions have none.
    #[serde(default, skip_serializing_if = "Facts::is_empty")]
    pub facts: Box<Facts>,
}

impl OrderRejectReason {
    pub fn new(code: RejectCode, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into(), facts: Box::default() }
    }

    #[must_use]
    pub fn with(self, facts: Facts) -> Self {
        Self { facts: Box::new(facts), ..self }
    }
}

impl fmt::Display for OrderRejectReason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.detail)
    }
}
