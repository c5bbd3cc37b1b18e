//! What the database says of a campaign: counts by aggregates, rows in steps.

use std::collections::{HashMap, HashSet};

use anyhow::{Context as _, Result};
use dibs_common::{
    clock::Timestamp,
    domain::claim::ClaimRecord,
    identifiers::{ClaimId, CouponId, UserId},
};
use sqlx::{FromRow, MySqlPool, QueryBuilder};
use uuid::Uuid;

use super::STEP;

/// Counts of a campaign's rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromRow)]
pub struct Totals {
    /// Issuances.
    pub issued: u64,
    /// Users who have one.
    pub users: u64,
    /// Different sequence numbers.
    pub sequences: u64,
    /// The highest sequence number.
    pub highest: u32,
    /// Refused claims.
    pub rejected: u64,
    /// Claims both issued and refused.
    pub contradictory: u64,
}

/// Counts the rows of a campaign.
pub async fn totals(pool: &MySqlPool, coupon: CouponId) -> Result<Totals> {
    let totals = sqlx::query_as(
        "SELECT /* audit totals */ CAST(i.issued AS UNSIGNED) AS issued, CAST(i.users AS UNSIGNED) AS users, \
             CAST(i.sequences AS UNSIGNED) AS sequences, CAST(i.highest AS UNSIGNED) AS highest, \
             CAST(r.rejected AS UNSIGNED) AS rejected, CAST(r.contradictory AS UNSIGNED) AS contradictory \
         FROM (SELECT COUNT(*) AS issued, COUNT(DISTINCT user_id) AS users, COUNT(DISTINCT sequence) AS sequences, \
                 COALESCE(MAX(sequence), 0) AS highest FROM user_coupons WHERE coupon_id = ?) AS i \
         CROSS JOIN (SELECT COUNT(*) AS rejected, COUNT(u.user_coupon_id) AS contradictory FROM claim_rejections c \
                 LEFT JOIN user_coupons u ON u.user_coupon_id = c.claim_id WHERE c.coupon_id = ?) AS r",
    );
    totals.bind(coupon.get()).bind(coupon.get()).fetch_one(pool).await.context("counting issuances")
}

/// Users who hold more than `limit` of a campaign, with how many; at most a hundred.
pub async fn users_above(pool: &MySqlPool, coupon: CouponId, limit: u16) -> Result<Vec<(u64, i64)>> {
    let users = sqlx::query_as(
        "SELECT /* audit users_above */ user_id, COUNT(*) FROM user_coupons WHERE coupon_id = ? \
         GROUP BY user_id HAVING COUNT(*) > ? LIMIT 100",
    );
    users.bind(coupon.get()).bind(limit).fetch_all(pool).await.context("counting coupons of users")
}

/// An issuance, or a refused claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Of which campaign.
    pub coupon: u64,
    /// Whose.
    pub user: u64,
    /// Its place in the order of acceptance.
    pub sequence: u32,
    /// Whether it was issued.
    pub is_issued: bool,
}

/// The outcomes of claims; one that is both issued and refused counts as refused.
pub async fn outcomes(pool: &MySqlPool, claims: &[ClaimId]) -> Result<HashMap<ClaimId, Outcome>> {
    let mut outcomes = HashMap::with_capacity(claims.len());
    if claims.is_empty() {
        return Ok(outcomes);
    }
    let issued = "SELECT /* audit outcomes */ user_coupon_id, coupon_id, user_id, sequence FROM user_coupons \
        WHERE user_coupon_id IN (";
    let rejected = "SELECT /* audit outcomes */ claim_id, coupon_id, user_id, sequence FROM claim_rejections \
        WHERE claim_id IN (";
    for (select, is_issued) in [(issued, true), (rejected, false)] {
        let mut query = QueryBuilder::new(select);
        let mut ids = query.separated(", ");
        for claim in claims {
            ids.push_bind(claim.0);
        }
        query.push(")");
        let rows: Vec<(Uuid, u64, u64, u32)> =
            query.build_query_as().fetch_all(pool).await.context("reading the outcomes of claims")?;
        let found = rows.into_iter();
        outcomes
            .extend(found.map(|(claim, coupon, user, sequence)| {
                (ClaimId(claim), Outcome { coupon, user, sequence, is_issued })
            }));
    }
    Ok(outcomes)
}

/// Which of these claims are those of assignments.
pub async fn assigned(pool: &MySqlPool, claims: &HashSet<ClaimId>) -> Result<Vec<ClaimId>> {
    if claims.is_empty() {
        return Ok(Vec::new());
    }
    let mut query = QueryBuilder::new("SELECT /* audit assigned */ claim_id FROM assignment_users WHERE claim_id IN (");
    let mut ids = query.separated(", ");
    for claim in claims {
        ids.push_bind(claim.0);
    }
    query.push(")");
    let found: Vec<Uuid> =
        query.build_query_scalar().fetch_all(pool).await.context("reading the claims of assignments")?;
    Ok(found.into_iter().map(ClaimId).collect())
}

/// What a campaign's assignments say of their users.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromRow)]
pub struct Assigned {
    /// Users of all assignments.
    pub users: i64,
    /// Those without an outcome, though their assignment is done.
    pub without_outcome: i64,
    /// Those who are said to have the coupon and do not, or the other way round.
    pub wrong: i64,
    /// Users that assignments count, and that are not there.
    pub missing: i64,
}

/// Holds a campaign's assignments against its issuances.
pub async fn assignments(pool: &MySqlPool, coupon: CouponId) -> Result<Assigned> {
    let assigned = sqlx::query_as(
        "SELECT /* audit assignments */ COUNT(*) AS users, \
             COUNT(CASE WHEN a.status = 'DONE' AND u.outcome IS NULL THEN 1 END) AS without_outcome, \
             COUNT(CASE WHEN u.outcome IS NOT NULL AND (u.outcome = 'ISSUED') <> (c.user_coupon_id IS NOT NULL) \
                 THEN 1 END) AS wrong, \
             CAST((SELECT COALESCE(SUM(requested), 0) FROM assignments WHERE coupon_id = ?) AS SIGNED) - COUNT(*) AS missing \
         FROM assignments a JOIN assignment_users u ON u.assignment_id = a.assignment_id \
         LEFT JOIN user_coupons c ON c.user_coupon_id = u.claim_id AND c.coupon_id = a.coupon_id AND c.user_id = u.user_id \
         WHERE a.coupon_id = ?",
    );
    assigned.bind(coupon.get()).bind(coupon.get()).fetch_one(pool).await.context("reading assignments")
}

/// An issuance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Issued {
    /// Whose.
    pub user: UserId,
    /// First, second, .. of this user.
    pub ordinal: u16,
    /// The claim that it answers.
    pub record: ClaimRecord,
}

/// The next issuances of a campaign, by user, from the one after `after` on.
pub async fn issuances(pool: &MySqlPool, coupon: CouponId, after: Option<Issued>) -> Result<Vec<Issued>> {
    let (user, ordinal) = after.map_or((0, 0), |last| (last.user.get(), last.ordinal));
    let rows: Vec<(Uuid, u64, u16, u32, Timestamp)> = sqlx::query_as(
        "SELECT /* audit issuances */ user_coupon_id, user_id, ordinal, sequence, accepted_at FROM user_coupons \
         WHERE coupon_id = ? AND user_id >= ? AND (user_id > ? OR ordinal > ?) ORDER BY user_id, ordinal LIMIT ?",
    )
    .bind(coupon.get())
    .bind(user)
    .bind(user)
    .bind(ordinal)
    .bind(STEP as u64)
    .fetch_all(pool)
    .await
    .context("reading issuances")?;
    let issued = rows.into_iter().map(|(claim, user, ordinal, sequence, accepted_at)| {
        let user = UserId::try_from(user).map_err(anyhow::Error::msg)?;
        Ok(Issued { user, ordinal, record: ClaimRecord { claim_id: ClaimId(claim), sequence, accepted_at } })
    });
    issued.collect()
}

/// Ids of the campaigns, from the one after `after` on; at most `limit`.
pub async fn coupon_ids(pool: &MySqlPool, after: u64, limit: u32) -> Result<Vec<u64>> {
    let ids = sqlx::query_scalar(
        "SELECT /* audit coupon_ids */ coupon_id FROM coupons WHERE coupon_id > ? ORDER BY coupon_id LIMIT ?",
    );
    ids.bind(after).bind(limit).fetch_all(pool).await.context("reading the ids of campaigns")
}
