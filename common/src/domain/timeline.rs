//! One user's whole story, for support.

use std::{
    fmt::{self, Display, Formatter},
    str::FromStr,
};

use chrono::{DateTime, Utc};
use serde::Serialize;
use strum::{EnumString, IntoStaticStr, VariantArray};
use utoipa::ToSchema;

use super::cursor::text_cursor;
use crate::{
    clock::{LAST_MILLISECOND, Timestamp, from_millis},
    identifiers::{ClaimId, CouponId, OrderId},
};

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema, EnumString, IntoStaticStr, VariantArray)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[strum(serialize_all = "SCREAMING_SNAKE_CASE", const_into_str)]
pub enum TimelineKind {
    /// A claim was refused at once; `code` says why. Repeats for the same reason are one entry, at the time of the
    /// last.
    ClaimRefused,
    /// A claim was accepted, with its sequence.
    ClaimAccepted,
    /// A claim was rejected after its acceptance; `code` says why.
    ClaimRejected,
    CouponIssued,
    /// An order took the coupon.
    CouponUsed,
    /// The order that took the coupon was cancelled or expired.
    CouponRestored,
    CouponExpired,
    /// By an administrator, with the actor and the reason.
    CouponRevoked,
    /// Points were bought; `code` is PENDING, APPROVED or DECLINED.
    Charge,
    /// A row of the ledger; `code` is its type. What an administrator gave or took has the actor and the reason.
    PointsChanged,
    OrderPlaced,
    /// An order was refused; `code` says why.
    OrderRejected,
    OrderPaid,
    OrderConfirmed,
    OrderCancelled,
    OrderExpired,
    PaymentDone,
    /// `code` says why.
    PaymentFailed,
    /// A payment was refunded.
    PaymentCancelled,
}

/// Something that happened to a user, or that the user did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TimelineEntry {
    #[serde(serialize_with = "crate::clock::serialize")]
    pub at: DateTime<Utc>,
    pub kind: TimelineKind,
    /// Of the claim, coupon, order, payment, charge or row, whatever the kind is about.
    pub id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub coupon_id: Option<CouponId>,
    /// The name of the campaign.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub coupon_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_coupon_id: Option<ClaimId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub order_id: Option<OrderId>,
    /// The place of a claim in the order of acceptance.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sequence: Option<u64>,
    /// A reason, status or type.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// Won, or points.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub amount: Option<i64>,
    /// Points after it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub balance: Option<i64>,
    /// How often a claim was refused, as far as it was recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempts: Option<u64>,
    /// When that was the first time.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "crate::clock::serialize")]
    pub first_at: Option<DateTime<Utc>>,
    /// Of an administrator's action.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub actor: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The place of an entry: the newest first, then by kind and id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimelinePosition {
    pub at: Timestamp,
    pub kind: TimelineKind,
    pub id: String,
}

/// The longest id of an entry: a coupon, a hyphen and a code.
const MAX_ID_LENGTH: usize = 64;

impl From<&TimelineEntry> for TimelinePosition {
    fn from(entry: &TimelineEntry) -> Self {
        Self { at: entry.at, kind: entry.kind, id: entry.id.clone() }
    }
}

impl Display for TimelinePosition {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.at.timestamp_millis(), self.kind.into_str(), self.id)
    }
}

impl FromStr for TimelinePosition {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const EXPECTED: &str = "expected the cursor of a timeline";
        let mut parts = text.splitn(3, '.');
        let (Some(at), Some(kind), Some(id)) = (parts.next(), parts.next(), parts.next()) else { return Err(EXPECTED) };
        let (Ok(millis), Ok(kind)) = (at.parse::<u64>(), kind.parse()) else { return Err(EXPECTED) };
        let is_id = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        if id.is_empty()
            || id.len() > MAX_ID_LENGTH
            || !id.chars().all(is_id)
            || millis > LAST_MILLISECOND.cast_unsigned()
        {
            return Err(EXPECTED);
        }
        Ok(Self { at: from_millis(i64::try_from(millis).map_err(|_| EXPECTED)?), kind, id: id.to_owned() })
    }
}

impl TimelinePosition {
    /// The format of its text in the OpenAPI document.
    pub const FORMAT: &str = "timeline-cursor";

    fn pattern() -> String {
        let kinds = TimelineKind::VARIANTS.iter().map(TimelineKind::into_str).collect::<Vec<_>>().join("|");
        format!("^[0-9]{{1,14}}\\.({kinds})\\.[0-9A-Za-z_-]{{1,64}}$")
    }
}

text_cursor!(TimelinePosition, "the cursor of a timeline");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_parsed_from_its_display() {
        let position = TimelinePosition {
            at: from_millis(1_790_000_000_123),
            kind: TimelineKind::ClaimRefused,
            id: "7-COUPON_EXHAUSTED".into(),
        };
        let text = "1790000000123.CLAIM_REFUSED.7-COUPON_EXHAUSTED";
        assert_eq!((position.to_string().as_str(), text.parse()), (text, Ok(position)));
        for wrong in
            ["", "1.CLAIM_REFUSED", "1.OTHER.1", "x.CHARGE.1", "1.CHARGE.a'b", "1.CHARGE.", "999999999999999.CHARGE.1"]
        {
            wrong.parse::<TimelinePosition>().expect_err(wrong);
        }
    }
}
