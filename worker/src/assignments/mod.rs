//! Executes assignments: issues a coupon to the users whom an administrator named.
//!
//! Each user has a claim from the beginning, whose id never changes. It goes through the script and the stream like any
//! other claim; the transaction that confirms it also stores the user's outcome. It is submitted again until it has
//! one; as long as Redis or MySQL knows the claim, that changes nothing. So a worker may die at any step, and Redis may
//! lose its data.

mod lists;

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use bytes::Bytes;
use dibs_common::{
    clock,
    db::{
        self, Database,
        assignments::users::{finish, list_pending_users, update_outcomes},
    },
    domain::{
        assignment::{Assignment, AssignmentOutcome, PendingUser, request_of},
        campaign::Campaign,
        claim::ClaimRejectReason,
    },
    error::{Error, Result},
    identifiers::{AssignmentId, ClaimId, Partition},
    redis::{
        Redis,
        campaign_state::RECONCILED_AFTER_END,
        scripts::{self, ClaimRequest, Decision},
        streams::{self, ClaimEntry},
    },
    retry::{self, Backoff, RetryPolicy},
};
pub use lists::clean_up;
use tokio_util::sync::CancellationToken;

use crate::campaigns;

const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// Assignments executed in one round.
const MAX_ASSIGNMENTS: u32 = 1_000;
/// Users of one assignment that are submitted before it is the turn of the next: a long list does not hold up a short
/// one.
const TURN_USERS: usize = 20_000;
/// Users read at once.
const PAGE_SIZE: u32 = 2_000;
/// Users submitted by one call of the script.
const BATCH_SIZE: usize = 250;
/// Claims of users who press the button wait for no more than this many calls of assignments, and the stream takes no
/// more of the memory of Redis, however long the list is.
const MAX_BACKLOG_ENTRIES: u64 = 64;
/// How long a full stream is waited for.
const ROOM: RetryPolicy = RetryPolicy::constant(Duration::from_millis(5)).within(Duration::from_secs(1));
/// A page of users whose outcomes are not in memory takes the disk a while.
const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// Executes assignments until the process stops. Any number of workers may; the lease lets one at a time do so.
pub(crate) async fn run(database: Database, redis: Redis, stopping: CancellationToken) {
    let mut assigner = Assigner::new(&database, &redis);
    let mut rounds = retry::every(POLL_INTERVAL, &stopping);
    while rounds.next().await {
        // No pause while there are users to submit.
        while assigner.try_round(&stopping).await && !stopping.is_cancelled() {}
        if let Err(error) = clean_up(&database, clock::now(), &stopping).await {
            tracing::warn!(cause = error.chain(), "lists of assignments not removed; retrying");
        }
    }
}

/// Takes every pending assignment a step further, unless another process does; how many were pending.
pub async fn assign_once(database: &Database, redis: &Redis, stopping: &CancellationToken) -> Result<usize> {
    Assigner::new(database, redis).round(stopping).await.map(|round| round.pending)
}

struct Assigner<'a> {
    database: &'a Database,
    redis: &'a Redis,
    /// The last claim that this pass over an assignment has submitted. Lost with the process, which costs no more than
    /// reading users again who have no outcome.
    submitted: HashMap<AssignmentId, ClaimId>,
    /// The shortest that the stream of a partition was.
    shortest: HashMap<Partition, u64>,
}

struct Round {
    pending: usize,
    has_more: bool,
}

impl<'a> Assigner<'a> {
    fn new(database: &'a Database, redis: &'a Redis) -> Self {
        Self { database, redis, submitted: HashMap::new(), shortest: HashMap::new() }
    }

    /// Whether another round has users to submit.
    async fn try_round(&mut self, stopping: &CancellationToken) -> bool {
        match self.round(stopping).await {
            Ok(round) => round.has_more,
            Err(error) => {
                tracing::warn!(cause = error.chain(), "assignments failed; retrying");
                false
            }
        }
    }

    async fn round(&mut self, stopping: &CancellationToken) -> Result<Round> {
        let pending = db::within(db::assignments::list_pending(&self.database.pool(), MAX_ASSIGNMENTS)).await?;
        let mut round = Round { pending: pending.len(), has_more: false };
        if pending.is_empty() {
            return Ok(round);
        }
        let Some(lease) = self.database.try_lease("assignments").await? else { return Ok(round) };
        // Assignments that are done are no longer listed.
        self.submitted.retain(|id, _| pending.iter().any(|assignment| assignment.id == *id));
        let mut full = HashSet::new();
        for assignment in &pending {
            lease.ensure_held()?;
            match self.turn(assignment, &mut full, stopping).await {
                Ok(has_more) => round.has_more |= has_more,
                Err(error) => {
                    // It must not hold up the others.
                    let (assignment, cause) = (assignment.id, error.chain());
                    tracing::warn!(%assignment, cause, "assignment failed; retrying");
                }
            }
        }
        lease.release().await.map(|()| round)
    }

    /// Submits the next users of an assignment; the assignment is done when a pass over all of them finds none without
    /// an outcome. Returns whether there are more to submit.
    async fn turn(
        &mut self,
        assignment: &Assignment,
        full: &mut HashSet<Partition>,
        stopping: &CancellationToken,
    ) -> Result<bool> {
        let (coupon, id) = (assignment.coupon, assignment.id);
        let pool = self.database.pool();
        let campaign = db::found(db::campaigns::find(&pool, coupon), Error::CouponNotFound(coupon)).await?;
        let mut seen = 0;
        while seen < TURN_USERS {
            let users = list_pending_users(&pool, id, self.submitted.get(&id).copied(), PAGE_SIZE);
            let users = db::within_limit(READ_TIMEOUT, users).await?;
            if users.is_empty() {
                self.submitted.remove(&id);
                if finish(self.database, id, clock::now()).await? {
                    tracing::info!(assignment = %id, %coupon, users = assignment.requested, "assignment done");
                }
                return Ok(false);
            }
            for batch in users.chunks(BATCH_SIZE) {
                if stopping.is_cancelled() {
                    return Ok(false);
                }
                if !self.has_room(campaign.partition, full).await? {
                    return Ok(true);
                }
                let outcomes = submit(self.database, self.redis, id, &campaign, batch).await?;
                update_outcomes(self.database, id, &outcomes).await?;
                self.submitted.extend(batch.last().map(|last| (id, last.claim)));
            }
            seen += users.len();
        }
        Ok(true)
    }

    /// Waits until the stream has room for more claims; false when it has none for a second.
    async fn has_room(&mut self, partition: Partition, full: &mut HashSet<Partition>) -> Result<bool> {
        if full.contains(&partition) {
            return Ok(false);
        }
        // What was there before may belong to a worker that was killed, whose entries stay for a while: it does not
        // count.
        let shortest = self.shortest.entry(partition).or_insert(u64::MAX);
        let mut backoff = Backoff::new(ROOM);
        let has_room = loop {
            let backlog = streams::len::<ClaimEntry>(self.redis, partition).await?;
            *shortest = backlog.min(*shortest);
            if backlog < *shortest + MAX_BACKLOG_ENTRIES {
                break true;
            }
            if !backoff.pause().await {
                break false;
            }
        };
        if !has_room {
            // Other assignments of this round do not wait for it as well.
            full.insert(partition);
        }
        Ok(has_room)
    }
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
    let request = Bytes::from(request_of(assignment));
    let claims: Vec<ClaimRequest> = users
        .iter()
        .filter(|user| user.found.is_none())
        .map(|user| ClaimRequest { user: user.user, claim: user.claim, request: request.clone(), trace: None })
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
