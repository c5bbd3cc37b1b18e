//! Coupons that users own, and what an administrator may revoke of them.

use chrono::{DateTime, Utc};
use serde::Serialize;
use strum::EnumString;
use utoipa::ToSchema;

use super::{
    campaign::Discount,
    event::{Aggregate, Event},
    order::{OrderRejectReason, RejectCode},
};
use crate::{
    clock::Timestamp,
    identifiers::{ClaimId, CouponId, UserId},
};

/// The status of a user's coupon. It expires at its time, also before the job has marked it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema, EnumString)]
#[serde(rename_all = "UPPERCASE")]
#[strum(serialize_all = "UPPERCASE")]
pub enum OwnedStatus {
    Usable,
    /// An order uses it.
    Used,
    Expired,
    /// By an administrator.
    Revoked,
}

crate::json::read_by_spelling!(OwnedStatus);

/// A coupon that a user owns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct OwnedCoupon {
    /// The id of the claim that it was issued for.
    pub user_coupon_id: ClaimId,
    /// The campaign that issued it.
    pub coupon_id: CouponId,
    /// The name of the campaign.
    pub name: String,
    /// What it takes off an order.
    pub discount: Discount,
    pub status: OwnedStatus,
    /// When it was issued.
    #[serde(serialize_with = "crate::clock::serialize")]
    pub issued_at: DateTime<Utc>,
    /// Until when it can be used.
    #[serde(serialize_with = "crate::clock::serialize")]
    pub valid_until: DateTime<Utc>,
    /// When an order used it.
    #[serde(serialize_with = "crate::clock::serialize")]
    #[schema(required)]
    pub used_at: Option<DateTime<Utc>>,
}

impl OwnedCoupon {
    /// Whether revoking the coupon changes it. A coupon that is revoked stays revoked.
    ///
    /// # Errors
    /// It is used or over. A used one is usable again when its order is cancelled.
    pub fn is_changed_by_revocation(&self) -> Result<bool, OrderRejectReason> {
        let reason = match self.status {
            OwnedStatus::Usable => return Ok(true),
            OwnedStatus::Revoked => return Ok(false),
            OwnedStatus::Used => "an order uses it",
            OwnedStatus::Expired => "its validity is over",
        };
        let detail = format!("Coupon {} cannot be revoked: {reason}.", self.user_coupon_id);
        Err(OrderRejectReason::new(RejectCode::CouponNotUsable, detail))
    }
}

/// The payload of `coupon.revoked`.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CouponRevoked {
    pub user_coupon_id: ClaimId,
    pub coupon_id: CouponId,
    pub user_id: UserId,
    #[serde(serialize_with = "crate::clock::serialize")]
    pub revoked_at: Timestamp,
}

impl CouponRevoked {
    pub fn event(&self) -> Event {
        Event::new(Aggregate::Coupon(self.coupon_id), "coupon.revoked", self)
    }
}
