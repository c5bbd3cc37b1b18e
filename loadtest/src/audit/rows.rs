//! A campaign in MySQL: counts by aggregates, rows in batches.

use std::collections::{HashMap, HashSet};

use anyhow::{Context as _, Result};
use dibs_common::{
    clock::Timestamp,
    domain::claim::ClaimRecord,
    identifiers::{ClaimId, CouponId, UserId},
};
use sqlx::{FromRow, MySqlPool, QueryBuilder};
use uuid::Uuid;

use super::BATCH_SIZE;

#[derive(Clone, Copy, Debug, PartialEq, Eq, FromRow)]
pub struct Totals {
    pub issued: u64,
    /// Of those, the ones that are revoked.
    pub revoked: u64,
    pub users: u64,
    /// Different sequence numbers.
    pub sequences: u64,
    /// The highest sequence number.
    pub highest: u32,
    /// Rejected claims.
    pub rejected: u64,
    /// Claims both issued and rejected.
    pub contradictory: u64,
}

pub async fn totals(pool: &MySqlPool, coupon: CouponId) -> Result<Totals> {
    // One statement, so that issuances and rejections are of the same snapshot. MySQL and MariaDB differ in the types
    // of aggregates, hence the casts.
    let totals = sqlx::query_as(
        "SELECT /* audit totals */ CAST(i.issued AS UNSIGNED) AS issued, CAST(i.revoked AS UNSIGNED) AS revoked, \
             CAST(i.users AS UNSIGNED) AS users, \
             CAST(i.sequences AS UNSIGNED) AS sequences, CAST(i.highest AS UNSIGNED) AS highest, \
             CAST(r.rejected AS UNSIGNED) AS rejected, CAST(r.contradictory AS UNSIGNED) AS contradictory \
         FROM (SELECT COUNT(*) AS issued, COUNT(CASE WHEN status = 'REVOKED' THEN 1 END) AS revoked, \
                 COUNT(DISTINCT user_id) AS users, COUNT(DISTINCT sequence) AS sequences, \
                 COALESCE(MAX(sequence), 0) AS highest FROM user_coupons WHERE coupon_id = ?) AS i \
         CROSS JOIN (SELECT COUNT(*) AS rejected, COUNT(u.user_coupon_id) AS contradictory FROM claim_rejections c \
                 LEFT JOIN user_coupons u ON u.user_coupon_id = c.claim_id WHERE c.coupon_id = ?) AS r",
    );
    totals.bind(coupon.get()).bind(coupon.get()).fetch_one(pool).await.context("counting issuances")
}

/// Users who hold more than `limit` coupons of a campaign, and how many; at most 100 users.
pub async fn users_above(pool: &MySqlPool, coupon: CouponId, limit: u16) -> Result<Vec<(u64, i64)>> {
    let users = sqlx::query_as(
        "SELECT /* audit users_above */ user_id, COUNT(*) FROM user_coupons WHERE coupon_id = ? \
         GROUP BY user_id HAVING COUNT(*) > ? LIMIT 100",
    );
    users.bind(coupon.get()).bind(limit).fetch_all(pool).await.context("counting coupons of users")
}

/// The outcome of a claim: an issuance or a rejection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClaimOutcomeRow {
    pub coupon: u64,
    pub user: u64,
    pub sequence: u32,
    pub is_issued: bool,
}

/// The outcomes of claims. A claim that is both issued and rejected counts as rejected.
pub async fn outcomes(pool: &MySqlPool, claims: &[ClaimId]) -> Result<HashMap<ClaimId, ClaimOutcomeRow>> {
    let mut outcomes = HashMap::with_capacity(claims.len());
    if claims.is_empty() {
        return Ok(outcomes);
    }
    let issued = "SELECT /* audit outcomes */ user_coupon_id, coupon_id, user_id, sequence FROM user_coupons \
        WHERE user_coupon_id IN (";
    let rejected = "SELECT /* audit outcomes */ claim_id, coupon_id, user_id, sequence FROM claim_rejections \
        WHERE claim_id IN (";
    // Rejections come last, so that they overwrite an issuance of the same claim: that is a difference.
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
        outcomes.extend(found.map(|(claim, coupon, user, sequence)| {
            (ClaimId(claim), ClaimOutcomeRow { coupon, user, sequence, is_issued })
        }));
    }
    Ok(outcomes)
}

/// Those of the claims that assignments created.
pub async fn assigned(pool: &MySqlPool, claims: &HashSet<ClaimId>) -> Result<Vec<ClaimId>> {
    if claims.is_empty() {
        return Ok(Vec::new());
    }
    // A list without an effect gives no coupon.
    let mut query = QueryBuilder::new(
        "SELECT /* audit assigned */ u.claim_id FROM assignment_users u JOIN assignments a \
         ON a.assignment_id = u.assignment_id AND a.status IN ('PENDING', 'DONE') WHERE u.claim_id IN (",
    );
    let mut ids = query.separated(", ");
    for claim in claims {
        ids.push_bind(claim.0);
    }
    query.push(")");
    let found: Vec<Uuid> =
        query.build_query_scalar().fetch_all(pool).await.context("reading the claims of assignments")?;
    Ok(found.into_iter().map(ClaimId).collect())
}

/// Differences between a campaign's assignments and its issuances.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromRow)]
pub struct AssignmentTotals {
    /// Users of all assignments.
    pub users: i64,
    /// Users of finished assignments without an outcome.
    pub without_outcome: i64,
    /// Users whose outcome does not match the issuances.
    pub wrong: i64,
    /// Users that assignments count and that have no row.
    pub missing: i64,
    /// Outcomes that finished assignments count and that they do not have.
    pub miscounted: i64,
}

/// Compares a campaign's assignments with its issuances.
pub async fn assignments(pool: &MySqlPool, coupon: CouponId) -> Result<AssignmentTotals> {
    let assigned = sqlx::query_as(
        "SELECT /* audit assignments */ COUNT(*) AS users, \
             COUNT(CASE WHEN a.status = 'DONE' AND u.outcome IS NULL THEN 1 END) AS without_outcome, \
             COUNT(CASE WHEN u.outcome IS NOT NULL AND (u.outcome = 'ISSUED') <> (c.user_coupon_id IS NOT NULL) \
                 THEN 1 END) AS wrong, \
             CAST((SELECT COALESCE(SUM(requested), 0) FROM assignments WHERE coupon_id = ? \
                 AND status IN ('PENDING', 'DONE')) AS SIGNED) - COUNT(*) AS missing, \
             CAST((SELECT COALESCE(SUM(o.users), 0) FROM assignments d JOIN assignment_outcomes o \
                 ON o.assignment_id = d.assignment_id WHERE d.coupon_id = ? AND d.status = 'DONE') AS SIGNED) \
                 - COUNT(CASE WHEN a.status = 'DONE' THEN u.outcome END) AS miscounted \
         FROM assignments a JOIN assignment_users u ON u.assignment_id = a.assignment_id \
         LEFT JOIN user_coupons c ON c.user_coupon_id = u.claim_id AND c.coupon_id = a.coupon_id AND c.user_id = u.user_id \
         WHERE a.coupon_id = ? AND a.status IN ('PENDING', 'DONE')",
    );
    assigned
        .bind(coupon.get())
        .bind(coupon.get())
        .bind(coupon.get())
        .fetch_one(pool)
        .await
        .context("reading assignments")
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Issued {
    pub user: UserId,
    pub valid_until: Timestamp,
    /// Its claim.
    pub record: ClaimRecord,
}

/// The next batch of issuances after `after`, by the end of their validity.
pub async fn issuances(pool: &MySqlPool, coupon: CouponId, after: Option<Issued>) -> Result<Vec<Issued>> {
    // Keyset pagination along an index of the table: OFFSET would read all rows before it again.
    let (valid_until, claim) =
        after.map_or((Timestamp::UNIX_EPOCH, Uuid::nil()), |last| (last.valid_until, last.record.claim_id.0));
    let rows: Vec<(Uuid, u64, Timestamp, u32, Timestamp)> = sqlx::query_as(
        "SELECT /* audit issuances */ user_coupon_id, user_id, valid_until, sequence, accepted_at \
         FROM user_coupons FORCE INDEX (by_validity) \
         WHERE coupon_id = ? AND (valid_until > ? OR (valid_until = ? AND user_coupon_id > ?)) \
         ORDER BY valid_until, user_coupon_id LIMIT ?",
    )
    .bind(coupon.get())
    .bind(valid_until.naive_utc())
    .bind(valid_until.naive_utc())
    .bind(claim)
    .bind(BATCH_SIZE as u64)
    .fetch_all(pool)
    .await
    .context("reading issuances")?;
    let issued = rows.into_iter().map(|(claim, user, valid_until, sequence, accepted_at)| {
        let user = UserId::try_from(user).map_err(anyhow::Error::msg)?;
        Ok(Issued { user, valid_until, record: ClaimRecord { claim_id: ClaimId(claim), sequence, accepted_at } })
    });
    issued.collect()
}

/// At most `limit` ids of campaigns after `after`.
pub async fn coupon_ids(pool: &MySqlPool, after: u64, limit: u32) -> Result<Vec<u64>> {
    let ids = sqlx::query_scalar(
        "SELECT /* audit coupon_ids */ coupon_id FROM coupons WHERE coupon_id > ? ORDER BY coupon_id LIMIT ?",
    );
    ids.bind(after).bind(limit).fetch_all(pool).await.context("reading the ids of campaigns")
}

#[cfg(test)]
mod tests {
    use dibs_common::testing::TestEnvironment;

    use super::*;

    fn claim(number: u128) -> ClaimId {
        ClaimId(Uuid::from_u128(number))
    }

    /// Issues coupons with the numbers 1, 2, .. to these users, in the order of acceptance.
    async fn issue(environment: &TestEnvironment, coupon: CouponId, users: &[u64]) {
        for (user, number) in users.iter().zip(1_u16..) {
            let ordinal = users[..usize::from(number)].iter().filter(|other| *other == user).count();
            environment
                .execute(&format!(
                    "INSERT INTO user_coupons (user_coupon_id, coupon_id, user_id, ordinal, per_user_limit, sequence, \
                     discount_type, discount_value, minimum_order_amount, accepted_at, issued_at, valid_until) \
                     VALUES (UNHEX(LPAD('{number}', 32, '0')), {coupon}, {user}, {ordinal}, 9, {number}, 'FIXED', 5000, 0, \
                     NOW(3), NOW(3), NOW(3) + INTERVAL 1 DAY)"
                ))
                .await;
        }
    }

    async fn reject(environment: &TestEnvironment, coupon: CouponId, number: u16) {
        environment
            .execute(&format!(
                "INSERT INTO claim_rejections (claim_id, coupon_id, user_id, sequence, code, accepted_at, rejected_at) \
                 VALUES (UNHEX(LPAD('{number}', 32, '0')), {coupon}, 7, {number}, 'COUPON_EXHAUSTED', NOW(3), NOW(3))"
            ))
            .await;
    }

    #[tokio::test]
    async fn totals_count_issuances_users_and_rejections() {
        let environment = TestEnvironment::new().await;
        let (coupon, other) = (environment.campaign(10).await.id, environment.campaign(10).await.id);
        let pool = &environment.database.pool();
        let none = Totals { issued: 0, revoked: 0, users: 0, sequences: 0, highest: 0, rejected: 0, contradictory: 0 };
        assert_eq!(totals(pool, coupon).await.expect("totals"), none);
        issue(&environment, coupon, &[1, 2, 2]).await;
        environment.execute("UPDATE user_coupons SET status = 'REVOKED' WHERE user_id = 1").await;
        reject(&environment, coupon, 9).await;
        // A claim with both outcomes.
        reject(&environment, coupon, 3).await;
        let expected =
            Totals { issued: 3, revoked: 1, users: 2, sequences: 3, highest: 3, rejected: 2, contradictory: 1 };
        assert_eq!(totals(pool, coupon).await.expect("totals"), expected);
        assert_eq!(totals(pool, other).await.expect("totals"), none);
        environment.end().await;
    }

    #[tokio::test]
    async fn i2_users_above_the_limit_are_found_with_their_count() {
        let environment = TestEnvironment::new().await;
        let coupon = environment.campaign(10).await.id;
        issue(&environment, coupon, &[1, 2, 2, 3, 3, 3]).await;
        let above = async |limit| users_above(&environment.database.pool(), coupon, limit).await.expect("users");
        assert_eq!(above(3).await, []);
        assert_eq!(above(2).await, [(3, 3)]);
        let mut users = above(1).await;
        users.sort_unstable();
        assert_eq!(users, [(2, 2), (3, 3)]);
        environment.end().await;
    }

    #[tokio::test]
    async fn i3_an_outcome_is_an_issuance_or_a_rejection() {
        let environment = TestEnvironment::new().await;
        let coupon = environment.campaign(10).await.id;
        issue(&environment, coupon, &[4]).await;
        reject(&environment, coupon, 2).await;
        let pool = &environment.database.pool();
        let found = outcomes(pool, &[claim(1), claim(2), claim(3)]).await.expect("outcomes");
        let outcome = |user, sequence, is_issued| ClaimOutcomeRow { coupon: coupon.get(), user, sequence, is_issued };
        assert_eq!(found.get(&claim(1)), Some(&outcome(4, 1, true)));
        assert_eq!(found.get(&claim(2)), Some(&outcome(7, 2, false)));
        assert_eq!(found.get(&claim(3)), None);
        assert!(outcomes(pool, &[]).await.expect("outcomes").is_empty());
        assert!(assigned(pool, &HashSet::new()).await.expect("claims").is_empty());
        environment.end().await;
    }

    #[tokio::test]
    async fn batches_of_issuances_continue_among_those_that_end_together() {
        let environment = TestEnvironment::new().await;
        let coupon = environment.campaign(10).await.id;
        issue(&environment, coupon, &[2, 1, 2]).await;
        let pool = &environment.database.pool();
        let all = issuances(pool, coupon, None).await.expect("issuances");
        assert_eq!(all.iter().map(|issued| issued.user.get()).collect::<Vec<_>>(), [2, 1, 2]);
        assert_eq!(issuances(pool, coupon, Some(all[1])).await.expect("issuances"), all[2..]);
        assert_eq!(issuances(pool, coupon, Some(all[2])).await.expect("issuances"), []);
        environment.end().await;
    }

    #[tokio::test]
    async fn campaigns_are_listed_page_by_page() {
        let environment = TestEnvironment::new().await;
        let (one, other) = (environment.campaign(1).await.id.get(), environment.campaign(1).await.id.get());
        let page = async |after, limit| coupon_ids(&environment.database.pool(), after, limit).await.expect("ids");
        assert_eq!(page(0, 1).await, [one]);
        assert_eq!(page(one, 9).await, [other]);
        assert!(page(other, 9).await.is_empty());
        environment.end().await;
    }
}
