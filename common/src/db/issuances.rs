//! The tables `user_coupons` (issuances) and `claim_rejections`.

use std::{collections::HashMap, fmt::Write as _};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sqlx::{MySqlConnection, MySqlPool};
use utoipa::ToSchema;
use uuid::Uuid;

use super::campaigns::discount_type;
use crate::{
    clock::Timestamp,
    domain::{
        campaign::{Campaign, Discount},
        claim::{Claim, ClaimRecord, Existing, Issuance, Outcome, Plan, Rejection},
    },
    identifiers::{ClaimId, CouponId, UserId},
};

/// As `DATETIME(3)` reads it.
const MOMENT: &str = "%Y-%m-%d %H:%M:%S%.3f";

fn moment(timestamp: Timestamp) -> String {
    timestamp.format(MOMENT).to_string()
}

fn hexadecimal(claim: ClaimId) -> String {
    claim.0.simple().to_string()
}

fn json(rows: &impl Serialize) -> Result<String, sqlx::Error> {
    serde_json::to_string(rows).map_err(|error| sqlx::Error::Encode(error.into()))
}

/// How many coupons the users of a batch hold, and which of its claims have their answer.
pub async fn existing(connection: &mut MySqlConnection, claims: &[Claim]) -> Result<Existing, sqlx::Error> {
    let mut existing = Existing::default();
    let holders: Vec<(u64, u64)> = claims.iter().map(|claim| (claim.coupon.get(), claim.user.get())).collect();
    let held: Vec<(Uuid, u64, u64, Timestamp)> = sqlx::query_as(
        "SELECT /* existing: what the users of a batch hold */ u.user_coupon_id, u.coupon_id, u.user_id, u.valid_until \
         FROM (SELECT DISTINCT coupon_id, user_id FROM JSON_TABLE(?, '$[*]' COLUMNS( \
             coupon_id BIGINT UNSIGNED PATH '$[0]', user_id BIGINT UNSIGNED PATH '$[1]')) AS h) AS holders \
         STRAIGHT_JOIN user_coupons u ON u.coupon_id = holders.coupon_id AND u.user_id = holders.user_id",
    )
    .bind(json(&holders)?)
    .fetch_all(&mut *connection)
    .await?;
    for (id, coupon, user, valid_until) in held {
        let holder = (identifier(coupon)?, identifier(user)?);
        *existing.held.entry(holder).or_default() += 1;
        existing.answered.insert(ClaimId(id), Outcome::Issued { valid_until });
    }
    existing.answered.extend(rejected(connection, claims).await?);
    Ok(existing)
}

/// Which claims were refused before, and why.
pub async fn rejected(
    connection: &mut MySqlConnection,
    claims: &[Claim],
) -> Result<HashMap<ClaimId, Outcome>, sqlx::Error> {
    let ids: Vec<String> = claims.iter().map(|claim| hexadecimal(claim.record.claim_id)).collect();
    let rejected: Vec<(Uuid, String)> = sqlx::query_as(
        "SELECT /* rejected */ r.claim_id, r.code \
         FROM JSON_TABLE(?, '$[*]' COLUMNS(claim_id CHAR(32) PATH '$')) AS claims \
         STRAIGHT_JOIN claim_rejections r ON r.claim_id = UNHEX(claims.claim_id)",
    )
    .bind(json(&ids)?)
    .fetch_all(connection)
    .await?;
    rejected.into_iter().map(|(id, code)| Ok((ClaimId(id), Outcome::Rejected(rejection(&code)?)))).collect()
}

pub(super) fn identifier<T: TryFrom<u64, Error = String>>(number: u64) -> Result<T, sqlx::Error> {
    T::try_from(number).map_err(|error| sqlx::Error::Decode(error.into()))
}

fn rejection(code: &str) -> Result<Rejection, sqlx::Error> {
    Rejection::from_code(code).ok_or_else(|| sqlx::Error::Decode(format!("unknown rejection '{code}'").into()))
}

/// Writes what was decided of a batch, under the locks of its campaigns, in statements of at most `statement_bytes`.
/// A claim that was issued before, unknown to the plan, breaks a key: see [`super::is_duplicate`].
pub async fn write(
    connection: &mut MySqlConnection,
    (campaigns, claims): (&[Campaign], &[Claim]),
    plan: &Plan,
    now: Timestamp,
    statement_bytes: usize,
) -> Result<(), sqlx::Error> {
    insert_rejections(connection, claims, plan, now).await?;
    let mut rest = plan.issuances.as_slice();
    while !rest.is_empty() {
        let mut sql = insert_issuances(campaigns, &mut rest, now, statement_bytes)?;
        if rest.is_empty() {
            sql.push(';');
            sql.push_str(&raise_counts(claims, plan)?);
        }
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut *connection).await?;
    }
    if plan.issuances.is_empty() && !plan.rejections.is_empty() {
        sqlx::raw_sql(sqlx::AssertSqlSafe(raise_counts(claims, plan)?)).execute(connection).await?;
    }
    Ok(())
}

/// Statements that raise the counts of the campaigns, to be sent behind the last insert: one round trip less.
fn raise_counts(claims: &[Claim], plan: &Plan) -> Result<String, sqlx::Error> {
    let mut counts: HashMap<CouponId, (u32, u32)> = HashMap::new();
    for issuance in &plan.issuances {
        counts.entry(issuance.coupon).or_default().0 += 1;
    }
    for (place, _) in &plan.rejections {
        counts.entry(claims[*place].coupon).or_default().1 += 1;
    }
    let mut sql = String::new();
    for (coupon, (issued, rejected)) in counts {
        write!(
            sql,
            "UPDATE coupons /* write */ SET issued_quantity = issued_quantity + {issued}, \
             rejected_quantity = rejected_quantity + {rejected} WHERE coupon_id = {coupon};",
        )
        .map_err(|error| sqlx::Error::Encode(error.into()))?;
    }
    Ok(sql)
}

/// A statement that inserts as many of the rows as it may carry, and leaves the others in `rest`.
///
/// Values are written out rather than bound, as servers parse a statement of thousands of places anew each time; each
/// is a number, an id in hexadecimal or a time, so there is nothing to escape.
fn insert_issuances(
    campaigns: &[Campaign],
    rest: &mut &[Issuance],
    now: Timestamp,
    statement_bytes: usize,
) -> Result<String, sqlx::Error> {
    const LONGEST_ROW: usize = 250;
    let mut sql = String::with_capacity(statement_bytes.min(500 + rest.len() * LONGEST_ROW));
    sql.push_str(
        "INSERT INTO user_coupons /* write: terms are copied from the locked campaign */ (user_coupon_id, coupon_id, \
         user_id, ordinal, per_user_limit, sequence, discount_type, discount_value, discount_max_amount, \
         minimum_order_amount, accepted_at, issued_at, valid_until) VALUES ",
    );
    let issued_at = moment(now);
    let (mut accepted_at, mut valid_until) = (Written::default(), Written::default());
    let mut separator = "";
    while let Some((issuance, others)) = rest.split_first()
        && sql.len() + LONGEST_ROW < statement_bytes
    {
        let Issuance { coupon, user, record, ordinal, .. } = issuance;
        let campaign = campaigns.iter().find(|campaign| campaign.id == *coupon);
        let terms =
            &campaign.ok_or_else(|| sqlx::Error::Encode(format!("coupon {coupon} is not locked").into()))?.terms;
        let Discount { kind, value, max_amount } = terms.discount;
        let (kind, limit, minimum) = (kind.as_str(), terms.per_user_limit, terms.minimum_order_amount);
        let (claim, sequence) = (record.claim_id.0.simple(), record.sequence);
        let max_amount = max_amount.map_or_else(|| "NULL".to_owned(), |amount| amount.to_string());
        let (accepted_at, valid_until) =
            (accepted_at.as_text(record.accepted_at), valid_until.as_text(issuance.valid_until));
        write!(
            sql,
            "{separator}(x'{claim}',{coupon},{user},{ordinal},{limit},{sequence},'{kind}',{value},{max_amount},{minimum},\
             '{accepted_at}','{issued_at}','{valid_until}')",
        )
        .map_err(|error| sqlx::Error::Encode(error.into()))?;
        separator = ",";
        *rest = others;
    }
    Ok(sql)
}

/// The last moment that was written out: rows of a batch share most of theirs.
#[derive(Default)]
struct Written(Option<(Timestamp, String)>);

impl Written {
    fn as_text(&mut self, timestamp: Timestamp) -> &str {
        match &mut self.0 {
            Some((last, _)) if *last == timestamp => {}
            other => *other = Some((timestamp, moment(timestamp))),
        }
        self.0.as_ref().map_or("", |(_, text)| text)
    }
}

async fn insert_rejections(
    connection: &mut MySqlConnection,
    claims: &[Claim],
    plan: &Plan,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    if plan.rejections.is_empty() {
        return Ok(());
    }
    let row = |(place, rejection): &(usize, Rejection)| {
        let Claim { coupon, user, record, .. } = &claims[*place];
        let accepted_at = moment(record.accepted_at);
        (hexadecimal(record.claim_id), coupon.get(), user.get(), record.sequence, rejection.as_str(), accepted_at)
    };
    let rows: Vec<_> = plan.rejections.iter().map(row).collect();
    sqlx::query(
        "INSERT INTO claim_rejections /* write */ (claim_id, coupon_id, user_id, sequence, code, accepted_at, rejected_at) \
         SELECT UNHEX(r.claim_id), r.coupon_id, r.user_id, r.sequence, r.code, r.accepted_at, ? \
         FROM JSON_TABLE(?, '$[*]' COLUMNS(claim_id CHAR(32) PATH '$[0]', coupon_id BIGINT UNSIGNED PATH '$[1]', \
             user_id BIGINT UNSIGNED PATH '$[2]', sequence INT UNSIGNED PATH '$[3]', code VARCHAR(40) PATH '$[4]', \
             accepted_at DATETIME(3) PATH '$[5]')) AS r",
    )
    .bind(now)
    .bind(json(&rows)?)
    .execute(connection)
    .await?;
    Ok(())
}

/// A claim that has its durable answer.
#[derive(Clone, Copy, Debug)]
pub struct UserClaim {
    /// The claim.
    pub record: ClaimRecord,
    /// Its answer.
    pub outcome: Outcome,
}

/// The answered claims of a user on a campaign, the latest first; at most 100 of each kind.
pub async fn claims_of_user(pool: &MySqlPool, coupon: CouponId, user: UserId) -> Result<Vec<UserClaim>, sqlx::Error> {
    type Row = (Uuid, u32, Timestamp, Option<Timestamp>, Option<String>);
    let rows: Vec<Row> = sqlx::query_as(
        "(SELECT /* claims_of_user */ user_coupon_id, sequence, accepted_at, valid_until, NULL AS code \
          FROM user_coupons WHERE coupon_id = ? AND user_id = ? ORDER BY sequence DESC LIMIT 100) \
         UNION ALL (SELECT claim_id, sequence, accepted_at, NULL, code \
          FROM claim_rejections WHERE coupon_id = ? AND user_id = ? ORDER BY sequence DESC LIMIT 100)",
    )
    .bind(coupon.get())
    .bind(user.get())
    .bind(coupon.get())
    .bind(user.get())
    .fetch_all(pool)
    .await?;
    let mut claims = Vec::with_capacity(rows.len());
    for (id, sequence, accepted_at, valid_until, code) in rows {
        let outcome = match (valid_until, code) {
            (Some(valid_until), _) => Outcome::Issued { valid_until },
            (None, code) => Outcome::Rejected(rejection(code.as_deref().unwrap_or_default())?),
        };
        claims.push(UserClaim { record: ClaimRecord { claim_id: ClaimId(id), sequence, accepted_at }, outcome });
    }
    claims.sort_by_key(|claim| std::cmp::Reverse(claim.record.accepted_at));
    Ok(claims)
}

/// At most `limit` claims of a campaign that were issued, by id from the one after `after` on: for a rebuild.
pub async fn issued_claims(
    pool: &MySqlPool,
    coupon: CouponId,
    after: Option<(UserId, u16)>,
    limit: u32,
) -> Result<Vec<(UserId, u16, ClaimRecord)>, sqlx::Error> {
    let (after_user, after_ordinal) = after.map_or((0, 0), |(user, ordinal)| (user.get(), ordinal));
    let rows: Vec<(Uuid, u64, u16, u32, Timestamp)> = sqlx::query_as(
        "SELECT /* issued_claims */ user_coupon_id, user_id, ordinal, sequence, accepted_at FROM user_coupons \
         FORCE INDEX (one_per_ordinal) WHERE coupon_id = ? AND (user_id > ? OR (user_id = ? AND ordinal > ?)) ORDER BY user_id, ordinal LIMIT ?",
    )
    .bind(coupon.get())
    .bind(after_user)
    .bind(after_user)
    .bind(after_ordinal)
    .bind(limit)
    .fetch_all(pool)
    .await?;
    let record = |(id, user, ordinal, sequence, accepted_at)| {
        Ok((identifier(user)?, ordinal, ClaimRecord { claim_id: ClaimId(id), sequence, accepted_at }))
    };
    rows.into_iter().map(record).collect()
}

/// The highest sequence of a claim that was refused; 0 when none was.
pub async fn last_rejected_sequence(pool: &MySqlPool, coupon: CouponId) -> Result<u32, sqlx::Error> {
    let highest: Option<u32> = sqlx::query_scalar(
        "SELECT /* last_rejected_sequence */ MAX(sequence) FROM claim_rejections WHERE coupon_id = ?",
    )
    .bind(coupon.get())
    .fetch_one(pool)
    .await?;
    Ok(highest.unwrap_or(0))
}

/// A coupon in a user's hands, as the user sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum OwnedStatus {
    /// It can be used.
    Usable,
    /// An order uses it.
    Used,
    /// Its validity is over.
    Expired,
    /// An administrator took it back.
    Revoked,
}

/// A coupon in a user's hands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct OwnedCoupon {
    /// Its own id: that of the claim it answers.
    pub user_coupon_id: ClaimId,
    /// The campaign it came from.
    pub coupon_id: CouponId,
    /// The campaign's name.
    pub name: String,
    /// What it takes off an order.
    pub discount: Discount,
    /// What can be done with it now.
    pub status: OwnedStatus,
    /// When it was issued.
    pub issued_at: DateTime<Utc>,
    /// Until when it can be used.
    pub valid_until: DateTime<Utc>,
    /// When an order used it.
    pub used_at: Option<DateTime<Utc>>,
}

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

impl OwnedRow {
    fn into_owned_coupon(self, now: Timestamp) -> Result<OwnedCoupon, sqlx::Error> {
        let strange =
            |column: &str| sqlx::Error::Decode(format!("user coupon {}: unknown {column}", self.user_coupon_id).into());
        let status = match self.status.as_str() {
            "ISSUED" if self.valid_until > now => OwnedStatus::Usable,
            "ISSUED" | "EXPIRED" => OwnedStatus::Expired,
            "USED" => OwnedStatus::Used,
            "REVOKED" => OwnedStatus::Revoked,
            _ => return Err(strange("status")),
        };
        Ok(OwnedCoupon {
            discount: Discount {
                kind: discount_type(&self.discount_type).ok_or_else(|| strange("discount_type"))?,
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
pub struct OwnedCoupons {
    /// Whose.
    pub user: UserId,
    /// Only those of this status.
    pub status: Option<OwnedStatus>,
    /// Only those older than this one.
    pub before: Option<ClaimId>,
    /// At most so many.
    pub limit: u32,
}

/// A user's coupons, the newest first.
pub async fn owned_coupons(
    pool: &MySqlPool,
    wanted: OwnedCoupons,
    now: Timestamp,
) -> Result<Vec<OwnedCoupon>, sqlx::Error> {
    let status = match wanted.status {
        None => "",
        Some(OwnedStatus::Usable) => "AND u.status = 'ISSUED' AND u.valid_until > ?",
        Some(OwnedStatus::Expired) => "AND (u.status = 'EXPIRED' OR (u.status = 'ISSUED' AND u.valid_until <= ?))",
        Some(OwnedStatus::Used) => "AND u.status = 'USED'",
        Some(OwnedStatus::Revoked) => "AND u.status = 'REVOKED'",
    };
    let sql = format!(
        "SELECT /* owned_coupons */ u.user_coupon_id, u.coupon_id, c.name, u.discount_type, u.discount_value, \
         u.discount_max_amount, u.status, u.issued_at, u.valid_until, u.used_at \
         FROM user_coupons u JOIN coupons c ON c.coupon_id = u.coupon_id \
         WHERE u.user_id = ? AND u.user_coupon_id < ? {status} ORDER BY u.user_coupon_id DESC LIMIT ?"
    );
    let mut query = sqlx::query_as::<_, OwnedRow>(sqlx::AssertSqlSafe(sql))
        .bind(wanted.user.get())
        .bind(wanted.before.map_or(Uuid::max(), |claim| claim.0));
    if matches!(wanted.status, Some(OwnedStatus::Usable | OwnedStatus::Expired)) {
        query = query.bind(now);
    }
    let rows = query.bind(wanted.limit).fetch_all(pool).await?;
    rows.into_iter().map(|row| row.into_owned_coupon(now)).collect()
}
