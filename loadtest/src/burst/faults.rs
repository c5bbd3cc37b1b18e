//! SIGKILL to the worker and to Redis while claims are accepted and confirmed.
//!
//! A kill is due at a number of accepted claims, so that all kills fall into the time in which the worker has claims to
//! confirm. Until a kill is over, claims are handed out only up to the next one: otherwise the campaign would be sold
//! out before the second kill. Within that limit, traffic goes on while the process is down.

use std::time::Duration;

use anyhow::Result;
use dibs_common::identifiers::Partition;
use tokio::time::sleep;

use super::scenario::Burst;
use crate::{processes::DedicatedStack, stores::Stores, wait};

/// Longer than the API waits for Redis, so that clients receive a 503 and must retry.
const REDIS_OUTAGE: Duration = Duration::from_millis(1500);
/// How long a kill waits for claims on the stream, so that it hits a busy worker.
const BACKLOG_TIMEOUT: Duration = Duration::from_secs(2);
const POLL_INTERVAL: Duration = Duration::from_millis(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultTarget {
    Worker,
    Redis,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlannedKill {
    pub target: FaultTarget,
    /// Due when so many claims are accepted.
    pub at_accepted: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExecutedKill {
    pub target: FaultTarget,
    /// Entries on the stream at that moment.
    pub backlog: u64,
    /// Whether all claims were handed out before it.
    pub was_after_burst: bool,
}

/// Spreads kills evenly over `quantity` claims.
pub fn schedule(worker_kills: u64, redis_kills: u64, quantity: u64) -> Vec<PlannedKill> {
    let spread = |target, kills: u64| {
        (1..=kills).map(move |kill| PlannedKill { target, at_accepted: quantity * kill / (kills + 1) })
    };
    let mut schedule: Vec<PlannedKill> =
        spread(FaultTarget::Worker, worker_kills).chain(spread(FaultTarget::Redis, redis_kills)).collect();
    // A stable sort: of two kills at the same number, that of the worker comes first.
    schedule.sort_by_key(|kill| kill.at_accepted);
    schedule
}

/// Up to how many accepted claims traffic may go on before the kill at `position` is over.
fn accepted_limit(schedule: &[PlannedKill], position: usize) -> u64 {
    let due = schedule[position].at_accepted;
    let next = schedule[position + 1..].iter().find(|next| next.at_accepted > due);
    next.map_or(u64::MAX, |next| next.at_accepted)
}

/// Executes the schedule while the burst runs.
pub async fn execute(
    schedule: &[PlannedKill],
    burst: &Burst,
    stack: &mut DedicatedStack,
    stores: &Stores,
    partition: Partition,
) -> Result<Vec<ExecutedKill>> {
    let mut executed = Vec::with_capacity(schedule.len());
    for (position, kill) in schedule.iter().enumerate() {
        burst.list.set_accepted_limit(accepted_limit(schedule, position));
        until_due(kill, burst, stack).await?;
        let backlog = wait_for_backlog(stores, partition).await;
        match kill.target {
            FaultTarget::Worker => stack.kill_and_restart_worker().await?,
            FaultTarget::Redis => stack.kill_and_restart_redis(REDIS_OUTAGE).await?,
        }
        executed.push(ExecutedKill { target: kill.target, backlog, was_after_burst: burst.list.is_exhausted() });
        // Two kills of a worker that never became ready would test one restart only.
        stack.until_worker_recovered().await?;
    }
    Ok(executed)
}

/// Waits until enough claims are accepted, or until no claim is left. It needs no timeout of its own: each claim has
/// one, so the list ends.
async fn until_due(kill: &PlannedKill, burst: &Burst, stack: &mut DedicatedStack) -> Result<()> {
    while burst.list.accepted() < kill.at_accepted && !burst.list.is_exhausted() {
        stack.expect_alive()?;
        sleep(POLL_INTERVAL).await;
    }
    Ok(())
}

/// Waits until the stream has entries, at most [`BACKLOG_TIMEOUT`]; returns how many.
async fn wait_for_backlog(stores: &Stores, partition: Partition) -> u64 {
    let mut backlog = 0;
    // A kill of an idle worker is reported as such, and is no error.
    let _timed_out = wait::until("a backlog", BACKLOG_TIMEOUT, POLL_INTERVAL, async || {
        // Redis may still be restarting after the kill before.
        backlog = stores.backlog(partition).await.unwrap_or(0);
        Ok(backlog > 0)
    })
    .await;
    backlog
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kills_are_spread_over_the_quantity_in_order() {
        let schedule = schedule(4, 1, 100);
        let due: Vec<u64> = schedule.iter().map(|kill| kill.at_accepted).collect();
        assert_eq!(due, [20, 40, 50, 60, 80]);
        assert_eq!(schedule[2].target, FaultTarget::Redis);
    }

    #[test]
    fn without_kills_the_schedule_is_empty() {
        assert_eq!(schedule(0, 0, 100), []);
    }

    #[test]
    fn claims_are_handed_out_up_to_the_next_later_kill() {
        // Worker and Redis are both due at 50.
        let schedule = schedule(3, 1, 100);
        let limits: Vec<u64> = (0..schedule.len()).map(|position| accepted_limit(&schedule, position)).collect();
        assert_eq!(limits, [50, 75, 75, u64::MAX]);
    }
}
