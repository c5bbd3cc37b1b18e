use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What a refused command broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
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
    /// The user has fewer points than are to be paid.
    PointsInsufficient,
    /// The refund would lift the balance above the holding cap.
    PointsCapExceeded,
    /// The user has no such order.
    OrderNotFound,
    /// The order's status does not allow it.
    OrderStateConflict,
    /// A defect of Dibs kept it from being carried out.
    CommandFailed,
}

impl RejectCode {
    const ALL: [Self; 10] = [
        Self::ProductNotFound,
        Self::ProductNotSelling,
        Self::StockInsufficient,
        Self::CouponNotUsable,
        Self::ValidationFailed,
        Self::PointsInsufficient,
        Self::PointsCapExceeded,
        Self::OrderNotFound,
        Self::OrderStateConflict,
        Self::CommandFailed,
    ];

    /// The code that users and the database see.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ProductNotFound => "PRODUCT_NOT_FOUND",
            Self::ProductNotSelling => "PRODUCT_NOT_SELLING",
            Self::StockInsufficient => "STOCK_INSUFFICIENT",
            Self::CouponNotUsable => "COUPON_NOT_USABLE",
            Self::ValidationFailed => "VALIDATION_FAILED",
            Self::PointsInsufficient => "POINTS_INSUFFICIENT",
            Self::PointsCapExceeded => "POINTS_CAP_EXCEEDED",
            Self::OrderNotFound => "ORDER_NOT_FOUND",
            Self::OrderStateConflict => "ORDER_STATE_CONFLICT",
            Self::CommandFailed => "COMMAND_FAILED",
        }
    }

    /// The refusal of that code, if there is one.
    pub fn from_code(code: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|refusal| refusal.as_str() == code)
    }
}

/// Why a command was not carried out: nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderRejectReason {
    /// What it broke.
    pub code: RejectCode,
    /// The same in words: which thing, what was expected.
    pub detail: String,
}

impl OrderRejectReason {
    /// A refusal in words.
    pub fn new(code: RejectCode, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into() }
    }
}

impl fmt::Display for OrderRejectReason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.detail)
    }
}
