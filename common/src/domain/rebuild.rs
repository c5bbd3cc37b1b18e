//! Rebuilds of campaigns in Redis that administrators request.

use chrono::{DateTime, Utc};
use serde::Serialize;
use strum::{EnumString, IntoStaticStr, VariantArray};
use utoipa::ToSchema;

use crate::identifiers::{CouponId, RebuildId};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema, EnumString, IntoStaticStr, VariantArray)]
#[serde(rename_all = "UPPERCASE")]
#[strum(serialize_all = "UPPERCASE", const_into_str)]
pub enum RebuildStatus {
    /// A worker carries it out, within about a second unless another process rebuilds the campaign just now.
    Pending,
    Done,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Rebuild {
    pub rebuild_id: RebuildId,
    pub coupon_id: CouponId,
    pub status: RebuildStatus,
    #[serde(serialize_with = "crate::clock::serialize")]
    pub requested_at: DateTime<Utc>,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "crate::clock::serialize")]
    pub done_at: Option<DateTime<Utc>>,
    /// Accepted claims that Redis has since then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub claimed: Option<u32>,
}
