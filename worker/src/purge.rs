use std::{future::Future, time::Duration};

use chrono::TimeDelta;
use dibs_common::{
    clock::Timestamp,
    db::{self, Database},
    error::Result,
};

/// How long changes of products are remembered: as long as their idempotency keys, and a repeat that began at the end
/// of that time runs.
const PRODUCT_CHANGES_KEPT_FOR: TimeDelta = TimeDelta::hours(25);
/// How long the outcome of a command is kept, and an event that every sink has accepted.
const OUTCOMES_KEPT_FOR: TimeDelta = TimeDelta::days(7);
/// How long dead letters that were sent or dropped, refused claim requests and requested rebuilds are kept.
const DEAD_LETTERS_KEPT_FOR: TimeDelta = TimeDelta::days(30);
/// How long rejected orders and declined charges are kept, counted from their end.
const REJECTED_KEPT_FOR: TimeDelta = TimeDelta::days(90);
/// How long events wait for a sink that no process serves.
const IDLE_SINK_LIMIT: TimeDelta = TimeDelta::days(7);
/// Rows of one statement, which holds their locks, and how many statements of a kind one purge runs.
const BATCH_SIZE: u32 = 1_000;
const MAX_BATCHES: usize = 1_000;
const BATCH_TIMEOUT: Duration = Duration::from_secs(10);

/// How many rows were deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Purged {
    pub idempotency_keys: u64,
    pub product_changes: u64,
    pub outcomes: u64,
    /// Events that every active sink has accepted.
    pub events: u64,
    pub dead_letters: u64,
    /// Claim requests of Kafka that were rejected.
    pub claim_refusals: u64,
    /// Refused claims of the timelines.
    pub claim_attempts: u64,
    /// Requested rebuilds.
    pub rebuilds: u64,
    pub rejected_orders: u64,
    pub declined_charges: u64,
    /// Sinks that no process has served for 7 days: events are deleted without their delivery.
    pub idle_sinks: Vec<String>,
}

/// Deletes the rows whose retention has ended by `now`. Refused claims of the timelines are kept for
/// `attempts_kept_for`.
pub async fn purge(database: &Database, now: Timestamp, attempts_kept_for: TimeDelta) -> Result<Purged> {
    let pool = &database.pool();
    let (outcomes_before, dead_letters_before) = (now - OUTCOMES_KEPT_FOR, now - DEAD_LETTERS_KEPT_FOR);
    let idle_before = now - IDLE_SINK_LIMIT;
    let dead_letters = in_batches(|| db::dead_letters::purge(pool, dead_letters_before, BATCH_SIZE)).await?;
    let claim_refusals = in_batches(|| db::claim_refusals::purge(pool, dead_letters_before, BATCH_SIZE)).await?;
    let attempts_before = now - attempts_kept_for;
    let claim_attempts = in_batches(|| db::claim_attempts::purge(pool, attempts_before, BATCH_SIZE)).await?;
    let rebuilds = in_batches(|| db::rebuilds::purge(pool, dead_letters_before, BATCH_SIZE)).await?;
    // Before the events: it names the sinks whose events are deleted next.
    let idle_sinks = db::within(db::outbox::list_idle_sinks(pool, idle_before)).await?;
    let idempotency_keys = db::idempotency::purge(pool, now - db::idempotency::RETENTION).await?;
    let changes_before = now - PRODUCT_CHANGES_KEPT_FOR;
    let product_changes = in_batches(|| db::products::purge_changes(pool, changes_before, BATCH_SIZE)).await?;
    let outcomes = in_batches(|| db::orders::purge_commands(pool, outcomes_before, BATCH_SIZE)).await?;
    let events = in_batches(|| db::outbox::purge(pool, outcomes_before, idle_before, BATCH_SIZE)).await?;
    let rejected_before = now - REJECTED_KEPT_FOR;
    let rejected_orders = in_batches(|| db::orders::purge_rejected(pool, rejected_before, BATCH_SIZE)).await?;
    db::within(db::purge_leases(pool)).await?;
    let declined_charges = in_batches(|| db::charges::purge_declined(pool, rejected_before, BATCH_SIZE)).await?;
    Ok(Purged {
        idempotency_keys,
        product_changes,
        outcomes,
        events,
        dead_letters,
        claim_refusals,
        claim_attempts,
        rebuilds,
        rejected_orders,
        declined_charges,
        idle_sinks,
    })
}

/// Many small statements: each holds its row locks for a short time only.
async fn in_batches<F: Future<Output = Result<u64, sqlx::Error>>>(batch: impl Fn() -> F) -> Result<u64> {
    let mut deleted = 0;
    for _ in 0..MAX_BATCHES {
        let purged = db::within_limit(BATCH_TIMEOUT, batch()).await?;
        deleted += purged;
        if purged < u64::from(BATCH_SIZE) {
            break;
        }
    }
    Ok(deleted)
}
