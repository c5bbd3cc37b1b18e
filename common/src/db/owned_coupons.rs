//! The table `user_coupons`, as its owners see it.

use chrono::{NaiveDateTime, TimeDelta};
use sqlx::{FromRow as _, MySqlConnection, MySqlPool};
use uuid::Uuid;

use super::{
    Database,
    decode::{identifier, parse},
    statements::{self, Statements, moment},
};
use crate::{
    clock::{LAST_MILLISECOND, Timestamp, from_millis},
    domain::{
        campaign::Discount,
        claim::CouponExpired,
        event::Event,
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

/// Takes at most `limit` coupons of a campaign whose validity ended by `moment`, and marks those of them that are issued
/// as expired, with an event each. Returns how many it marked; none when no campaign has such a coupon that no other
/// session has locked. Run it inside [`super::retrying`].
pub async fn expire(
    database: &Database,
    moment: Timestamp,
    limit: u32,
    now: Timestamp,
) -> Result<Option<u64>, sqlx::Error> {
    // A plain read first: most runs find nothing, and then lock nothing.
    let sql = "SELECT /* owned_coupons::expire */ coupon_id FROM coupons \
        WHERE expired_until <= ? AND (expired_until < ? OR expired_claim < ?) LIMIT 16";
    let campaigns: Vec<u64> =
        sqlx::query_scalar(sql).bind(moment).bind(moment).bind(Uuid::max()).fetch_all(&database.pool()).await?;
    for campaign in campaigns {
        if let Some(expired) = expire_of(database, campaign, (moment, limit), now).await? {
            return Ok(Some(expired));
        }
    }
    Ok(None)
}

/// Takes the next coupons of one campaign; none when another session has locked one.
async fn expire_of(
    database: &Database,
    campaign: u64,
    (moment, limit): (Timestamp, u32),
    now: Timestamp,
) -> Result<Option<u64>, sqlx::Error> {
    let mut transaction = database.begin().await?;
    let sql = "SELECT /* owned_coupons::expire_of */ expired_until, expired_claim FROM coupons WHERE coupon_id = ? FOR UPDATE";
    // Coupons are issued under this lock, too: the reads below find all of them.
    let (until, claim): (NaiveDateTime, Uuid) = sqlx::query_as(sql).bind(campaign).fetch_one(&mut *transaction).await?;
    let ended: Vec<(Uuid, NaiveDateTime)> = sqlx::query_as(
        "SELECT /* owned_coupons::expire_of */ user_coupon_id, valid_until FROM user_coupons FORCE INDEX (expiring) \
         WHERE coupon_id = ? AND ((valid_until > ? AND valid_until <= ?) OR (valid_until = ? AND user_coupon_id > ?)) \
         ORDER BY valid_until, user_coupon_id LIMIT ?",
    )
    .bind(campaign)
    .bind(until)
    .bind(moment)
    .bind(until)
    .bind(claim)
    .bind(limit)
    .fetch_all(&mut *transaction)
    .await?;
    let reached = match ended.last() {
        Some((claim, until)) if ended.len() == limit as usize => (*until, *claim),
        _ => (before_next(&mut transaction, campaign, moment).await?, Uuid::max()),
    };
    let mut statements = Statements::new(database.statement_bytes());
    let Some(expired) = mark_expired(&mut transaction, &mut statements, ended, now).await? else {
        // Nobody waits for a lock while claims of the campaign wait for this one. The next run finds the same coupons.
        return Ok(None);
    };
    statements.push(&format!(
        "UPDATE coupons /* owned_coupons::expire_of */ SET expired_until = '{}', expired_claim = {} WHERE coupon_id = {campaign}",
        reached.0.format("%Y-%m-%d %H:%M:%S%.3f"),
        statements::id(reached.1),
    ));
    statements.send(&mut transaction).await?;
    transaction.commit().await?;
    Ok(Some(expired))
}

/// How far a campaign needs no look before it is looked at again. It has a bound for the sake of workers of earlier
/// versions, which issue coupons and do not move the position back.
const LOOK_AGAIN_AFTER: TimeDelta = TimeDelta::days(1);

/// The millisecond before the first end of validity after `moment`.
async fn before_next(
    connection: &mut MySqlConnection,
    campaign: u64,
    moment: Timestamp,
) -> Result<NaiveDateTime, sqlx::Error> {
    let next: Option<NaiveDateTime> = sqlx::query_scalar(
        "SELECT /* owned_coupons::before_next */ valid_until FROM user_coupons FORCE INDEX (expiring) \
         WHERE coupon_id = ? AND valid_until > ? ORDER BY valid_until LIMIT 1",
    )
    .bind(campaign)
    .bind(moment)
    .fetch_optional(connection)
    .await?;
    let latest = (moment + LOOK_AGAIN_AFTER).naive_utc();
    Ok(next.map_or(latest, |next| latest.min(next - TimeDelta::milliseconds(1))))
}

/// The part of an UPDATE of a campaign that has coupons looked at which end at `valid_until` or later.
pub(super) fn position_before(valid_until: Timestamp) -> String {
    let before = moment(valid_until - TimeDelta::milliseconds(1));
    // The claim first: an assignment sees those before it.
    format!(
        "expired_claim = IF(expired_until > {before}, {}, expired_claim), expired_until = LEAST(expired_until, {before}), ",
        statements::id(Uuid::max())
    )
}

/// Marks those of the coupons that are issued, with an event each. Returns how many; none when one is locked.
async fn mark_expired(
    connection: &mut MySqlConnection,
    statements: &mut Statements,
    ended: Vec<(Uuid, NaiveDateTime)>,
    now: Timestamp,
) -> Result<Option<u64>, sqlx::Error> {
    if ended.is_empty() {
        return Ok(Some(0));
    }
    let count = ended.len();
    // Whatever their status: an order may give one back at this moment. SKIP LOCKED returns no row for such a one.
    let ids = statements::ids(ended.into_iter().map(|(id, _)| id));
    let sql = format!(
        "SELECT /* owned_coupons::mark_expired */ user_coupon_id, coupon_id, user_id, status FROM user_coupons \
         FORCE INDEX (PRIMARY) WHERE user_coupon_id IN ({ids}) FOR UPDATE SKIP LOCKED"
    );
    let rows = sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).fetch_all(&mut *connection).await?;
    if rows.len() < count {
        return Ok(None);
    }
    let mut expired = Vec::with_capacity(rows.len());
    for row in &rows {
        let (id, coupon, user, status) = <(Uuid, u64, u64, String)>::from_row(row)?;
        if status == "ISSUED" {
            expired.push(CouponExpired {
                user_coupon_id: ClaimId(id),
                coupon_id: identifier(coupon)?,
                user_id: identifier(user)?,
                expired_at: now,
            });
        }
    }
    let events: Vec<Event> = expired.iter().map(CouponExpired::event).collect();
    let head = "UPDATE user_coupons /* owned_coupons::mark_expired */ SET status = 'EXPIRED' WHERE user_coupon_id IN (";
    statements.push_rows(head, ")", &expired, |sql, coupon| sql.push_str(&statements::id(coupon.user_coupon_id.0)));
    statements.push_events(&events, now);
    Ok(Some(expired.len() as u64))
}
