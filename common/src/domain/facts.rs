//! What a refusal states beside its words: the fields of a problem, and of a stored refusal.

use chrono::{DateTime, NaiveDate, Utc};
use serde::{Deserialize, Serialize};
use strum::{EnumString, IntoStaticStr, VariantArray};
use utoipa::ToSchema;

use super::{
    access::Scope,
    assignment::{AssignmentKey, AssignmentStatus},
    order::OrderStatus,
};
use crate::identifiers::{
    ApiKeyId, ChargeId, ClaimId, CommandId, CouponId, DeadLetterId, OrderId, PaymentId, ProductId, RebuildId, UserId,
};

/// Why an order cannot use a coupon.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema, EnumString, IntoStaticStr, VariantArray,
)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[strum(serialize_all = "SCREAMING_SNAKE_CASE", const_into_str)]
pub enum CouponRefusal {
    /// The user has no such coupon.
    NotOwned,
    /// Another order uses it.
    Used,
    /// Its validity is over.
    Expired,
    /// An administrator took it back.
    Revoked,
    /// The total of the order is below `minimumOrderAmount`.
    MinimumNotReached,
    /// It takes less than 1 won off the total.
    NoDiscount,
}

macro_rules! facts {
    ($($(#[$doc:meta])* $name:ident: $type:ty,)+) => {
        /// The facts of a refusal. Which ones a code has, its page says.
        // Stored with outcomes and sent from worker to API. A new field needs no migration: the other version leaves it
        // out, or does not know it.
        #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
        #[serde(rename_all = "camelCase", default)]
        pub struct Facts {
            $($(#[$doc])* #[serde(skip_serializing_if = "Option::is_none")] pub $name: Option<$type>,)+
        }
    };
}

facts! {
    /// The campaign.
    coupon_id: CouponId,
    /// The user.
    user_id: UserId,
    /// The claim.
    claim_id: ClaimId,
    /// The coupon that the order was to use.
    user_coupon_id: ClaimId,
    /// The product.
    product_id: ProductId,
    /// The order.
    order_id: OrderId,
    /// The command.
    command_id: CommandId,
    /// The payment; also one that failed.
    payment_id: PaymentId,
    /// The charge.
    charge_id: ChargeId,
    /// The assignment, by its key or its id.
    assignment_key: AssignmentKey,
    /// The status of the assignment.
    assignment_status: AssignmentStatus,
    /// The rebuild.
    rebuild_id: RebuildId,
    /// The dead letter.
    dead_letter_id: DeadLetterId,
    /// The API key.
    api_key_id: ApiKeyId,
    /// The name that is taken.
    name: String,
    /// The scope that the call needs.
    required_scope: Scope,
    /// Why the coupon is not usable.
    reason: CouponRefusal,
    /// The status of the order.
    order_status: OrderStatus,
    /// What was asked for, in units, coupons or won.
    requested: i64,
    /// How many units are in stock.
    available: i64,
    /// How many users of the campaign are assigned on the business day.
    assigned: i64,
    /// How many may be assigned on a business day.
    budget: i64,
    /// The day of the budget.
    business_day: NaiveDate,
    /// How many claims are accepted.
    claimed: i64,
    /// The points of the user, in won.
    balance: i64,
    /// The points that are needed, in won.
    required: i64,
    /// What counts against the limit already: won, orders or units.
    held: i64,
    /// The most that is allowed: won, orders, units or claims.
    limit: i64,
    /// The smallest amount of a charge, in won.
    minimum_amount: i64,
    /// The smallest total of an order that can use the coupon, in won.
    minimum_order_amount: i64,
    /// The total of the order before the discount, in won.
    total_amount: i64,
    /// The longest body, in bytes.
    max_bytes: u64,
    /// When the campaign opens.
    #[serde(serialize_with = "crate::clock::serialize")]
    opens_at: DateTime<Utc>,
    /// Until when the order was to be paid.
    #[serde(serialize_with = "crate::clock::serialize")]
    expires_at: DateTime<Utc>,
}

impl Facts {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_of_another_version_are_read_as_far_as_they_are_known() {
        let read = |text| serde_json::from_str::<Facts>(text).expect("facts");
        assert_eq!(read("{}"), Facts::default());
        let known = Facts { available: Some(1), ..Facts::default() };
        assert_eq!(read(r#"{"available": 1, "colour": "red"}"#), known);
        assert_eq!(serde_json::to_string(&known).expect("JSON"), r#"{"available":1}"#);
    }
}
