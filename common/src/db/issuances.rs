//! The tables `user_coupons` (issuances) and `claim_rejections`.

use std::collections::{HashMap, HashSet};

use serde::Serialize;
use sqlx::{MySqlConnection, MySqlPool};
use uuid::Uuid;

use super::assignments::users::{Outcomes, push_outcomes};
use super::coupon_expiry;
use super::decode::{identifier, parse};
use super::statements::{Statements, moment, or_null, write_into};
use crate::{
    clock::Timestamp,
    domain::{
        assignment::{AssignmentOutcome, assignment_of},
        campaign::{Campaign, Discount},
        claim::{
            Claim, ClaimOutcome, ClaimRecord, ClaimRejectReason, DecidedClaim, ExistingClaims, Issuance, IssuancePlan,
            IssuedPosition,
        },
    },
    identifiers::{ClaimId, CouponId, UserId},
};

fn hexadecimal(claim: ClaimId) -> String {
    claim.0.simple().to_string()
}

pub(super) fn json(rows: &impl Serialize) -> Result<String, sqlx::Error> {
    serde_json::to_string(rows).map_err(|error| sqlx::Error::Encode(error.into()))
}

/// How many coupons the users of a batch hold, and which of its claims have an outcome.
pub async fn find_existing(connection: &mut MySqlConnection, claims: &[Claim]) -> Result<ExistingClaims, sqlx::Error> {
    let mut existing = ExistingClaims::default();
    let rows: Vec<(u64, u64, String)> =
        claims.iter().map(|claim| (claim.coupon.get(), claim.user.get(), hexadecimal(claim.record.claim_id))).collect();
    let rows = json(&rows)?;
    // One statement for both questions saves a round trip. UNION and not UNION ALL: a coupon that answers both counts
    // once.
    // STRAIGHT_JOIN: the optimizer knows no statistics of JSON_TABLE, and may read the large table first.
    let held: Vec<(Uuid, u64, u64, Timestamp)> = sqlx::query_as(
        "SELECT /* issuances::find_existing: what the users of a batch hold */ u.user_coupon_id, u.coupon_id, u.user_id, u.valid_until \
         FROM (SELECT DISTINCT coupon_id, user_id FROM JSON_TABLE(?, '$[*]' COLUMNS( \
             coupon_id BIGINT UNSIGNED PATH '$[0]', user_id BIGINT UNSIGNED PATH '$[1]')) AS h) AS holders \
         STRAIGHT_JOIN user_coupons u ON u.coupon_id = holders.coupon_id AND u.user_id = holders.user_id \
         UNION SELECT /* issuances::find_existing: the coupons issued for its claims */ u.user_coupon_id, u.coupon_id, u.user_id, u.valid_until \
         FROM JSON_TABLE(?, '$[*]' COLUMNS(claim_id CHAR(32) PATH '$[2]')) AS claims \
         STRAIGHT_JOIN user_coupons u ON u.user_coupon_id = UNHEX(claims.claim_id)",
    )
    .bind(&rows)
    .bind(&rows)
    .fetch_all(&mut *connection)
    .await?;
    for (id, coupon, user, valid_until) in held {
        let (coupon, user) = (identifier(coupon)?, identifier(user)?);
        *existing.held.entry((coupon, user)).or_default() += 1;
        let outcome = ClaimOutcome::Issued { valid_until };
        existing.decided.insert(ClaimId(id), DecidedClaim { coupon, user, outcome });
    }
    existing.decided.extend(find_rejected(connection, claims).await?);
    Ok(existing)
}

/// Those of `claims` that were rejected before, with the reason.
pub async fn find_rejected(
    connection: &mut MySqlConnection,
    claims: &[Claim],
) -> Result<HashMap<ClaimId, DecidedClaim>, sqlx::Error> {
    let ids: Vec<String> = claims.iter().map(|claim| hexadecimal(claim.record.claim_id)).collect();
    let rejected: Vec<(Uuid, u64, u64, String)> = sqlx::query_as(
        "SELECT /* issuances::find_rejected */ r.claim_id, r.coupon_id, r.user_id, r.code \
         FROM JSON_TABLE(?, '$[*]' COLUMNS(claim_id CHAR(32) PATH '$')) AS claims \
         STRAIGHT_JOIN claim_rejections r ON r.claim_id = UNHEX(claims.claim_id)",
    )
    .bind(json(&ids)?)
    .fetch_all(connection)
    .await?;
    let answered = |(id, coupon, user, code): (Uuid, u64, u64, String)| {
        let outcome = ClaimOutcome::Rejected(parse("claim_rejections.code", &code)?);
        Ok((ClaimId(id), DecidedClaim { coupon: identifier(coupon)?, user: identifier(user)?, outcome }))
    };
    rejected.into_iter().map(answered).collect()
}

/// A batch of claims and what was planned for it, under the locks of its campaigns.
#[derive(Clone, Copy, Debug)]
pub struct PlannedClaims<'a> {
    pub campaigns: &'a [Campaign],
    pub claims: &'a [Claim],
    pub plan: &'a IssuancePlan,
}

/// Inserts the issuances, rejections and events of a batch, in texts of at most `statement_bytes`.
///
/// Fails with [`super::is_duplicate`] when a claim was decided before and the plan does not know it.
pub async fn insert_batch(
    connection: &mut MySqlConnection,
    batch: PlannedClaims<'_>,
    now: Timestamp,
    statement_bytes: usize,
) -> Result<(), sqlx::Error> {
    let PlannedClaims { campaigns, claims, plan } = batch;
    insert_rejections(connection, claims, plan, now).await?;
    // Rejections are rare, so they go alone; all else goes in one text, usually in one round trip.
    let mut statements = Statements::new(statement_bytes);
    insert_issuances(&mut statements, campaigns, plan, now)?;
    update_counts(&mut statements, claims, plan);
    push_outcomes(&mut statements, &outcomes_of_assignments(claims, plan));
    statements.push_events(&plan.events(now), now);
    statements.send(connection).await.map(drop)
}

fn update_counts(statements: &mut Statements, claims: &[Claim], plan: &IssuancePlan) {
    // Issued and rejected.
    let mut counts: HashMap<CouponId, (u32, u32)> = HashMap::new();
    let mut first: HashMap<CouponId, IssuedPosition> = HashMap::new();
    for Issuance { coupon, valid_until, record, .. } in &plan.issuances {
        counts.entry(*coupon).or_default().0 += 1;
        let position = IssuedPosition { valid_until: *valid_until, claim: record.claim_id };
        let first = first.entry(*coupon).or_insert(position);
        *first = position.min(*first);
    }
    for (place, _) in &plan.rejections {
        counts.entry(claims[*place].coupon).or_default().1 += 1;
    }
    // One UPDATE for each campaign, however many claims of it the batch has.
    for (coupon, (issued, rejected)) in counts {
        // A coupon may end before what is already marked as expired: a claim can be confirmed late.
        let position = first.get(&coupon).map_or_else(String::new, |first| coupon_expiry::position_before(*first));
        statements.push(&format!(
            "UPDATE coupons /* issuances::update_counts */ SET {position}issued_quantity = issued_quantity + {issued}, \
             rejected_quantity = rejected_quantity + {rejected} WHERE coupon_id = {coupon}",
        ));
    }
}

/// The outcomes of those of the claims by which an administrator gives the coupon: they commit with the issuances.
fn outcomes_of_assignments(claims: &[Claim], plan: &IssuancePlan) -> Outcomes {
    let mut outcomes = Outcomes::new();
    let assignment = |claim: &Claim| assignment_of(&claim.request).filter(|_| claim.is_assigned);
    // Nearly all batches have none.
    if !claims.iter().any(|claim| claim.is_assigned) {
        return outcomes;
    }
    let issued: HashSet<ClaimId> = plan.issuances.iter().map(|issuance| issuance.record.claim_id).collect();
    for claim in claims.iter().filter(|claim| issued.contains(&claim.record.claim_id)) {
        if let Some(assignment) = assignment(claim) {
            outcomes.entry((assignment, AssignmentOutcome::Issued)).or_default().push(claim.record.claim_id);
        }
    }
    for (place, reason) in &plan.rejections {
        if let Some(assignment) = assignment(&claims[*place]) {
            let outcome = AssignmentOutcome::Rejected(*reason);
            outcomes.entry((assignment, outcome)).or_default().push(claims[*place].record.claim_id);
        }
    }
    outcomes
}

fn insert_issuances(
    statements: &mut Statements,
    campaigns: &[Campaign],
    plan: &IssuancePlan,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    let with_terms = |issuance: &'_ Issuance| {
        let campaign = campaigns.iter().find(|campaign| campaign.id == issuance.coupon);
        campaign.map(|campaign| &campaign.terms).ok_or(issuance.coupon)
    };
    if let Some(Err(coupon)) = plan.issuances.iter().map(with_terms).find(Result::is_err) {
        return Err(sqlx::Error::Encode(format!("coupon {coupon} is not locked").into()));
    }
    // A later change of the campaign does not change coupons that users hold.
    let head = "INSERT INTO user_coupons /* issuances::insert_issuances: terms are copied from the locked campaign */ (user_coupon_id, \
        coupon_id, user_id, ordinal, per_user_limit, sequence, discount_type, discount_value, discount_max_amount, \
        minimum_order_amount, accepted_at, issued_at, valid_until) VALUES ";
    let issued_at = moment(now);
    let (mut accepted_at, mut valid_until) = (LastTimestamp::default(), LastTimestamp::default());
    statements.push_rows(head, "", &plan.issuances, |sql, issuance| {
        // Checked for all issuances above, as a writer of rows cannot fail.
        let Ok(terms) = with_terms(issuance) else { return };
        let Issuance { coupon, user, record, ordinal, .. } = issuance;
        let Discount { kind, value, max_amount } = terms.discount;
        let (kind, limit, minimum) = (kind.into_str(), terms.per_user_limit, terms.minimum_order_amount);
        let (claim, sequence) = (record.claim_id.0.simple(), record.sequence);
        let max_amount = or_null(max_amount, |amount| amount.to_string());
        let (accepted_at, valid_until) =
            (accepted_at.literal(record.accepted_at), valid_until.literal(issuance.valid_until));
        write_into(
            sql,
            format_args!(
                "(x'{claim}',{coupon},{user},{ordinal},{limit},{sequence},'{kind}',{value},{max_amount},{minimum},\
                 {accepted_at},{issued_at},{valid_until})"
            ),
        );
    });
    Ok(())
}

/// The literal of the last timestamp: most rows of a batch share theirs, and formatting takes longer than comparing.
#[derive(Default)]
struct LastTimestamp(Option<(Timestamp, String)>);

impl LastTimestamp {
    fn literal(&mut self, timestamp: Timestamp) -> &str {
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
    plan: &IssuancePlan,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    if plan.rejections.is_empty() {
        return Ok(());
    }
    let row = |(place, rejection): &(usize, ClaimRejectReason)| {
        let Claim { coupon, user, record, .. } = &claims[*place];
        let accepted_at = record.accepted_at.format("%Y-%m-%d %H:%M:%S%.3f").to_string();
        (hexadecimal(record.claim_id), coupon.get(), user.get(), record.sequence, rejection.into_str(), accepted_at)
    };
    let rows: Vec<_> = plan.rejections.iter().map(row).collect();
    sqlx::query(
        "INSERT INTO claim_rejections /* issuances::insert_rejections */ (claim_id, coupon_id, user_id, sequence, code, accepted_at, rejected_at) \
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

/// A claim with its durable outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UserClaim {
    pub record: ClaimRecord,
    pub outcome: ClaimOutcome,
}

/// The claims of a user on a campaign that have an outcome, latest first; at most 100 issued and 100 rejected ones.
pub async fn list_of_user(pool: &MySqlPool, coupon: CouponId, user: UserId) -> Result<Vec<UserClaim>, sqlx::Error> {
    type Row = (Uuid, u32, Timestamp, Option<Timestamp>, Option<String>);
    let rows: Vec<Row> = sqlx::query_as(
        "(SELECT /* issuances::list_of_user */ user_coupon_id, sequence, accepted_at, valid_until, NULL AS code \
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
        let outcome = outcome(valid_until, code)?;
        claims.push(UserClaim { record: ClaimRecord { claim_id: ClaimId(id), sequence, accepted_at }, outcome });
    }
    // Issued and rejected claims come from two tables, each in its own order.
    claims.sort_by_key(|claim| std::cmp::Reverse(claim.record.accepted_at));
    Ok(claims)
}

/// The outcomes of those of these claims that have one: issued or rejected.
pub async fn find_outcomes(pool: &MySqlPool, claims: &[ClaimId]) -> Result<Vec<(ClaimId, DecidedClaim)>, sqlx::Error> {
    type Row = (Uuid, u64, u64, Option<Timestamp>, Option<String>);
    let ids: Vec<String> = claims.iter().copied().map(hexadecimal).collect();
    let ids = json(&ids)?;
    // One statement whatever the number of ids: it is prepared once, and both servers look up each id by primary key.
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT /* issuances::find_outcomes */ u.user_coupon_id, u.coupon_id, u.user_id, u.valid_until, NULL AS code \
         FROM JSON_TABLE(?, '$[*]' COLUMNS(claim_id CHAR(32) PATH '$')) AS issued \
         STRAIGHT_JOIN user_coupons u ON u.user_coupon_id = UNHEX(issued.claim_id) \
         UNION ALL SELECT r.claim_id, r.coupon_id, r.user_id, NULL, r.code \
         FROM JSON_TABLE(?, '$[*]' COLUMNS(claim_id CHAR(32) PATH '$')) AS rejected \
         STRAIGHT_JOIN claim_rejections r ON r.claim_id = UNHEX(rejected.claim_id)",
    )
    .bind(&ids)
    .bind(&ids)
    .fetch_all(pool)
    .await?;
    let decided = |(id, coupon, user, valid_until, code): Row| {
        let (coupon, user, outcome) = (identifier(coupon)?, identifier(user)?, outcome(valid_until, code)?);
        Ok((ClaimId(id), DecidedClaim { coupon, user, outcome }))
    };
    rows.into_iter().map(decided).collect()
}

/// The outcome in a row of issuances, which have an end of validity, and of rejections, which have a code.
pub(super) fn outcome(valid_until: Option<Timestamp>, code: Option<String>) -> Result<ClaimOutcome, sqlx::Error> {
    match valid_until {
        Some(valid_until) => Ok(ClaimOutcome::Issued { valid_until }),
        None => parse("claim_rejections.code", &code.unwrap_or_default()).map(ClaimOutcome::Rejected),
    }
}

/// The highest sequence of a rejected claim of a campaign; 0 when none was rejected.
pub async fn last_rejected_sequence(pool: &MySqlPool, coupon: CouponId) -> Result<u32, sqlx::Error> {
    let highest: Option<u32> = sqlx::query_scalar(
        "SELECT /* issuances::last_rejected_sequence */ MAX(sequence) FROM claim_rejections WHERE coupon_id = ?",
    )
    .bind(coupon.get())
    .fetch_one(pool)
    .await?;
    Ok(highest.unwrap_or(0))
}
