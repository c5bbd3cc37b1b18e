//! The table `user_coupons`, as what compares and rebuilds campaigns reads it.

use sqlx::MySqlPool;
use uuid::Uuid;

use super::{decode::identifier, issuances::json};
use crate::{
    clock::Timestamp,
    domain::claim::{ClaimRecord, IssuedPosition},
    identifiers::{ClaimId, CouponId, UserId},
};

/// An issued claim. A user's first coupon of a campaign has the ordinal 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IssuedClaim {
    pub user: UserId,
    pub ordinal: u16,
    pub valid_until: Timestamp,
    pub record: ClaimRecord,
}

impl IssuedClaim {
    pub const fn position(&self) -> IssuedPosition {
        IssuedPosition { valid_until: self.valid_until, claim: self.record.claim_id }
    }

    fn decode(row: IssuedRow) -> Result<Self, sqlx::Error> {
        let (claim, user, ordinal, sequence, accepted_at, valid_until) = row;
        let record = ClaimRecord { claim_id: ClaimId(claim), sequence, accepted_at };
        Ok(Self { user: identifier(user)?, ordinal, valid_until, record })
    }
}

type IssuedRow = (Uuid, u64, u16, u32, Timestamp, Timestamp);

/// At most `limit` issued claims of a campaign, after the position `after`.
pub async fn list(
    pool: &MySqlPool,
    coupon: CouponId,
    after: Option<IssuedPosition>,
    limit: u32,
) -> Result<Vec<IssuedClaim>, sqlx::Error> {
    let start = IssuedPosition { valid_until: Timestamp::UNIX_EPOCH, claim: ClaimId(Uuid::nil()) };
    let IssuedPosition { valid_until, claim } = after.unwrap_or(start);
    // The index is forced because pages come in its order. By another one, each page would sort all rows of the
    // campaign.
    let rows: Vec<IssuedRow> = sqlx::query_as(
        "SELECT /* issued_claims::list */ user_coupon_id, user_id, ordinal, sequence, accepted_at, valid_until \
         FROM user_coupons FORCE INDEX (by_validity) \
         WHERE coupon_id = ? AND (valid_until > ? OR (valid_until = ? AND user_coupon_id > ?)) \
         ORDER BY valid_until, user_coupon_id LIMIT ?",
    )
    .bind(coupon.get())
    .bind(valid_until.naive_utc())
    .bind(valid_until.naive_utc())
    .bind(claim.0)
    .bind(limit)
    .fetch_all(pool)
    .await?;
    rows.into_iter().map(IssuedClaim::decode).collect()
}

/// All issued claims of these users in a campaign.
pub async fn list_of_users(
    pool: &MySqlPool,
    coupon: CouponId,
    users: &[UserId],
) -> Result<Vec<IssuedClaim>, sqlx::Error> {
    let users: Vec<u64> = users.iter().map(|user| user.get()).collect();
    let rows: Vec<IssuedRow> = sqlx::query_as(
        "SELECT /* issued_claims::list_of_users */ u.user_coupon_id, u.user_id, u.ordinal, u.sequence, u.accepted_at, \
         u.valid_until FROM JSON_TABLE(?, '$[*]' COLUMNS(user_id BIGINT UNSIGNED PATH '$')) AS users \
         STRAIGHT_JOIN user_coupons u FORCE INDEX (one_per_ordinal) \
         ON u.user_id = users.user_id AND u.coupon_id = ?",
    )
    .bind(json(&users)?)
    .bind(coupon.get())
    .fetch_all(pool)
    .await?;
    rows.into_iter().map(IssuedClaim::decode).collect()
}
