use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::{
    clock::Timestamp,
    domain::audit::{ClaimDifference, FieldDifference},
    error::Result,
    identifiers::CouponId,
    redis::{Redis, texts},
};

/// Differences that a note names.
const NAMED: usize = 20;
const KEPT: Duration = Duration::from_hours(24);

/// How a campaign differed when the drift check compared it last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DriftNote {
    #[serde(serialize_with = "crate::clock::serialize")]
    pub at: DateTime<Utc>,
    /// Terms, counts and claims that differ.
    pub differences: u64,
    /// The first of them, in words.
    pub named: Vec<String>,
}

/// Stores for a day how a campaign was found.
pub async fn note_drift(
    redis: &Redis,
    coupon: CouponId,
    (fields, claims): (&[FieldDifference], &[ClaimDifference]),
    at: Timestamp,
) -> Result<()> {
    let fields_named = fields.iter().map(|difference| {
        let found = difference.found.as_deref().unwrap_or("-");
        format!("{} {}: {found}, expected {}", difference.kind.into_str(), difference.field, difference.expected)
    });
    let claims_named =
        claims.iter().map(|difference| format!("{} user {}", difference.kind.into_str(), difference.user_id));
    let named = fields_named.chain(claims_named).take(NAMED).collect();
    let note = DriftNote { at, differences: (fields.len() + claims.len()) as u64, named };
    let text = serde_json::to_string(&note).unwrap_or_default();
    texts::set(redis, &redis.keys.live_drift(coupon), &text, KEPT).await
}

/// The last note of a campaign; none when it was not compared in the last day.
pub async fn find_drift(redis: &Redis, coupon: CouponId) -> Result<Option<DriftNote>> {
    let text = texts::get(redis, &redis.keys.live_drift(coupon)).await?;
    Ok(text.and_then(|text| serde_json::from_str(&text).ok()))
}
