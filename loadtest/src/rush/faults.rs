//! SIGKILL for the worker and for Redis, while claims are accepted and confirmed.
//!
//! A kill is due when so many seats are taken, so that all of them fall into the time in which there is something
//! to confirm. Until a kill is over, no more claims are handed out than up to the next one: a rush would else be
//! sold out before the second. Within that, traffic goes on while the process is gone.

use std::time::Duration;

use anyhow::Result;
use dibs_common::identifiers::Partition;
use tokio::time::{Instant, sleep};

use super::scenario::Rush;
use crate::{processes::OwnStack, stores::Stores};

/// Longer than the API waits for Redis, so that clients are told of it and must try again.
const REDIS_OUTAGE: Duration = Duration::from_millis(1500);
/// How long a kill waits for claims on the stream, so that it hits a worker at work.
const BACKLOG_LIMIT: Duration = Duration::from_secs(2);
const TURN: Duration = Duration::from_millis(1);

/// What is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Victim {
    /// The worker.
    Worker,
    /// Redis.
    Redis,
}

/// A kill to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kill {
    /// What is killed.
    pub victim: Victim,
    /// When so many seats are taken.
    pub at_seats: u64,
}

/// A kill that happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Killed {
    /// What was killed.
    pub victim: Victim,
    /// Entries on the stream at that moment.
    pub backlog: u64,
    /// Whether all claims had been handed out by then.
    pub was_after_rush: bool,
}

/// Spreads kills evenly over the seats.
pub fn schedule(worker_kills: u64, redis_kills: u64, seats: u64) -> Vec<Kill> {
    let spread =
        |victim, kills: u64| (1..=kills).map(move |turn| Kill { victim, at_seats: seats * turn / (kills + 1) });
    let mut schedule: Vec<Kill> =
        spread(Victim::Worker, worker_kills).chain(spread(Victim::Redis, redis_kills)).collect();
    schedule.sort_by_key(|kill| kill.at_seats);
    schedule
}

/// Carries out the schedule beside the rush.
pub async fn execute(
    schedule: &[Kill],
    rush: &Rush,
    stack: &mut OwnStack,
    stores: &Stores,
    partition: Partition,
) -> Result<Vec<Killed>> {
    let mut killed = Vec::with_capacity(schedule.len());
    for (place, kill) in schedule.iter().enumerate() {
        let next = schedule[place + 1..].iter().find(|next| next.at_seats > kill.at_seats);
        rush.list.set_ceiling(next.map_or(u64::MAX, |next| next.at_seats));
        until_due(kill, rush, stack).await?;
        let backlog = wait_for_backlog(stores, partition).await;
        match kill.victim {
            Victim::Worker => stack.kill_and_restart_worker().await?,
            Victim::Redis => stack.kill_and_restart_redis(REDIS_OUTAGE).await?,
        }
        killed.push(Killed { victim: kill.victim, backlog, was_after_rush: rush.list.is_exhausted() });
        stack.until_worker_recovered().await?;
    }
    Ok(killed)
}

/// Waits until so many seats are taken, or until no claim is left that could take one.
async fn until_due(kill: &Kill, rush: &Rush, stack: &mut OwnStack) -> Result<()> {
    while rush.list.seats_taken() < kill.at_seats && !rush.list.is_exhausted() {
        stack.expect_alive()?;
        sleep(TURN).await;
    }
    Ok(())
}

/// Waits, for a while, until there is something to confirm; answers how much.
async fn wait_for_backlog(stores: &Stores, partition: Partition) -> u64 {
    let end = Instant::now() + BACKLOG_LIMIT;
    loop {
        // Redis may just be on its way back.
        let backlog = stores.backlog(partition).await.unwrap_or(0);
        if backlog > 0 || Instant::now() >= end {
            return backlog;
        }
        sleep(TURN).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kills_are_spread_over_the_seats_in_order() {
        let schedule = schedule(4, 1, 100);
        let seats: Vec<u64> = schedule.iter().map(|kill| kill.at_seats).collect();
        assert_eq!(seats, [20, 40, 50, 60, 80]);
        assert_eq!(schedule[2].victim, Victim::Redis);
    }
}
