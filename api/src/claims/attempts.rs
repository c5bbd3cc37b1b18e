use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use dibs_common::{
    clock,
    db::{self, Database, claim_attempts::ClaimAttempt},
    error::{Dependency, Error, Result},
    identifiers::{CouponId, UserId},
    retry,
    supervisor::{Lifetime, Supervisor, Task},
};
use metrics::{Counter, counter};
use tokio_util::sync::CancellationToken;

/// Refused users that wait to be stored, in all: 6 MB.
const MAX_WAITING: usize = 65_536;
/// Each has a lock of its own, so that requests rarely wait for each other.
const SHARDS: usize = 16;
const FLUSH_INTERVAL: Duration = Duration::from_secs(1);
/// Rows of one statement, which takes MySQL some 10 ms.
const BATCH_SIZE: usize = 500;
const INSERT_TIMEOUT: Duration = Duration::from_secs(5);
/// Rows that a process stores in a day: the table stays bounded whatever is sent.
const MAX_ROWS_PER_DAY: u32 = 5_000_000;
const DAY: Duration = Duration::from_hours(24);
/// Batches that the end of a process stores.
const LAST_BATCHES: usize = 20;

type Key = (UserId, CouponId, &'static str);

/// Claims that were refused, until they are stored for the timelines of users. A refusal costs a look into a map: most
/// claims of a burst are refused. What comes faster than it is stored waits, and what does not fit is left out.
pub struct ClaimAttempts {
    shards: [Mutex<HashMap<Key, ClaimAttempt>>; SHARDS],
    /// 0 stores none.
    rows_per_second: u32,
    recorded: Counter,
    sampled_out: Counter,
}

impl ClaimAttempts {
    pub fn start(database: &Database, rows_per_second: u32, supervisor: &Supervisor) -> Arc<Self> {
        let attempts = Arc::new(Self {
            shards: Default::default(),
            rows_per_second,
            recorded: counter!("dibs_claim_attempts_total", "outcome" => "recorded"),
            sampled_out: counter!("dibs_claim_attempts_total", "outcome" => "sampled_out"),
        });
        if rows_per_second > 0 {
            let (flushed, database, stopping) = (attempts.clone(), database.clone(), supervisor.stopping.clone());
            supervisor.spawn(Task::new("claim_attempts", Lifetime::UntilStopping, move || {
                let (attempts, database, stopping) = (flushed.clone(), database.clone(), stopping.clone());
                async move {
                    attempts.flush_until(&database, &stopping).await;
                    Ok(())
                }
            }));
        }
        attempts
    }

    /// Records that a claim was refused, when that is an answer to "why did I not get it".
    pub fn record(&self, user: UserId, coupon: CouponId, error: &Error) {
        let is_answer = matches!(
            error,
            Error::CouponAlreadyIssued(_)
                | Error::CouponExhausted
                | Error::CampaignNotOpen { .. }
                | Error::CampaignPaused
                | Error::CampaignClosed
                | Error::CampaignUnavailable(_)
                | Error::RateLimited { .. }
                | Error::DependencyUnavailable { .. }
                | Error::Overloaded
        );
        if !is_answer || self.rows_per_second == 0 {
            return;
        }
        let (code, now) = (error.code().into_str(), clock::now());
        let shard = usize::try_from(user.get() % SHARDS as u64).unwrap_or(0);
        let mut waiting = self.shards[shard].lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(attempt) = waiting.get_mut(&(user, coupon, code)) {
            attempt.attempts = attempt.attempts.saturating_add(1);
            attempt.last_at = now;
        } else if waiting.len() < MAX_WAITING / SHARDS {
            let attempt = ClaimAttempt { user, coupon, code, attempts: 1, first_at: now, last_at: now };
            waiting.insert((user, coupon, code), attempt);
        } else {
            drop(waiting);
            self.sampled_out.increment(1);
        }
    }

    async fn flush_until(&self, database: &Database, stopping: &CancellationToken) {
        let mut budget = Budget::new();
        let mut rounds = retry::every(FLUSH_INTERVAL, stopping);
        while rounds.next().await {
            let mut left = self.rows_per_second.min(budget.left()) as usize;
            while left > 0 {
                let batch = self.take(left.min(BATCH_SIZE));
                if batch.is_empty() {
                    break;
                }
                left -= batch.len();
                budget.spend(batch.len());
                self.store(database, batch).await;
            }
        }
        // Bounded, as the end of a process is. What is left is left out of the sample.
        for _ in 0..LAST_BATCHES {
            match self.take(BATCH_SIZE) {
                batch if batch.is_empty() => break,
                batch => self.store(database, batch).await,
            }
        }
    }

    /// At most so many attempts, from all shards, in the order of their keys.
    fn take(&self, limit: usize) -> Vec<ClaimAttempt> {
        let mut taken = Vec::with_capacity(limit);
        for shard in &self.shards {
            let mut waiting = shard.lock().unwrap_or_else(PoisonError::into_inner);
            // An equal share of each shard: none waits until the others are empty.
            let share = (limit / SHARDS + 1).min(limit - taken.len());
            let keys: Vec<Key> = waiting.keys().take(share).copied().collect();
            taken.extend(keys.iter().filter_map(|key| waiting.remove(key)));
        }
        // In one order, so that the statements of two processes lock common rows in the same order.
        taken.sort_unstable_by_key(|attempt| (attempt.user, attempt.coupon, attempt.code));
        taken
    }

    async fn store(&self, database: &Database, batch: Vec<ClaimAttempt>) {
        match insert(database, &batch).await {
            Ok(()) => self.recorded.increment(batch.len() as u64),
            // They are a sample. Kept, they would keep out those that come next.
            Err(error) => {
                self.sampled_out.increment(batch.len() as u64);
                tracing::debug!(cause = error.chain(), "refused claims not stored");
            }
        }
    }
}

async fn insert(database: &Database, batch: &[ClaimAttempt]) -> Result<()> {
    let pool = &database.pool();
    let inserting = db::retrying("claim_attempts", || db::claim_attempts::insert_batch(pool, batch));
    let inserted = tokio::time::timeout(INSERT_TIMEOUT, inserting).await;
    inserted.unwrap_or_else(|elapsed| Err(Error::unavailable(Dependency::MySql, elapsed)))
}

/// The rows that may still be stored today.
struct Budget {
    since: tokio::time::Instant,
    left: u32,
}

impl Budget {
    fn new() -> Self {
        Self { since: tokio::time::Instant::now(), left: MAX_ROWS_PER_DAY }
    }

    fn left(&mut self) -> u32 {
        if self.since.elapsed() >= DAY {
            *self = Self::new();
        }
        self.left
    }

    fn spend(&mut self, rows: usize) {
        self.left = self.left.saturating_sub(u32::try_from(rows).unwrap_or(u32::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempts() -> ClaimAttempts {
        ClaimAttempts {
            shards: Default::default(),
            rows_per_second: 1_000,
            recorded: counter!("test"),
            sampled_out: counter!("test"),
        }
    }

    fn refuse(attempts: &ClaimAttempts, user: u64) {
        let coupon = 1.try_into().expect("an id");
        attempts.record(user.try_into().expect("an id"), coupon, &Error::CouponExhausted);
    }

    #[test]
    fn a_user_who_tries_again_is_one_row_and_what_does_not_fit_is_left_out() {
        let attempts = attempts();
        for user in (1..=3).chain([2, 2]) {
            refuse(&attempts, user);
        }
        attempts.record(9.try_into().expect("an id"), 1.try_into().expect("an id"), &Error::internal("a defect"));
        let taken = attempts.take(100);
        let counts: Vec<_> = taken.iter().map(|attempt| (attempt.user.get(), attempt.attempts)).collect();
        assert_eq!(counts, [(1, 1), (2, 3), (3, 1)]);
        for user in 1..=2 * MAX_WAITING as u64 {
            refuse(&attempts, user);
        }
        let mut waiting = 0;
        loop {
            let batch = attempts.take(BATCH_SIZE);
            assert!(batch.len() <= BATCH_SIZE);
            if batch.is_empty() {
                break;
            }
            waiting += batch.len();
        }
        assert_eq!(waiting, MAX_WAITING);
    }

    #[tokio::test(start_paused = true)]
    async fn a_day_has_a_budget_that_only_stored_rows_use() {
        let mut budget = Budget::new();
        assert_eq!(budget.left(), MAX_ROWS_PER_DAY);
        budget.spend(MAX_ROWS_PER_DAY as usize);
        assert_eq!(budget.left(), 0);
        tokio::time::advance(DAY).await;
        assert_eq!(budget.left(), MAX_ROWS_PER_DAY);
    }
}
