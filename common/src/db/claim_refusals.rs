//! The table `claim_refusals`: claim requests of Kafka that Redis refused. No HTTP caller received the reason, so the
//! claim status is read from here.

use std::collections::HashSet;

use sqlx::MySqlPool;
use uuid::Uuid;

use super::{
    decode::{json_rows, parse},
    issuances::UserClaim,
    retention::delete_older,
};
use crate::{
    clock::Timestamp,
    domain::claim::{ClaimOutcome, ClaimRecord, ClaimRejectReason},
    identifiers::{ClaimId, CouponId, UserId},
};

/// A claim that was never accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClaimRefusal {
    pub claim: ClaimId,
    pub coupon: CouponId,
    pub user: UserId,
    pub code: ClaimRejectReason,
}

/// Those of `claims` that have an outcome: issued, rejected after acceptance, or refused.
pub async fn list_decided(pool: &MySqlPool, claims: &[ClaimId]) -> Result<HashSet<ClaimId>, sqlx::Error> {
    let ids: Vec<String> = claims.iter().map(|claim| claim.0.simple().to_string()).collect();
    let ids = json_rows(&ids)?;
    let mut decided = HashSet::new();
    for (table, key) in
        [("user_coupons", "user_coupon_id"), ("claim_rejections", "claim_id"), ("claim_refusals", "claim_id")]
    {
        // STRAIGHT_JOIN: the ids first, each then a lookup by primary key.
        let sql = format!(
            "SELECT /* claim_refusals::list_decided */ t.{key} \
             FROM JSON_TABLE(?, '$[*]' COLUMNS(claim_id CHAR(32) PATH '$')) AS claims \
             STRAIGHT_JOIN {table} t ON t.{key} = UNHEX(claims.claim_id)"
        );
        let found: Vec<Uuid> = sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).bind(&ids).fetch_all(pool).await?;
        decided.extend(found.into_iter().map(ClaimId));
    }
    Ok(decided)
}

/// Inserts refusals. An existing row stays unchanged.
pub async fn insert_batch(pool: &MySqlPool, requests: &[ClaimRefusal], now: Timestamp) -> Result<(), sqlx::Error> {
    if requests.is_empty() {
        return Ok(());
    }
    let row = |ClaimRefusal { claim, coupon, user, code }: &ClaimRefusal| {
        (claim.0.simple().to_string(), coupon.get(), user.get(), code.into_str())
    };
    let rows: Vec<_> = requests.iter().map(row).collect();
    sqlx::query(
        "INSERT INTO claim_refusals /* claim_refusals::insert_batch */ (claim_id, coupon_id, user_id, code, refused_at) \
         SELECT UNHEX(r.claim_id), r.coupon_id, r.user_id, r.code, ? \
         FROM JSON_TABLE(?, '$[*]' COLUMNS(claim_id CHAR(32) PATH '$[0]', coupon_id BIGINT UNSIGNED PATH '$[1]', \
             user_id BIGINT UNSIGNED PATH '$[2]', code VARCHAR(40) PATH '$[3]')) AS r \
         ON DUPLICATE KEY UPDATE claim_id = claim_refusals.claim_id",
    )
    .bind(now)
    .bind(json_rows(&rows)?)
    .execute(pool)
    .await
    .map(drop)
}

/// Deletes at most `limit` rows that were inserted before `before`. Returns their number.
pub async fn purge(pool: &MySqlPool, before: Timestamp, limit: u32) -> Result<u64, sqlx::Error> {
    let sql = "DELETE FROM claim_refusals /* claim_refusals::purge */ WHERE refused_at < ? ORDER BY refused_at LIMIT ?";
    delete_older(pool, sql, before, limit).await
}

/// The latest refusal of a user for a campaign. Its sequence is 0, as it was never accepted.
pub async fn find_latest(pool: &MySqlPool, coupon: CouponId, user: UserId) -> Result<Option<UserClaim>, sqlx::Error> {
    let row: Option<(Uuid, String, Timestamp)> = sqlx::query_as(
        "SELECT /* claim_refusals::find_latest */ claim_id, code, refused_at FROM claim_refusals \
         WHERE coupon_id = ? AND user_id = ? ORDER BY refused_at DESC LIMIT 1",
    )
    .bind(coupon.get())
    .bind(user.get())
    .fetch_optional(pool)
    .await?;
    let Some((id, code, refused_at)) = row else { return Ok(None) };
    let record = ClaimRecord { claim_id: ClaimId(id), sequence: 0, accepted_at: refused_at };
    Ok(Some(UserClaim { record, outcome: ClaimOutcome::Rejected(parse("claim_refusals.code", &code)?) }))
}
