//! The tables `assignment_users` and `assignment_outcomes`.

use std::collections::BTreeMap;

use sqlx::{MySqlConnection, MySqlPool};
use uuid::Uuid;

use super::super::{
    Database,
    decode::{identifier, parse},
    retrying,
    statements::{Statements, id, write_into},
    with_timeout,
};
use crate::{
    clock::Timestamp,
    domain::assignment::{AssignmentOutcome, AssignmentStatus, PendingUser, RefusedUser},
    error::Result,
    identifiers::{AssignmentId, ClaimId, UserId},
};

/// A user of a list, and the claim by which the user gets the coupon. Claim ids ascend in the order of the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListUser {
    pub claim: ClaimId,
    pub user: UserId,
}

impl ListUser {
    pub fn new(user: UserId) -> Self {
        Self { claim: ClaimId::generate(), user }
    }
}

/// Adds rows of users. A user who has one is left out, which the number of affected rows shows.
pub(super) fn push_users(statements: &mut Statements, assignment: AssignmentId, users: &[ListUser]) {
    let assignment = id(assignment.0);
    // IGNORE: with ON DUPLICATE KEY UPDATE, a row that is left out counts as affected.
    let head =
        "INSERT IGNORE INTO assignment_users /* assignments::push_users */ (claim_id, assignment_id, user_id) VALUES ";
    statements.push_rows(head, "", users, |sql, ListUser { claim, user }| {
        write_into(sql, format_args!("({},{assignment},{user})", id(claim.0)));
    });
}

/// Inserts the users of an assignment that comes whole, in its transaction.
pub async fn insert_users(
    connection: &mut MySqlConnection,
    assignment: AssignmentId,
    users: &[ListUser],
    statement_bytes: usize,
) -> Result<(), sqlx::Error> {
    let mut statements = Statements::new(statement_bytes);
    push_users(&mut statements, assignment, users);
    statements.send(connection).await.map(drop)
}

/// At most `limit` users of an assignment without a stored outcome, in claim order, after the claim `after`; each with
/// the outcome of the claim if it has one by now.
pub async fn list_pending_users(
    pool: &MySqlPool,
    assignment: AssignmentId,
    after: Option<ClaimId>,
    limit: u32,
) -> Result<Vec<PendingUser>, sqlx::Error> {
    // Joined with the outcomes of claims: a worker of an earlier version confirms claims without storing the outcome
    // here. The indexes are forced: by `once` each page would sort the rows of a whole list, of up to millions of users.
    let rows: Vec<(Uuid, u64, Option<Uuid>, Option<String>)> = sqlx::query_as(
        "SELECT /* assignments::list_pending_users */ a.claim_id, a.user_id, u.user_coupon_id, r.code \
         FROM assignment_users a FORCE INDEX (by_outcome) \
         LEFT JOIN user_coupons u FORCE INDEX (PRIMARY) ON u.user_coupon_id = a.claim_id \
         LEFT JOIN claim_rejections r FORCE INDEX (PRIMARY) ON r.claim_id = a.claim_id \
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

/// The outcomes of an assignment's users, to be stored and counted.
pub type Outcomes = BTreeMap<(AssignmentId, AssignmentOutcome), Vec<ClaimId>>;

/// Adds the statements that store outcomes and count them. A stored outcome never changes, and counts once.
pub fn push_outcomes(statements: &mut Statements, outcomes: &Outcomes) {
    // Thousands of users share a handful of outcomes, and each outcome is one UPDATE.
    for ((assignment, outcome), claims) in outcomes {
        let (assignment, outcome) = (id(assignment.0), <&str>::from(*outcome));
        let mut claims = claims.clone();
        // In order, so that every transaction locks rows in the same order.
        claims.sort_unstable();
        let head = format!(
            "UPDATE assignment_users /* assignments::push_outcomes */ SET outcome = '{outcome}' \
             WHERE outcome IS NULL AND claim_id IN ("
        );
        let tail = format!(
            "); INSERT INTO assignment_outcomes /* assignments::push_outcomes */ (assignment_id, outcome, users) \
             VALUES ({assignment},'{outcome}',GREATEST(ROW_COUNT(), 0)) \
             ON DUPLICATE KEY UPDATE users = users + VALUES(users)"
        );
        statements.push_rows(&head, &tail, claims, |sql, claim| sql.push_str(&id(claim.0)));
    }
}

/// Stores the outcomes of users of an assignment. A stored outcome never changes.
pub async fn update_outcomes(
    database: &Database,
    assignment: AssignmentId,
    outcomes: &[(ClaimId, AssignmentOutcome)],
) -> Result<()> {
    if outcomes.is_empty() {
        return Ok(());
    }
    let mut grouped = Outcomes::new();
    for (claim, outcome) in outcomes {
        grouped.entry((assignment, *outcome)).or_default().push(*claim);
    }
    retrying("update_assignment_outcomes", || {
        with_timeout(async {
            let mut transaction = database.begin().await?;
            let mut statements = Statements::new(database.statement_bytes());
            push_outcomes(&mut statements, &grouped);
            statements.send(&mut transaction).await?;
            transaction.commit().await
        })
    })
    .await
}

/// Marks an assignment done, unless a user has no outcome yet. Returns whether it is done.
pub async fn finish(database: &Database, assignment: AssignmentId, now: Timestamp) -> Result<bool> {
    retrying("finish_assignment", || with_timeout(finish_counted(database, assignment, now))).await
}

async fn finish_counted(database: &Database, assignment: AssignmentId, now: Timestamp) -> Result<bool, sqlx::Error> {
    let mut transaction = database.begin().await?;
    let open: Option<i64> = sqlx::query_scalar(
        "SELECT /* assignments::finish_counted: a stored outcome never changes, so no lock */ 1 FROM assignment_users \
         FORCE INDEX (by_outcome) WHERE assignment_id = ? AND outcome IS NULL LIMIT 1",
    )
    .bind(assignment.0)
    .fetch_optional(&mut *transaction)
    .await?;
    if open.is_some() {
        return Ok(false);
    }
    // `done_at IS NULL`: a repeat keeps the time of the first.
    let finished = sqlx::query(
        "UPDATE assignments /* assignments::finish_counted */ SET status = ?, done_at = ? \
         WHERE assignment_id = ? AND done_at IS NULL",
    )
    .bind(AssignmentStatus::Done.into_str())
    .bind(now)
    .bind(assignment.0)
    .execute(&mut *transaction)
    .await?;
    if finished.rows_affected() > 0 {
        // Counted once more: a worker of an earlier version stores outcomes without counting them.
        sqlx::query(
            "INSERT INTO assignment_outcomes /* assignments::finish_counted */ (assignment_id, outcome, users) \
             SELECT assignment_id, outcome, COUNT(*) FROM assignment_users WHERE assignment_id = ? \
             GROUP BY assignment_id, outcome ON DUPLICATE KEY UPDATE users = VALUES(users)",
        )
        .bind(assignment.0)
        .execute(&mut *transaction)
        .await?;
    }
    transaction.commit().await?;
    Ok(true)
}

/// At most `limit` users who do not get the coupon by an assignment, by code and in the order of the list, after the
/// claim `after`; only those with the code, if one is given.
pub async fn list_refused(
    pool: &MySqlPool,
    assignment: AssignmentId,
    code: Option<&str>,
    after: Option<ClaimId>,
    limit: u32,
) -> Result<Vec<RefusedUser>, sqlx::Error> {
    let mut connection = pool.acquire().await?;
    let mut codes = list_codes(&mut connection, assignment).await?;
    codes.retain(|other| code.is_none_or(|code| code == other));
    // Where the page before ended.
    let last = match after {
        Some(after) => find_outcome(&mut connection, assignment, after).await?,
        None => None,
    };
    if let Some(last) = &last {
        codes.retain(|code| code >= last);
    }
    let mut refused = Vec::new();
    // A code at a time: each is a range of one index, in its order.
    for code in codes {
        let left = limit.saturating_sub(u32::try_from(refused.len()).unwrap_or(u32::MAX));
        if left == 0 {
            break;
        }
        let after = after.filter(|_| last.as_ref() == Some(&code)).map_or(Uuid::nil(), |after| after.0);
        let rows: Vec<(Uuid, u64)> = sqlx::query_as(
            "SELECT /* assignments::list_refused */ claim_id, user_id FROM assignment_users \
             WHERE assignment_id = ? AND outcome = ? AND claim_id > ? ORDER BY claim_id LIMIT ?",
        )
        .bind(assignment.0)
        .bind(&code)
        .bind(after)
        .bind(left)
        .fetch_all(&mut *connection)
        .await?;
        let code = parse("assignment_users.outcome", &code)?;
        for (claim, user) in rows {
            refused.push(RefusedUser { user_id: identifier(user)?, claim_id: ClaimId(claim), code });
        }
    }
    Ok(refused)
}

/// The codes by which users of an assignment were refused, in order.
async fn list_codes(connection: &mut MySqlConnection, assignment: AssignmentId) -> Result<Vec<String>, sqlx::Error> {
    let sql = "SELECT /* assignments::list_codes */ outcome FROM assignment_outcomes \
               WHERE assignment_id = ? AND outcome <> ? ORDER BY outcome";
    let issued = <&str>::from(AssignmentOutcome::Issued);
    sqlx::query_scalar(sql).bind(assignment.0).bind(issued).fetch_all(connection).await
}

async fn find_outcome(
    connection: &mut MySqlConnection,
    assignment: AssignmentId,
    claim: ClaimId,
) -> Result<Option<String>, sqlx::Error> {
    let sql =
        "SELECT /* assignments::find_outcome */ outcome FROM assignment_users WHERE claim_id = ? AND assignment_id = ?";
    let outcome: Option<Option<String>> =
        sqlx::query_scalar(sql).bind(claim.0).bind(assignment.0).fetch_optional(connection).await?;
    Ok(outcome.flatten())
}
