//! Claims of a user by their ids, in whichever table they ended.

use sqlx::MySqlPool;

use super::issuances::{UserClaim, outcome};
use crate::{
    clock::Timestamp,
    domain::claim::ClaimRecord,
    identifiers::{ClaimId, CouponId, UserId},
};

/// A claim of a user on a campaign, if it has an outcome: issued, rejected after its acceptance, or refused at once.
pub async fn find(
    pool: &MySqlPool,
    coupon: CouponId,
    user: UserId,
    claim: ClaimId,
) -> Result<Option<UserClaim>, sqlx::Error> {
    type Row = (i64, Timestamp, Option<Timestamp>, Option<String>);
    // Three lookups by primary key in one statement. An id is in one of the tables.
    let row: Option<Row> = sqlx::query_as(
        "SELECT /* user_claims::find */ CAST(sequence AS SIGNED), accepted_at, valid_until, NULL AS code \
         FROM user_coupons WHERE user_coupon_id = ? AND coupon_id = ? AND user_id = ? \
         UNION ALL SELECT CAST(sequence AS SIGNED), accepted_at, NULL, code \
         FROM claim_rejections WHERE claim_id = ? AND coupon_id = ? AND user_id = ? \
         UNION ALL SELECT 0, refused_at, NULL, code \
         FROM claim_refusals WHERE claim_id = ? AND coupon_id = ? AND user_id = ? LIMIT 1",
    )
    .bind(claim.0)
    .bind(coupon.get())
    .bind(user.get())
    .bind(claim.0)
    .bind(coupon.get())
    .bind(user.get())
    .bind(claim.0)
    .bind(coupon.get())
    .bind(user.get())
    .fetch_optional(pool)
    .await?;
    let Some((sequence, accepted_at, valid_until, code)) = row else { return Ok(None) };
    let sequence = u32::try_from(sequence).map_err(|error| sqlx::Error::Decode(error.into()))?;
    let record = ClaimRecord { claim_id: claim, sequence, accepted_at };
    Ok(Some(UserClaim { record, outcome: outcome(valid_until, code)? }))
}
