//! Executes assignments: issues a coupon to the users whom an administrator named.
//!
//! Each user has a claim from the beginning, whose id never changes. It goes through the script and the stream like any
//! other claim. It is submitted again until its outcome is in MySQL; as long as Redis or MySQL knows the claim, that
//! changes nothing. So a worker may die at any step, and Redis may lose its data.

use std::time::Duration;

use bytes::Bytes;
use dibs_common::{
    clock,
    db::{self, Database},
    domain::{
        assignment::{Assignment, AssignmentOutcome, PendingUser},
        campaign::Campaign,
        claim::ClaimRejectReason,
    },
    error::{Error, Result},
    identifiers::{AssignmentId, ClaimId},
    redis::{
        Redis,
        campaign_state::RECONCILED_AFTER_END,
        scripts::{self, ClaimRequest, Decision},
    },
    retry,
};
use tokio_util::sync::CancellationToken;

use crate::campaigns;

const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// Assignments executed in one round.
const MAX_ASSIGNMENTS: u32 = 1_000;
/// Users submitted by one call of the script.
const BATCH_SIZE: u32 = 250;
/// A page of users whose outcomes are not in memory takes the disk a while.
const READ_TIMEOUT: Duration = Duration::from_secs(10);
/// The lease's connection is silent for a whole round.
const ROUND_TIMEOUT: Duration = Duration::from_mins(15);

/// Executes assignments, about once a second, until the process stops. Any number of workers may; the lease lets one at
/// a time do so.
pub(crate) async fn run(database: Database, redis: Redis, stopping: CancellationToken) {
    let mut rounds = retry::every(POLL_INTERVAL, &stopping);
    while rounds.next().await {
        if let Err(error) = assign_once(&database, &redis, &stopping).await {
            tracing::warn!(cause = error.chain(), "assignments failed; retrying");
        }
    }
}

/// Takes every pending assignment a step further, unless another process does; how many were pending.
pub async fn assign_once(database: &Database, redis: &Redis, stopping: &CancellationToken) -> Result<usize> {
    let pending = db::within(db::assignments::list_pending(&database.pool(), MAX_ASSIGNMENTS)).await?;
    if pending.is_empty() {
        return Ok(0);
    }
    let Some(mut lease) = database.try_lease("assignments").await? else { return Ok(pending.len()) };
    lease.hold_for(ROUND_TIMEOUT).await?;
    for assignment in &pending {
        if let Err(error) = execute(database, redis, assignment, stopping).await {
            // It must not hold up the others.
            let (assignment, cause) = (assignment.id, error.chain());
            tracing::warn!(%assignment, cause, "assignment failed; retrying");
        }
    }
    lease.release().await.map(|()| pending.len())
}

/// One pass over the users of an assignment who have no outcome yet; the assignment is done when none is left.
async fn execute(
    database: &Database,
    redis: &Redis,
    assignment: &Assignment,
    stopping: &CancellationToken,
) -> Result<()> {
    let coupon = assignment.coupon;
    let campaign =
        db::within(db::campaigns::find(&database.pool(), coupon)).await?.ok_or(Error::CouponNotFound(coupon))?;
    let mut after = None;
    while !stopping.is_cancelled() {
        let pool = &database.pool();
        let users = db::assignments::list_pending_users(pool, assignment.id, after, BATCH_SIZE);
        let users = db::within_limit(READ_TIMEOUT, users).await?;
        let Some(last) = users.last() else { break };
        after = Some(last.claim);
        let outcomes = submit(database, redis, assignment.id, &campaign, &users).await?;
        db::assignments::update_outcomes(database, &outcomes).await?;
    }
    if db::within(db::assignments::finish(&database.pool(), assignment.id, clock::now())).await? {
        tracing::info!(assignment = %assignment.id, %coupon, users = assignment.requested, "assignment done");
    }
    Ok(())
}

/// Submits the claims of users whose outcome is unknown, and returns the outcomes that are known then. An accepted
/// claim has none until the worker issues it.
pub async fn submit(
    database: &Database,
    redis: &Redis,
    assignment: AssignmentId,
    campaign: &Campaign,
    users: &[PendingUser],
) -> Result<Vec<(ClaimId, AssignmentOutcome)>> {
    let mut outcomes: Vec<_> = users.iter().filter_map(|user| Some((user.claim, user.found?))).collect();
    let request = Bytes::from(format!("assignment {assignment}"));
    let claims: Vec<ClaimRequest> = users
        .iter()
        .filter(|user| user.found.is_none())
        .map(|user| ClaimRequest { user: user.user, claim: user.claim, request: request.clone() })
        .collect();
    if claims.is_empty() {
        return Ok(outcomes);
    }
    let Some(decided) = scripts::assign(redis, campaign.partition, campaign.id, &claims).await? else {
        // The reconciler rebuilds the campaigns that are not long over; to rebuild those here as well would only hold
        // up their claims.
        if clock::now() >= campaign.terms.closes_at + RECONCILED_AFTER_END {
            campaigns::rebuild(database, redis, campaign).await?;
        }
        return Err(Error::CampaignUnavailable(campaign.id));
    };
    let decided = claims.iter().zip(&decided.decisions);
    outcomes.extend(decided.filter_map(|(claim, decision)| Some((claim.claim, rejection(*decision)?))));
    Ok(outcomes)
}

fn rejection(decision: Decision) -> Option<AssignmentOutcome> {
    let reason = match decision {
        Decision::AlreadyClaimed(_) => ClaimRejectReason::CouponAlreadyIssued,
        Decision::Exhausted => ClaimRejectReason::CouponExhausted,
        Decision::Closed => ClaimRejectReason::CampaignClosed,
        // The script ignores the window and a pause for assignments. If it ever does not, the user stays pending.
        Decision::Accepted(_) | Decision::Replayed(_) | Decision::NotOpen | Decision::Paused => return None,
    };
    Some(AssignmentOutcome::Rejected(reason))
}
