//! The tables `assignments` and `assignment_users`.

use std::collections::{BTreeMap, HashMap};

use sqlx::MySqlPool;
use uuid::Uuid;

use super::{
    Database,
    decode::{identifier, parse},
    is_duplicate, retrying,
    statements::{Statements, id, ids, write_into},
    with_timeout, within,
};
use crate::{
    clock::Timestamp,
    domain::assignment::{Assignment, AssignmentOutcome, AssignmentState, AssignmentStatus, PendingUser},
    error::Result,
    identifiers::{AssignmentId, ClaimId, CouponId, UserId},
};

#[derive(sqlx::FromRow)]
struct AssignmentRow {
    assignment_id: Uuid,
    coupon_id: u64,
    requested: u32,
    status: String,
    created_at: Timestamp,
    done_at: Option<Timestamp>,
}

const COLUMNS: &str = "assignment_id, coupon_id, requested, status, created_at, done_at";

impl TryFrom<AssignmentRow> for Assignment {
    type Error = sqlx::Error;

    fn try_from(row: AssignmentRow) -> Result<Self, sqlx::Error> {
        let id = AssignmentId(row.assignment_id);
        Ok(Self {
            id,
            coupon: identifier(row.coupon_id)?,
            requested: row.requested,
            status: parse("assignments.status", &row.status)?,
        })
    }
}

/// Inserts an assignment of a coupon to `users`, each with the claim by which the user gets the coupon. A repeat with
/// the same id returns the existing assignment.
pub async fn create(
    database: &Database,
    assignment: AssignmentId,
    coupon: CouponId,
    users: &[UserId],
    now: Timestamp,
) -> Result<Assignment> {
    // Claim ids ascend, so claims are processed in the order of `users`. All attempts insert the same ids.
    let users: Vec<(ClaimId, UserId)> = users.iter().map(|user| (ClaimId::generate(), *user)).collect();
    retrying("create_assignment", || async {
        match with_timeout(insert(database, assignment, coupon, &users, now)).await {
            Err(error) if is_duplicate(&error) => {
                // An id that belongs to another coupon stays an error.
                let existing = find_row(&database.pool(), coupon, assignment).await?;
                Assignment::try_from(existing.ok_or(error)?)
            }
            inserted => inserted,
        }
    })
    .await
}

async fn insert(
    database: &Database,
    assignment: AssignmentId,
    coupon: CouponId,
    users: &[(ClaimId, UserId)],
    now: Timestamp,
) -> Result<Assignment, sqlx::Error> {
    let requested = u32::try_from(users.len()).map_err(|error| sqlx::Error::Encode(error.into()))?;
    let mut transaction = database.begin().await?;
    sqlx::query(
        "INSERT INTO assignments /* assignments::insert */ (assignment_id, coupon_id, requested, status, created_at) \
         VALUES (?, ?, ?, ?, ?)",
    )
    .bind(assignment.0)
    .bind(coupon.get())
    .bind(requested)
    .bind(AssignmentStatus::Pending.into_str())
    .bind(now)
    .execute(&mut *transaction)
    .await?;
    let head = "INSERT INTO assignment_users /* assignments::insert */ (claim_id, assignment_id, user_id) VALUES ";
    let mut statements = Statements::new(database.statement_bytes());
    statements.push_rows(head, "", users, |sql, (claim, user)| {
        write_into(sql, format_args!("({},{},{user})", id(claim.0), id(assignment.0)));
    });
    statements.send(&mut transaction).await?;
    transaction.commit().await?;
    Ok(Assignment { id: assignment, coupon, requested, status: AssignmentStatus::Pending })
}

async fn find_row(
    pool: &MySqlPool,
    coupon: CouponId,
    assignment: AssignmentId,
) -> Result<Option<AssignmentRow>, sqlx::Error> {
    let sql = format!(
        "SELECT /* assignments::find_row */ {COLUMNS} FROM assignments WHERE assignment_id = ? AND coupon_id = ?"
    );
    sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(assignment.0).bind(coupon.get()).fetch_optional(pool).await
}

/// The assignment of that id, if it exists and assigns that coupon.
pub async fn find(
    pool: &MySqlPool,
    coupon: CouponId,
    assignment: AssignmentId,
) -> Result<Option<Assignment>, sqlx::Error> {
    find_row(pool, coupon, assignment).await?.map(Assignment::try_from).transpose()
}

/// The same, with the number of users by outcome.
pub async fn find_state(
    pool: &MySqlPool,
    coupon: CouponId,
    assignment: AssignmentId,
) -> Result<Option<AssignmentState>, sqlx::Error> {
    // Read before its users: when it is done, all their outcomes are there.
    let Some(row) = find_row(pool, coupon, assignment).await? else { return Ok(None) };
    let (created_at, done_at) = (row.created_at, row.done_at);
    let counts: Vec<(String, i64)> = sqlx::query_as(
        "SELECT /* assignments::find_state */ outcome, COUNT(*) FROM assignment_users \
         WHERE assignment_id = ? AND outcome IS NOT NULL GROUP BY outcome",
    )
    .bind(assignment.0)
    .fetch_all(pool)
    .await?;
    let mut refused: BTreeMap<String, u32> = BTreeMap::new();
    for (outcome, count) in counts {
        refused.insert(outcome, u32::try_from(count).map_err(|error| sqlx::Error::Decode(error.into()))?);
    }
    let assigned = refused.remove(<&str>::from(AssignmentOutcome::Issued)).unwrap_or(0);
    Ok(Some(AssignmentState { assignment: Assignment::try_from(row)?, assigned, refused, created_at, done_at }))
}

/// At most `limit` assignments that are not done, oldest first.
pub async fn list_pending(pool: &MySqlPool, limit: u32) -> Result<Vec<Assignment>, sqlx::Error> {
    let sql = format!(
        "SELECT /* assignments::list_pending */ {COLUMNS} FROM assignments WHERE status = ? ORDER BY assignment_id LIMIT ?"
    );
    let rows: Vec<AssignmentRow> = sqlx::query_as(sqlx::AssertSqlSafe(sql))
        .bind(AssignmentStatus::Pending.into_str())
        .bind(limit)
        .fetch_all(pool)
        .await?;
    rows.into_iter().map(Assignment::try_from).collect()
}

/// At most `limit` users of an assignment without a stored outcome, in claim order, after the claim `after`; each with
/// the outcome of the claim if it has one by now.
pub async fn list_pending_users(
    pool: &MySqlPool,
    assignment: AssignmentId,
    after: Option<ClaimId>,
    limit: u32,
) -> Result<Vec<PendingUser>, sqlx::Error> {
    // Joined with the outcomes of claims: a worker that acquires the lease finds here which users its predecessor has
    // served.
    let rows: Vec<(Uuid, u64, Option<Uuid>, Option<String>)> = sqlx::query_as(
        "SELECT /* assignments::list_pending_users */ a.claim_id, a.user_id, u.user_coupon_id, r.code FROM assignment_users a \
         LEFT JOIN user_coupons u ON u.user_coupon_id = a.claim_id \
         LEFT JOIN claim_rejections r ON r.claim_id = a.claim_id \
         WHERE a.assignment_id = ? AND a.outcome IS NULL AND a.claim_id > ? ORDER BY a.claim_id LIMIT ?",
    )
    .bind(assignment.0)
    .bind(after.map_or(Uuid::nil(), |claim| claim.0))
    .bind(limit)
    .fetch_all(pool)
    .await?;
    let waiting = |(claim, user, issued, code): (Uuid, u64, Option<Uuid>, Option<String>)| {
        let found = match (issued, code) {
            (Some(_), _) => Some(AssignmentOutcome::Issued),
            (None, Some(code)) => Some(AssignmentOutcome::Rejected(parse("claim_rejections.code", &code)?)),
            (None, None) => None,
        };
        Ok(PendingUser { claim: ClaimId(claim), user: identifier(user)?, found })
    };
    rows.into_iter().map(waiting).collect()
}

/// Stores the outcomes of users of an assignment. A stored outcome never changes.
pub async fn update_outcomes(database: &Database, outcomes: &[(ClaimId, AssignmentOutcome)]) -> Result<()> {
    // Thousands of users share a handful of outcomes, and each outcome is one UPDATE.
    let mut by_outcome: HashMap<AssignmentOutcome, Vec<Uuid>> = HashMap::new();
    for (claim, outcome) in outcomes {
        by_outcome.entry(*outcome).or_default().push(claim.0);
    }
    let mut statements = Statements::new(database.statement_bytes());
    for (outcome, claims) in by_outcome {
        statements.push(&format!(
            "UPDATE assignment_users /* assignments::update_outcomes */ SET outcome = '{}' \
             WHERE claim_id IN ({}) AND outcome IS NULL",
            <&str>::from(outcome),
            ids(claims),
        ));
    }
    within(async {
        let mut connection = database.pool().acquire().await?;
        statements.send(&mut connection).await
    })
    .await
    .map(drop)
}

/// Marks an assignment done, unless a user has no outcome yet. Returns whether it is done.
pub async fn finish(pool: &MySqlPool, assignment: AssignmentId, now: Timestamp) -> Result<bool, sqlx::Error> {
    let open: Option<i64> = sqlx::query_scalar(
        "SELECT /* assignments::finish: a stored outcome never changes, so no lock */ 1 FROM assignment_users \
         WHERE assignment_id = ? AND outcome IS NULL LIMIT 1",
    )
    .bind(assignment.0)
    .fetch_optional(pool)
    .await?;
    if open.is_some() {
        return Ok(false);
    }
    // `done_at IS NULL`: a repeat keeps the time of the first.
    sqlx::query(
        "UPDATE assignments /* assignments::finish */ SET status = ?, done_at = ? WHERE assignment_id = ? AND done_at IS NULL",
    )
    .bind(AssignmentStatus::Done.into_str())
    .bind(now)
    .bind(assignment.0)
    .execute(pool)
    .await?;
    Ok(true)
}
