//! Assignments: how a list of users gets its effect. The worker gives the coupon to them, see `dibs-worker`.

use chrono::NaiveDate;
use serde::Serialize;
use sqlx::MySqlConnection;

use crate::{
    clock::Timestamp,
    db::{
        self, Database,
        assignments::{
            FoundAssignment, ListHash, NewRow, budgets,
            uploads::{self, UPLOAD_TIMEOUT},
            users::{ListUser, insert_users},
        },
        retrying, with_timeout,
    },
    domain::{
        admin_action::{ActionContext, NewAdminAction},
        assignment::{Assignment, AssignmentKey, AssignmentState, AssignmentStatus},
        assignment_rules::{
            ApprovalDecision, ApprovalState, AssignmentRejectReason, AssignmentRules, check_budget, check_campaign,
            decide_approval,
        },
        campaign::Campaign,
    },
    error::{Error, Result},
    identifiers::{AssignmentId, CouponId, new_uuid},
};

/// Where the users of a new assignment are.
#[derive(Clone, Copy, Debug)]
pub enum UserList<'a> {
    /// They come with it.
    Whole(&'a [ListUser]),
    /// They were uploaded under its id.
    Uploaded,
}

/// An assignment that an administrator asks for.
#[derive(Clone, Copy, Debug)]
pub struct NewAssignment<'a> {
    pub id: AssignmentId,
    pub coupon: CouponId,
    pub key: &'a AssignmentKey,
    pub requested: u32,
    pub list: UserList<'a>,
    pub list_hash: &'a ListHash,
}

/// Gives a list its effect, or lets it await its approval. Returns the existing assignment where the key has one.
pub async fn create(
    database: &Database,
    new: NewAssignment<'_>,
    rules: &AssignmentRules,
    context: &ActionContext,
) -> Result<FoundAssignment> {
    // The outer result is the database's, the inner one that of the rules: a rejection is not retried.
    retrying("create_assignment", || with_timeout(Box::pin(create_locked(database, new, rules, context)))).await?
}

async fn create_locked(
    database: &Database,
    new: NewAssignment<'_>,
    rules: &AssignmentRules,
    context: &ActionContext,
) -> Result<Result<FoundAssignment>, sqlx::Error> {
    let (coupon, now) = (new.coupon, context.at);
    let mut transaction = database.begin().await?;
    // Two requests with one key come one after the other, and so do all that count against a budget.
    let Some(campaign) = db::campaigns::lock(&mut transaction, &[coupon]).await?.pop() else {
        return Ok(Err(Error::CouponNotFound(coupon)));
    };
    if let Some(existing) = db::assignments::find(&mut transaction, coupon, new.key).await? {
        return Ok(Ok(existing));
    }
    let (status, approval_expires_at) = rules.initial_status(new.requested, now);
    let day = rules.business_day(now);
    if let Err(reason) = check(&mut transaction, &campaign, new.requested, rules, now).await? {
        return Ok(Err(reason.into()));
    }
    // One that awaits its approval counts against the budget of the day on which it is approved.
    if status == AssignmentStatus::Pending {
        budgets::add_assigned(&mut transaction, coupon, day, new.requested, rules.daily_budget).await?;
    }
    match new.list {
        UserList::Whole(users) => {
            insert_users(&mut transaction, new.id, users, database.statement_bytes()).await?;
        }
        UserList::Uploaded => {
            // It was silent for so long that the worker has removed it.
            if !uploads::complete(&mut transaction, new.id).await? {
                return Ok(Err(Error::RequestTimeout(UPLOAD_TIMEOUT.num_seconds().unsigned_abs())));
            }
        }
    }
    let assignment = Assignment { id: new.id, coupon, requested: new.requested, status };
    let row = NewRow {
        assignment,
        key: new.key,
        list_hash: new.list_hash,
        requested_by: &context.actor,
        approval_expires_at,
    };
    db::assignments::insert(&mut transaction, row, now).await?;
    let action = NewAdminAction::created("assignment.create", &new.id, &ActionFields::of(assignment, new.key));
    db::admin_actions::insert(&mut transaction, context, &action).await?;
    // Read back, so that the first answer is the same as that of a repeat.
    let created = db::assignments::find(&mut transaction, coupon, new.key).await?.ok_or(sqlx::Error::RowNotFound)?;
    transaction.commit().await?;
    Ok(Ok(created))
}

/// What an action on an assignment shows of it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ActionFields<'a> {
    coupon_id: CouponId,
    key: &'a AssignmentKey,
    requested: u32,
    status: AssignmentStatus,
}

impl<'a> ActionFields<'a> {
    const fn of(assignment: Assignment, key: &'a AssignmentKey) -> Self {
        let Assignment { coupon, requested, status, .. } = assignment;
        Self { coupon_id: coupon, key, requested, status }
    }
}

async fn check(
    connection: &mut MySqlConnection,
    campaign: &Campaign,
    requested: u32,
    rules: &AssignmentRules,
    now: Timestamp,
) -> Result<Result<(), AssignmentRejectReason>, sqlx::Error> {
    if let Err(reason) = check_campaign(campaign, now) {
        return Ok(Err(reason));
    }
    let day: NaiveDate = rules.business_day(now);
    let assigned = budgets::find_assigned(connection, campaign.id, day).await?;
    Ok(check_budget(rules, assigned, requested, day))
}

/// Refuses what would be refused at the end of an upload, before it begins.
pub async fn check_request(
    database: &Database,
    coupon: CouponId,
    requested: u32,
    rules: &AssignmentRules,
    now: Timestamp,
) -> Result<()> {
    let pool = database.pool();
    let campaign = db::found(db::campaigns::find(&pool, coupon), Error::CouponNotFound(coupon)).await?;
    let checked = db::within(async {
        let mut connection = pool.acquire().await?;
        check(&mut connection, &campaign, requested, rules, now).await
    });
    checked.await?.map_err(Error::from)
}

/// Approves or rejects an assignment that awaits its approval. A repeat changes nothing.
pub async fn decide(
    database: &Database,
    (coupon, key): (CouponId, &AssignmentKey),
    decision: ApprovalDecision,
    rules: &AssignmentRules,
    context: &ActionContext,
) -> Result<AssignmentState> {
    let deciding = || with_timeout(Box::pin(decide_locked(database, (coupon, key), decision, rules, context)));
    retrying("decide_assignment", deciding).await?
}

async fn decide_locked(
    database: &Database,
    (coupon, key): (CouponId, &AssignmentKey),
    decision: ApprovalDecision,
    rules: &AssignmentRules,
    context: &ActionContext,
) -> Result<Result<AssignmentState>, sqlx::Error> {
    let now = context.at;
    let mut transaction = database.begin().await?;
    let Some(campaign) = db::campaigns::lock(&mut transaction, &[coupon]).await?.pop() else {
        return Ok(Err(Error::CouponNotFound(coupon)));
    };
    let Some(FoundAssignment { state, .. }) = db::assignments::find(&mut transaction, coupon, key).await? else {
        return Ok(Err(Error::AssignmentNotFound(key.clone())));
    };
    let approval = ApprovalState {
        status: state.assignment.status,
        requested_by: state.requested_by.as_deref(),
        decided_by: state.decided_by.as_deref(),
        expires_at: state.approval_expires_at,
    };
    let status = match decide_approval(approval, decision, &context.actor, now) {
        Ok(Some(status)) => status,
        Ok(None) => return Ok(Ok(state)),
        Err(reason) => return Ok(Err(reason.into())),
    };
    if decision == ApprovalDecision::Approve {
        // Much may have happened since it was asked for.
        let requested = state.assignment.requested;
        if let Err(reason) = check(&mut transaction, &campaign, requested, rules, now).await? {
            return Ok(Err(reason.into()));
        }
        let day = rules.business_day(now);
        budgets::add_assigned(&mut transaction, coupon, day, requested, rules.daily_budget).await?;
    }
    end_approval(&mut transaction, &state, (status, decision.action()), Some(&context.actor), context).await?;
    let decided = db::assignments::find(&mut transaction, coupon, key).await?.ok_or(sqlx::Error::RowNotFound)?;
    transaction.commit().await?;
    Ok(Ok(decided.state))
}

/// Stores a decision and its action. The users of an assignment without an effect are removed by the worker.
async fn end_approval(
    connection: &mut MySqlConnection,
    state: &AssignmentState,
    (status, action): (AssignmentStatus, &'static str),
    actor: Option<&str>,
    context: &ActionContext,
) -> Result<bool, sqlx::Error> {
    let Assignment { id, coupon, .. } = state.assignment;
    if !db::assignments::update_decided(connection, id, status, actor, context.at).await? {
        return Ok(false);
    }
    if status != AssignmentStatus::Pending {
        uploads::discard(connection, id, coupon, context.at).await?;
    }
    let before = ActionFields::of(state.assignment, &state.key);
    let after = ActionFields { status, ..ActionFields::of(state.assignment, &state.key) };
    let changed = crate::domain::admin_action::ChangedFields::between(&before, &after);
    db::admin_actions::insert(connection, context, &NewAdminAction::changed(action, &id, &changed)).await?;
    Ok(true)
}

/// Assignments that expire in one call.
const EXPIRED_AT_ONCE: u32 = 100;

/// Ends the assignments that were not approved in time; returns how many.
pub async fn expire_unapproved(database: &Database, now: Timestamp) -> Result<usize> {
    let expired = db::within(db::assignments::list_unapproved(&database.pool(), now, EXPIRED_AT_ONCE)).await?;
    for state in &expired {
        let context = ActionContext::of_process("dibs-worker", new_uuid(), now);
        let coupon = state.assignment.coupon;
        // A transaction for each, so that a campaign is locked for one of them only.
        let expiring = || {
            with_timeout(async {
                let mut transaction = database.begin().await?;
                // The lock under which administrators decide.
                db::campaigns::lock(&mut transaction, &[coupon]).await?;
                let ended = (AssignmentStatus::Expired, "assignment.expire");
                if end_approval(&mut transaction, state, ended, None, &context).await? {
                    transaction.commit().await?;
                }
                Ok(())
            })
        };
        retrying("expire_assignment", expiring).await?;
    }
    Ok(expired.len())
}
