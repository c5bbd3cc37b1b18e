use std::{future::Future, time::Duration};

use chrono::TimeDelta;
use dibs_common::{
    clock::Timestamp,
    db::{self, Database},
    error::Result,
};

/// How long the outcome of a command is kept, and an event that every sink has taken.
const KEPT_FOR: TimeDelta = TimeDelta::days(7);
/// How long a dead letter is kept that was sent again, and a refusal of what came by Kafka.
const REREAD_FOR: TimeDelta = TimeDelta::days(30);
/// For how long events wait for a sink that nobody serves.
const WAITED_FOR: TimeDelta = TimeDelta::days(7);
/// Rows deleted by one statement, how long that may take, and how many such statements one purge has.
const BATCH: u32 = 1_000;
const PATIENCE: Duration = Duration::from_secs(10);
const BATCHES: usize = 1_000;

/// What was deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Purged {
    /// Answers of idempotency keys.
    pub answers: u64,
    /// Outcomes of commands.
    pub outcomes: u64,
    /// Events that every sink has taken.
    pub events: u64,
    /// Dead letters that were sent again.
    pub letters: u64,
    /// Claims that came by Kafka and were refused.
    pub refusals: u64,
    /// Sinks that nobody has served for 7 days: events are deleted without their having them.
    pub left_alone: Vec<String>,
}

/// Deletes what was kept long enough by `now`.
pub async fn purge(database: &Database, now: Timestamp) -> Result<Purged> {
    let pool = &database.pool();
    let letters = in_batches(|| db::dead_letters::purge(pool, now - REREAD_FOR, BATCH)).await?;
    let refusals = in_batches(|| db::rejected_requests::purge(pool, now - REREAD_FOR, BATCH)).await?;
    let left_alone = db::within(db::outbox::list_idle_sinks(pool, now - WAITED_FOR)).await?;
    let answers = db::idempotency::purge(pool, now - db::idempotency::RETENTION).await?;
    let outcomes = in_batches(|| db::orders::purge_commands(pool, now - KEPT_FOR, BATCH)).await?;
    let events = in_batches(|| db::outbox::purge(pool, now - KEPT_FOR, now - WAITED_FOR, BATCH)).await?;
    Ok(Purged { answers, outcomes, events, letters, refusals, left_alone })
}

/// Small ones, so that nobody waits long.
async fn in_batches<F: Future<Output = Result<u64, sqlx::Error>>>(batch: impl Fn() -> F) -> Result<u64> {
    let mut deleted = 0;
    for _ in 0..BATCHES {
        let purged = db::within_limit(PATIENCE, batch()).await?;
        deleted += purged;
        if purged < u64::from(BATCH) {
            break;
        }
    }
    Ok(deleted)
}
