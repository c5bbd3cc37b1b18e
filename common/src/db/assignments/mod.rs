//! The tables of assignments. [`users`] has their users, [`uploads`] their lists before they have an effect.

pub mod budgets;
pub mod uploads;
pub mod users;

use std::collections::{BTreeMap, HashMap};

use sqlx::{MySqlConnection, MySqlPool};
use uuid::Uuid;

use super::{
    decode::{identifier, parse},
    statements::ids,
};
use crate::{
    clock::Timestamp,
    domain::assignment::{Assignment, AssignmentKey, AssignmentOutcome, AssignmentState, AssignmentStatus},
    identifiers::{AssignmentId, CouponId, parse_uuid},
};

/// Identifies a list: SHA-256 of its users in their order.
pub type ListHash = [u8; 32];

#[derive(sqlx::FromRow)]
struct AssignmentRow {
    assignment_id: Uuid,
    coupon_id: u64,
    assignment_key: Option<String>,
    list_hash: Option<Vec<u8>>,
    requested: u32,
    status: String,
    requested_by: Option<String>,
    decided_by: Option<String>,
    decided_at: Option<Timestamp>,
    approval_expires_at: Option<Timestamp>,
    created_at: Timestamp,
    done_at: Option<Timestamp>,
}

const COLUMNS: &str = "assignment_id, coupon_id, assignment_key, list_hash, requested, status, requested_by, decided_by, \
     decided_at, approval_expires_at, created_at, done_at";

/// An assignment, and the hash of its list. An assignment of an earlier version has none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundAssignment {
    pub state: AssignmentState,
    pub list_hash: Option<ListHash>,
}

impl AssignmentRow {
    fn assignment(&self) -> Result<Assignment, sqlx::Error> {
        Ok(Assignment {
            id: AssignmentId(self.assignment_id),
            coupon: identifier(self.coupon_id)?,
            requested: self.requested,
            status: parse("assignments.status", &self.status)?,
        })
    }

    /// With the number of its users by outcome.
    fn found(self, mut outcomes: BTreeMap<String, u32>) -> Result<FoundAssignment, sqlx::Error> {
        let assignment = self.assignment()?;
        let key = self.assignment_key.map_or_else(
            || Ok(assignment.id.into()),
            |key| AssignmentKey::try_from(key).map_err(|error| sqlx::Error::Decode(error.into())),
        );
        let state = AssignmentState {
            assignment,
            key: key?,
            assigned: outcomes.remove(<&str>::from(AssignmentOutcome::Issued)).unwrap_or(0),
            refused: outcomes,
            requested_by: self.requested_by,
            decided_by: self.decided_by,
            decided_at: self.decided_at,
            approval_expires_at: self.approval_expires_at,
            created_at: self.created_at,
            done_at: self.done_at,
        };
        Ok(FoundAssignment { state, list_hash: self.list_hash.and_then(|hash| hash.try_into().ok()) })
    }
}

/// A new assignment. Its users are in `assignment_users`, or are inserted in the same transaction.
#[derive(Clone, Copy, Debug)]
pub struct NewRow<'a> {
    pub assignment: Assignment,
    pub key: &'a AssignmentKey,
    pub list_hash: &'a ListHash,
    pub requested_by: &'a str,
    pub approval_expires_at: Option<Timestamp>,
}

/// Inserts an assignment. Its key must be free: the caller has locked the campaign and has looked.
pub async fn insert(connection: &mut MySqlConnection, new: NewRow<'_>, now: Timestamp) -> Result<(), sqlx::Error> {
    let Assignment { id, coupon, requested, status } = new.assignment;
    sqlx::query(
        "INSERT INTO assignments /* assignments::insert */ (assignment_id, coupon_id, assignment_key, list_hash, \
         requested, status, requested_by, approval_expires_at, created_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(id.0)
    .bind(coupon.get())
    .bind(new.key.as_str())
    .bind(&new.list_hash[..])
    .bind(requested)
    .bind(status.into_str())
    .bind(new.requested_by)
    .bind(new.approval_expires_at)
    .bind(now)
    .execute(connection)
    .await
    .map(drop)
}

/// The assignment of a coupon that `key` names: by its key, or by its id.
pub async fn find(
    connection: &mut MySqlConnection,
    coupon: CouponId,
    key: &AssignmentKey,
) -> Result<Option<FoundAssignment>, sqlx::Error> {
    let sql = format!(
        "SELECT /* assignments::find */ {COLUMNS} FROM assignments WHERE coupon_id = ? AND \
         (assignment_key = ? OR assignment_id = ?) LIMIT 1"
    );
    // No row has the nil id.
    let id = parse_uuid(key.as_str()).unwrap_or_default();
    let row: Option<AssignmentRow> = sqlx::query_as(sqlx::AssertSqlSafe(sql))
        .bind(coupon.get())
        .bind(key.as_str())
        .bind(id)
        .fetch_optional(&mut *connection)
        .await?;
    let Some(row) = row else { return Ok(None) };
    // After its row: when it is done, all outcomes are there.
    let mut outcomes = count_by_outcome(connection, &[row.assignment_id]).await?;
    let outcomes = outcomes.remove(&row.assignment_id).unwrap_or_default();
    row.found(outcomes).map(Some)
}

/// The state of an assignment, if it exists and assigns that coupon.
pub async fn find_state(
    pool: &MySqlPool,
    coupon: CouponId,
    key: &AssignmentKey,
) -> Result<Option<AssignmentState>, sqlx::Error> {
    let mut connection = pool.acquire().await?;
    let found = Box::pin(find(&mut connection, coupon, key)).await?;
    Ok(found.map(|found| found.state))
}

/// Users of assignments by outcome, as they were counted when they got it.
async fn count_by_outcome(
    connection: &mut MySqlConnection,
    assignments: &[Uuid],
) -> Result<HashMap<Uuid, BTreeMap<String, u32>>, sqlx::Error> {
    let mut counts: HashMap<Uuid, BTreeMap<String, u32>> = HashMap::new();
    if assignments.is_empty() {
        return Ok(counts);
    }
    let sql = format!(
        "SELECT /* assignments::count_by_outcome */ assignment_id, outcome, users FROM assignment_outcomes \
         WHERE assignment_id IN ({}) AND users > 0",
        ids(assignments.iter().copied())
    );
    let rows: Vec<(Uuid, String, u32)> = sqlx::query_as(sqlx::AssertSqlSafe(sql)).fetch_all(connection).await?;
    for (assignment, outcome, users) in rows {
        counts.entry(assignment).or_default().insert(outcome, users);
    }
    Ok(counts)
}

/// Which assignments of a coupon to list.
#[derive(Clone, Copy, Debug)]
pub struct AssignmentsFilter {
    pub coupon: CouponId,
    pub status: Option<AssignmentStatus>,
    /// Only those before it.
    pub before: Option<AssignmentId>,
    pub limit: u32,
}

/// A page of assignments, the newest first.
pub async fn list(pool: &MySqlPool, wanted: &AssignmentsFilter) -> Result<Vec<AssignmentState>, sqlx::Error> {
    let status = if wanted.status.is_some() { " AND status = ?" } else { "" };
    let sql = format!(
        "SELECT /* assignments::list */ {COLUMNS} FROM assignments WHERE coupon_id = ? AND assignment_id < ?{status} \
         ORDER BY assignment_id DESC LIMIT ?"
    );
    let before = wanted.before.map_or(Uuid::max(), |before| before.0);
    let mut query = sqlx::query_as::<_, AssignmentRow>(sqlx::AssertSqlSafe(sql)).bind(wanted.coupon.get()).bind(before);
    if let Some(status) = wanted.status {
        query = query.bind(status.into_str());
    }
    let mut connection = pool.acquire().await?;
    let rows = query.bind(wanted.limit).fetch_all(&mut *connection).await?;
    // The outcomes of the whole page by one query.
    let found: Vec<Uuid> = rows.iter().map(|row| row.assignment_id).collect();
    let mut outcomes = count_by_outcome(&mut connection, &found).await?;
    let state = |row: AssignmentRow| {
        let outcomes = outcomes.remove(&row.assignment_id).unwrap_or_default();
        row.found(outcomes).map(|found| found.state)
    };
    rows.into_iter().map(state).collect()
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
    rows.iter().map(AssignmentRow::assignment).collect()
}

/// At most `limit` assignments whose approval was not given by `now`.
pub async fn list_unapproved(
    pool: &MySqlPool,
    now: Timestamp,
    limit: u32,
) -> Result<Vec<AssignmentState>, sqlx::Error> {
    let sql = format!(
        "SELECT /* assignments::list_unapproved */ {COLUMNS} FROM assignments WHERE status = ? AND \
         approval_expires_at <= ? LIMIT ?"
    );
    let rows: Vec<AssignmentRow> = sqlx::query_as(sqlx::AssertSqlSafe(sql))
        .bind(AssignmentStatus::AwaitingApproval.into_str())
        .bind(now)
        .bind(limit)
        .fetch_all(pool)
        .await?;
    // It has no effect before its approval, so there are no outcomes to count.
    rows.into_iter().map(|row| row.found(BTreeMap::new()).map(|found| found.state)).collect()
}

/// Stores the decision on an assignment that awaits an approval. The caller has locked its campaign.
pub async fn update_decided(
    connection: &mut MySqlConnection,
    assignment: AssignmentId,
    status: AssignmentStatus,
    actor: Option<&str>,
    now: Timestamp,
) -> Result<bool, sqlx::Error> {
    let sql = "UPDATE assignments /* assignments::update_decided */ SET status = ?, decided_by = ?, decided_at = ? \
               WHERE assignment_id = ? AND status = ?";
    let updated = sqlx::query(sql)
        .bind(status.into_str())
        .bind(actor)
        .bind(now)
        .bind(assignment.0)
        .bind(AssignmentStatus::AwaitingApproval.into_str())
        .execute(connection)
        .await?;
    Ok(updated.rows_affected() == 1)
}
