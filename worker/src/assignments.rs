//! Carries out assignments: gives a coupon to the users whom an administrator named.
//!
//! Each user has a claim from the beginning, whose id never changes. It goes the way of all claims: accepted by the
//! script, issued from the stream. Until its outcome is written down it is given again and again, and as long as Redis
//! or the database knows it that changes nothing. So a worker may die anywhere, and Redis may lose what it likes.

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
        scripts::{self, ClaimRequest, Decision},
    },
};
use tokio_util::sync::CancellationToken;

use crate::campaigns;

const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Assignments that one round carries out.
const AT_ONCE: u32 = 1_000;
/// Users given the coupon by one call of the script.
const TOGETHER: u32 = 250;
/// A page of users whose outcomes are not in memory takes the disk a while.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a round may go on without saying so to the database that holds its lock.
const LONGEST: Duration = Duration::from_mins(15);

/// Carries out assignments, about once a second, until told to stop. Any number of workers may do so: one at a time
/// works.
pub(crate) async fn run(database: Database, redis: Redis, stopping: CancellationToken) {
    while !stopping.is_cancelled() {
        if let Err(error) = assign_once(&database, &redis, &stopping).await {
            tracing::warn!(cause = error.chain(), "assignments cannot be carried out now");
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            () = stopping.cancelled() => {}
        }
    }
}

/// Takes every assignment that is not done a step further, unless another process does; how many were not done.
pub async fn assign_once(database: &Database, redis: &Redis, stopping: &CancellationToken) -> Result<usize> {
    let pending = db::within(db::assignments::list_pending(database.pool(), AT_ONCE)).await?;
    metrics::gauge!("dibs_assignments_pending").set(f64::from(u32::try_from(pending.len()).unwrap_or(u32::MAX)));
    if pending.is_empty() {
        return Ok(0);
    }
    let Some(mut lock) = database.try_lease("assignments").await? else { return Ok(pending.len()) };
    lock.hold_for(LONGEST).await?;
    for assignment in &pending {
        if let Err(error) = carry_on(database, redis, assignment, stopping).await {
            // The others are not to wait for this one.
            let (assignment, cause) = (assignment.id, error.chain());
            tracing::warn!(%assignment, cause, "an assignment cannot be carried out now; it goes on later");
        }
    }
    lock.release().await.map(|()| pending.len())
}

/// One way through the users of an assignment who have no outcome yet; then it is done, if none is left.
async fn carry_on(
    database: &Database,
    redis: &Redis,
    assignment: &Assignment,
    stopping: &CancellationToken,
) -> Result<()> {
    let coupon = assignment.coupon;
    let campaign =
        db::within(db::campaigns::find(database.pool(), coupon)).await?.ok_or(Error::CouponNotFound(coupon))?;
    let mut after = None;
    while !stopping.is_cancelled() {
        let waiting = db::assignments::list_pending_users(database.pool(), assignment.id, after, TOGETHER);
        let waiting = db::within_limit(PATIENCE, waiting).await?;
        let Some(last) = waiting.last() else { break };
        after = Some(last.claim);
        let outcomes = give(database, redis, (assignment.id, &campaign), &waiting).await?;
        db::assignments::update_outcomes(database, &outcomes).await?;
    }
    if db::within(db::assignments::finish(database.pool(), assignment.id, clock::now())).await? {
        tracing::info!(assignment = %assignment.id, %coupon, users = assignment.requested, "an assignment is done");
    }
    Ok(())
}

/// Gives the coupon to those of whom nothing is known yet, and answers the outcomes that there are. Who was accepted
/// has none until the issuance.
pub async fn give(
    database: &Database,
    redis: &Redis,
    (assignment, campaign): (AssignmentId, &Campaign),
    waiting: &[PendingUser],
) -> Result<Vec<(ClaimId, AssignmentOutcome)>> {
    let mut outcomes: Vec<_> = waiting.iter().filter_map(|user| Some((user.claim, user.found?))).collect();
    let request = Bytes::from(format!("assignment {assignment}"));
    let claims: Vec<ClaimRequest> = waiting
        .iter()
        .filter(|user| user.found.is_none())
        .map(|user| ClaimRequest { user: user.user, claim: user.claim, request: request.clone() })
        .collect();
    if claims.is_empty() {
        return Ok(outcomes);
    }
    let Some(decided) = scripts::assign(redis, campaign.partition, campaign.id, &claims).await? else {
        // The keeper makes the others again; twice would only hold up claims on them.
        if clock::now() >= campaign.terms.closes_at + campaigns::KEPT_AFTER_END {
            campaigns::rebuild(database, redis, campaign).await?;
        }
        return Err(Error::CampaignUnavailable(campaign.id));
    };
    let refused = claims.iter().zip(&decided.decisions);
    outcomes.extend(refused.filter_map(|(claim, decision)| Some((claim.claim, refusal(*decision)?))));
    Ok(outcomes)
}

fn refusal(decision: Decision) -> Option<AssignmentOutcome> {
    match decision {
        Decision::AlreadyClaimed(_) => Some(AssignmentOutcome::Rejected(ClaimRejectReason::CouponAlreadyIssued)),
        Decision::Exhausted => Some(AssignmentOutcome::Rejected(ClaimRejectReason::CouponExhausted)),
        Decision::Closed => Some(AssignmentOutcome::CampaignClosed),
        // The window and a pause do not matter here: should they ever, it waits.
        Decision::Accepted(_) | Decision::Replayed(_) | Decision::NotOpen | Decision::Paused => None,
    }
}
