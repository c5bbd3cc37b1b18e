//! What a coupon takes off.

use serde::{Deserialize, Serialize};
use strum::{EnumString, IntoStaticStr, VariantArray};
use utoipa::ToSchema;

/// Whether a discount is an amount or a share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema, EnumString, IntoStaticStr, VariantArray)]
#[serde(rename_all = "UPPERCASE")]
#[strum(serialize_all = "UPPERCASE", const_into_str)]
pub enum DiscountType {
    /// Whole won.
    Fixed,
    /// Percent of the order total.
    Percent,
}

crate::json::read_by_spelling!(DiscountType);

/// What a coupon takes off an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Discount {
    /// `FIXED` or `PERCENT`.
    #[serde(rename = "type")]
    pub kind: DiscountType,
    /// Won when fixed, percent (1 to 100) otherwise.
    #[schema(minimum = 1, maximum = 9_007_199_254_740_991_u64)]
    pub value: i64,
    /// The most that a percent discount takes off, in won.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 9_007_199_254_740_991_u64)]
    pub max_amount: Option<i64>,
}

impl Discount {
    /// What it takes off an order of `total` won, in won: never more than the total.
    pub fn amount_for(&self, total: i64) -> i64 {
        let amount = match self.kind {
            DiscountType::Fixed => self.value,
            DiscountType::Percent => {
                let share = i128::from(total) * i128::from(self.value) / 100;
                i64::try_from(share).unwrap_or(total).min(self.max_amount.unwrap_or(i64::MAX))
            }
        };
        amount.clamp(0, total)
    }
}
