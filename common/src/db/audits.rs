//! What an audit reads of `MySQL`: the rows of a campaign and their counts.

use std::{collections::BTreeSet, time::Duration};

use sqlx::MySqlPool;
use uuid::Uuid;

use super::{Database, campaigns, decode::json_rows, retry::with_limit, retrying};
use crate::{
    error::Result,
    identifiers::{ClaimId, CouponId, UserId},
};

/// How long the rows of a campaign may be counted: about 5 million a second are.
pub const COUNT_TIMEOUT: Duration = Duration::from_secs(10);

/// The counts of a campaign, and the rows that they count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct RowCounts {
    pub issued_quantity: u32,
    pub rejected_quantity: u32,
    /// Rows of `user_coupons`.
    pub issuances: i64,
    /// Rows of `claim_rejections`.
    pub rejections: i64,
}

/// Counts the rows of a campaign. One statement reads one state of the database, so counts and rows belong together
/// also while claims are confirmed.
pub async fn count_rows(pool: &MySqlPool, coupon: CouponId) -> Result<Option<RowCounts>, sqlx::Error> {
    sqlx::query_as(
        "SELECT /* audits::count_rows */ issued_quantity, rejected_quantity, \
         (SELECT COUNT(*) FROM user_coupons u WHERE u.coupon_id = c.coupon_id) AS issuances, \
         (SELECT COUNT(*) FROM claim_rejections r WHERE r.coupon_id = c.coupon_id) AS rejections \
         FROM coupons c WHERE c.coupon_id = ?",
    )
    .bind(coupon.get())
    .fetch_optional(pool)
    .await
}

/// Those of these claims that are issued to their user.
pub async fn find_issued(
    pool: &MySqlPool,
    coupon: CouponId,
    claims: &[(UserId, ClaimId)],
) -> Result<BTreeSet<ClaimId>, sqlx::Error> {
    if claims.is_empty() {
        return Ok(BTreeSet::new());
    }
    let rows: Vec<(String, u64)> =
        claims.iter().map(|(user, claim)| (claim.0.simple().to_string(), user.get())).collect();
    // STRAIGHT_JOIN: the ids first, each then a lookup by primary key.
    let issued: Vec<Uuid> = sqlx::query_scalar(
        "SELECT /* audits::find_issued */ u.user_coupon_id FROM JSON_TABLE(?, '$[*]' COLUMNS( \
             claim_id CHAR(32) PATH '$[0]', user_id BIGINT UNSIGNED PATH '$[1]')) AS claims \
         STRAIGHT_JOIN user_coupons u ON u.user_coupon_id = UNHEX(claims.claim_id) \
         WHERE u.coupon_id = ? AND u.user_id = claims.user_id",
    )
    .bind(json_rows(&rows)?)
    .bind(coupon.get())
    .fetch_all(pool)
    .await?;
    Ok(issued.into_iter().map(ClaimId).collect())
}

/// The counts of a campaign that were wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WrongCounts {
    pub counts: RowCounts,
    pub revoked_quantity: u32,
    /// Rows of `user_coupons` that are revoked.
    pub revocations: i64,
}

/// Sets the counts of a campaign to the rows that they count, under the lock that every issuance takes. Returns the
/// counts before, when they were wrong. More rows than the total quantity stay uncounted: the table refuses that count.
pub async fn recount(database: &Database, coupon: CouponId) -> Result<Option<WrongCounts>> {
    retrying("recount_campaign", || with_limit(COUNT_TIMEOUT, recount_locked(database, coupon))).await
}

async fn recount_locked(database: &Database, coupon: CouponId) -> Result<Option<WrongCounts>, sqlx::Error> {
    let mut transaction = database.begin().await?;
    let Some(campaign) = campaigns::lock(&mut transaction, &[coupon]).await?.pop() else { return Ok(None) };
    let (issuances, revoked, rejections): (i64, i64, i64) = sqlx::query_as(
        "SELECT /* audits::recount_locked */ (SELECT COUNT(*) FROM user_coupons WHERE coupon_id = ?), \
         (SELECT COUNT(*) FROM user_coupons WHERE coupon_id = ? AND status = 'REVOKED'), \
         (SELECT COUNT(*) FROM claim_rejections WHERE coupon_id = ?)",
    )
    .bind(coupon.get())
    .bind(coupon.get())
    .bind(coupon.get())
    .fetch_one(&mut *transaction)
    .await?;
    let counts =
        RowCounts { issued_quantity: campaign.issued, rejected_quantity: campaign.rejected, issuances, rejections };
    let counted = [campaign.issued, campaign.revoked, campaign.rejected].map(i64::from);
    if counted == [issuances, revoked, rejections] {
        return Ok(None);
    }
    let issued = if issuances > i64::from(campaign.terms.total_quantity) + revoked {
        i64::from(campaign.issued)
    } else {
        issuances
    };
    sqlx::query(
        "UPDATE coupons /* audits::recount_locked */ SET issued_quantity = ?, revoked_quantity = ?, rejected_quantity = ? WHERE coupon_id = ?",
    )
    .bind(issued)
    .bind(revoked.min(issued))
    .bind(rejections)
    .bind(coupon.get())
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(Some(WrongCounts { counts, revoked_quantity: campaign.revoked, revocations: revoked }))
}
