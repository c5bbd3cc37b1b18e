//! The table `user_coupons`, as its owners see it.

use sqlx::{MySqlConnection, MySqlPool};
use uuid::Uuid;

use super::{
    decode::{identifier, parse},
    statements::{self, Statements},
};
use crate::{
    clock::{LAST_MILLISECOND, Timestamp, from_millis},
    domain::{
        campaign::Discount,
        owned_coupon::{OwnedCoupon, OwnedStatus},
    },
    identifiers::{ClaimId, CouponId, UserId},
};

#[derive(sqlx::FromRow)]
struct OwnedRow {
    user_coupon_id: Uuid,
    coupon_id: u64,
    name: String,
    discount_type: String,
    discount_value: i64,
    discount_max_amount: Option<i64>,
    status: String,
    issued_at: Timestamp,
    valid_until: Timestamp,
    used_at: Option<Timestamp>,
}

/// The columns of an [`OwnedRow`], of `user_coupons` as u and `coupons` as c.
const COLUMNS: &str = "u.user_coupon_id, u.coupon_id, c.name, u.discount_type, u.discount_value, u.discount_max_amount, \
    u.status, u.issued_at, u.valid_until, u.used_at";

impl OwnedRow {
    fn into_owned_coupon(self, now: Timestamp) -> Result<OwnedCoupon, sqlx::Error> {
        // The job marks coupons some time after their end, so the time decides and not the column alone.
        let status = match self.status.as_str() {
            "ISSUED" if self.valid_until > now => OwnedStatus::Usable,
            "ISSUED" | "EXPIRED" => OwnedStatus::Expired,
            "USED" => OwnedStatus::Used,
            "REVOKED" => OwnedStatus::Revoked,
            _ => {
                return Err(sqlx::Error::Decode(
                    format!("user_coupons.status: unknown value '{}'", self.status).into(),
                ));
            }
        };
        Ok(OwnedCoupon {
            discount: Discount {
                kind: parse("user_coupons.discount_type", &self.discount_type)?,
                value: self.discount_value,
                max_amount: self.discount_max_amount,
            },
            user_coupon_id: ClaimId(self.user_coupon_id),
            coupon_id: identifier(self.coupon_id)?,
            name: self.name,
            status,
            issued_at: self.issued_at,
            valid_until: self.valid_until,
            used_at: self.used_at,
        })
    }
}

/// Which of a user's coupons to list.
#[derive(Clone, Copy, Debug)]
pub struct OwnedCouponsFilter {
    pub user: UserId,
    /// Only coupons of this status.
    pub status: Option<OwnedStatus>,
    /// Only coupons that were issued before this one.
    pub before: Option<ClaimId>,
    pub limit: u32,
}

/// A page of a user's coupons, newest first.
pub async fn list(
    pool: &MySqlPool,
    wanted: OwnedCouponsFilter,
    now: Timestamp,
) -> Result<Vec<OwnedCoupon>, sqlx::Error> {
    let status = match wanted.status {
        None => "",
        Some(OwnedStatus::Usable) => "AND u.status = 'ISSUED' AND u.valid_until > ?",
        Some(OwnedStatus::Expired) => "AND (u.status = 'EXPIRED' OR (u.status = 'ISSUED' AND u.valid_until <= ?))",
        Some(OwnedStatus::Used) => "AND u.status = 'USED'",
        Some(OwnedStatus::Revoked) => "AND u.status = 'REVOKED'",
    };
    // Not by id alone: the id of a claim that came by Kafka may follow from a request id, and then says nothing of its
    // time.
    let (issued_at, id) = match wanted.before {
        None => (from_millis(LAST_MILLISECOND), Uuid::max()),
        Some(before) => (find_issued_at(pool, before).await?.unwrap_or(Timestamp::UNIX_EPOCH), before.0),
    };
    let sql = format!(
        "SELECT /* owned_coupons::list */ {COLUMNS} FROM user_coupons u JOIN coupons c ON c.coupon_id = u.coupon_id \
         WHERE u.user_id = ? AND u.issued_at <= ? AND (u.issued_at < ? OR u.user_coupon_id < ?) {status} \
         ORDER BY u.issued_at DESC, u.user_coupon_id DESC LIMIT ?"
    );
    let mut query = sqlx::query_as::<_, OwnedRow>(sqlx::AssertSqlSafe(sql))
        .bind(wanted.user.get())
        // Without a time zone: with one MariaDB takes it for a TIMESTAMP, which ends in 2038.
        .bind(issued_at.naive_utc())
        .bind(issued_at.naive_utc())
        .bind(id);
    if matches!(wanted.status, Some(OwnedStatus::Usable | OwnedStatus::Expired)) {
        query = query.bind(now);
    }
    let rows = query.bind(wanted.limit).fetch_all(pool).await?;
    rows.into_iter().map(|row| row.into_owned_coupon(now)).collect()
}

async fn find_issued_at(pool: &MySqlPool, coupon: ClaimId) -> Result<Option<Timestamp>, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT /* owned_coupons::find_issued_at */ issued_at FROM user_coupons WHERE user_coupon_id = ?",
    )
    .bind(coupon.0)
    .fetch_optional(pool)
    .await
}

/// The campaign of a user's coupon; none when the user has no such coupon.
pub async fn find_campaign(
    connection: &mut MySqlConnection,
    user: UserId,
    coupon: ClaimId,
) -> Result<Option<CouponId>, sqlx::Error> {
    let sql = "SELECT /* owned_coupons::find_campaign */ coupon_id FROM user_coupons \
        WHERE user_coupon_id = ? AND user_id = ?";
    let campaign: Option<u64> =
        sqlx::query_scalar(sql).bind(coupon.0).bind(user.get()).fetch_optional(connection).await?;
    campaign.map(identifier).transpose()
}

/// Locks a coupon and its campaign, and reads the coupon.
pub async fn lock(
    connection: &mut MySqlConnection,
    coupon: ClaimId,
    now: Timestamp,
) -> Result<Option<OwnedCoupon>, sqlx::Error> {
    let sql = format!(
        "SELECT /* owned_coupons::lock */ {COLUMNS} FROM user_coupons u JOIN coupons c ON c.coupon_id = u.coupon_id \
         WHERE u.user_coupon_id = ? FOR UPDATE"
    );
    let row: Option<OwnedRow> =
        sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(coupon.0).fetch_optional(connection).await?;
    row.map(|row| row.into_owned_coupon(now)).transpose()
}

/// Revokes a coupon that the caller has locked, and counts it in its campaign.
pub fn revoke(statements: &mut Statements, campaign: CouponId, coupon: ClaimId) {
    let id = statements::id(coupon.0);
    statements.push(&format!(
        "UPDATE user_coupons /* owned_coupons::revoke */ SET status = 'REVOKED' WHERE user_coupon_id = {id}"
    ));
    statements.push(&format!(
        "UPDATE coupons /* owned_coupons::revoke */ SET revoked_quantity = revoked_quantity + 1 WHERE coupon_id = {campaign}"
    ));
}
