//! Marking the coupons as expired whose validity is over.
//!
//! Each campaign has a position in the order of validity, and of claims where coupons end together. No coupon up to it is
//! left to be marked. Expiring takes the next ones and moves the position on; issuing coupons that lie before it moves it
//! back. Both hold the lock of the campaign.

use chrono::{NaiveDateTime, SubsecRound as _, TimeDelta};
use sqlx::{FromRow as _, MySqlConnection};
use uuid::Uuid;

use super::{
    Database,
    decode::identifier,
    statements::{self, Statements, moment},
};
use crate::{
    clock::Timestamp,
    domain::{
        claim::{CouponExpired, IssuedPosition},
        event::Event,
    },
    identifiers::ClaimId,
};

/// Takes at most `limit` coupons of a campaign whose validity ended by `moment`, and marks those of them that are issued
/// as expired, with an event each. Returns how many it marked; none when no campaign has such a coupon that no other
/// session has locked. Run it inside [`super::retrying`].
pub async fn expire(
    database: &Database,
    moment: Timestamp,
    limit: u32,
    now: Timestamp,
) -> Result<Option<u64>, sqlx::Error> {
    // To the millisecond, as positions are.
    let moment = moment.trunc_subsecs(3);
    // A plain read first: most runs find nothing, and then lock nothing.
    let sql = "SELECT /* coupon_expiry::expire */ coupon_id FROM coupons \
        WHERE expired_until <= ? AND (expired_until < ? OR expired_claim < ?) LIMIT 100";
    let campaigns: Vec<u64> =
        sqlx::query_scalar(sql).bind(moment).bind(moment).bind(Uuid::max()).fetch_all(&database.pool()).await?;
    for campaign in campaigns {
        let mut transaction = database.begin().await?;
        let mut statements = Statements::new(database.statement_bytes());
        if let Some(expired) = expire_of(&mut transaction, &mut statements, campaign, (moment, limit), now).await? {
            statements.send(&mut transaction).await?;
            transaction.commit().await?;
            return Ok(Some(expired));
        }
        // Not by dropping it, which frees its locks a moment later: the next look would find the campaign locked.
        transaction.rollback().await?;
    }
    Ok(None)
}

/// Takes the next coupons of one campaign; none when another session has locked it or one of them. Then the next run finds
/// the same ones.
async fn expire_of(
    connection: &mut MySqlConnection,
    statements: &mut Statements,
    campaign: u64,
    (moment, limit): (Timestamp, u32),
    now: Timestamp,
) -> Result<Option<u64>, sqlx::Error> {
    let sql = "SELECT /* coupon_expiry::expire_of */ expired_until, expired_claim, valid_until FROM coupons \
        WHERE coupon_id = ? FOR UPDATE SKIP LOCKED";
    // Coupons are issued under this lock, too: the reads below find all of them.
    let position: Option<(NaiveDateTime, Uuid, Option<NaiveDateTime>)> =
        sqlx::query_as(sql).bind(campaign).fetch_optional(&mut *connection).await?;
    let Some((until, claim, terms_end)) = position else { return Ok(None) };
    let ended: Vec<(Uuid, NaiveDateTime)> = sqlx::query_as(
        "SELECT /* coupon_expiry::expire_of */ user_coupon_id, valid_until FROM user_coupons FORCE INDEX (by_validity) \
         WHERE coupon_id = ? AND ((valid_until > ? AND valid_until <= ?) OR (valid_until = ? AND user_coupon_id > ?)) \
         ORDER BY valid_until, user_coupon_id LIMIT ?",
    )
    .bind(campaign)
    .bind(until)
    .bind(moment)
    .bind(until)
    .bind(claim)
    .bind(limit)
    .fetch_all(&mut *connection)
    .await?;
    let reached = match ended.last() {
        Some((claim, until)) if ended.len() == limit as usize => (*until, *claim),
        _ => (before_next(connection, (campaign, terms_end), moment).await?, Uuid::max()),
    };
    let Some(expired) = mark_expired(connection, statements, ended, now).await? else { return Ok(None) };
    statements.push(&format!(
        "UPDATE coupons /* coupon_expiry::expire_of */ SET expired_until = '{}', expired_claim = {} WHERE coupon_id = {campaign}",
        reached.0.format("%Y-%m-%d %H:%M:%S%.3f"),
        statements::id(reached.1),
    ));
    Ok(Some(expired))
}

/// How far ahead a position lies at most. It has a bound because workers of earlier versions, which issue coupons as well,
/// do not move it back.
const LOOK_AGAIN_AFTER: TimeDelta = TimeDelta::days(1);

/// The millisecond before the first end of validity after `moment`: of a coupon, or of those that are issued by the terms.
async fn before_next(
    connection: &mut MySqlConnection,
    (campaign, terms_end): (u64, Option<NaiveDateTime>),
    moment: Timestamp,
) -> Result<NaiveDateTime, sqlx::Error> {
    let next: Option<NaiveDateTime> = sqlx::query_scalar(
        "SELECT /* coupon_expiry::before_next */ valid_until FROM user_coupons FORCE INDEX (by_validity) \
         WHERE coupon_id = ? AND valid_until > ? ORDER BY valid_until LIMIT 1",
    )
    .bind(campaign)
    .bind(moment)
    .fetch_optional(connection)
    .await?;
    let terms_end = terms_end.filter(|end| *end > moment.naive_utc());
    let before = next.into_iter().chain(terms_end).map(|end| end - TimeDelta::milliseconds(1));
    let latest = (moment + LOOK_AGAIN_AFTER).naive_utc();
    Ok(before.fold(latest, NaiveDateTime::min))
}

/// The part of an UPDATE of a campaign that has coupons looked at from `first` on, if the position lies behind it.
pub(super) fn position_before(first: IssuedPosition) -> String {
    let (end, claim) =
        (moment(first.valid_until), statements::id(Uuid::from_u128(first.claim.0.as_u128().saturating_sub(1))));
    // The claim first: an assignment sees those before it.
    format!(
        "expired_claim = IF(expired_until < {end}, expired_claim, \
         IF(expired_until > {end}, {claim}, LEAST(expired_claim, {claim}))), \
         expired_until = LEAST(expired_until, {end}), "
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
        "SELECT /* coupon_expiry::mark_expired */ user_coupon_id, coupon_id, user_id, status FROM user_coupons \
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
    let head = "UPDATE user_coupons /* coupon_expiry::mark_expired */ SET status = 'EXPIRED' WHERE user_coupon_id IN (";
    statements.push_rows(head, ")", &expired, |sql, coupon| sql.push_str(&statements::id(coupon.user_coupon_id.0)));
    statements.push_events(&events, now);
    Ok(Some(expired.len() as u64))
}
