use std::time::Duration;

use chrono::TimeDelta;
use dibs_common::{
    clock::{self, Timestamp},
    db::{self, Database},
    error::Result,
};
use tokio_util::sync::CancellationToken;

const PURGE_EVERY: Duration = Duration::from_mins(1);
/// How long an event is kept that every sink has taken.
const EVENTS_KEPT_FOR: TimeDelta = TimeDelta::days(7);
/// For how long events wait for a sink that nobody serves.
const WAITED_FOR: TimeDelta = TimeDelta::days(7);
/// Events deleted by one statement, how long that may take, and how many such statements one purge has.
const EVENTS: u32 = 1_000;
const PATIENCE: Duration = Duration::from_secs(10);
const STATEMENTS: usize = 1_000;

/// What was deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Purged {
    /// Answers of idempotency keys.
    pub answers: u64,
    /// Events that every sink has taken.
    pub events: u64,
}

/// Deletes what is kept for a time only, until told to stop. Any number of workers may do so at once.
pub(crate) async fn run(database: Database, stopping: CancellationToken) {
    let mut known = Vec::new();
    while !stopping.is_cancelled() {
        match db::within(db::sinks_left_alone(database.pool(), clock::now() - WAITED_FOR)).await {
            Ok(sinks) => tell_of(&mut known, sinks),
            Err(error) => tracing::debug!(cause = error.chain(), "nobody can say which sinks are served"),
        }
        match purge(&database, clock::now()).await {
            Ok(Purged { answers: 0, events: 0 }) => {}
            Ok(Purged { answers, events }) => tracing::debug!(answers, events, "some rows were kept long enough"),
            Err(error) => tracing::warn!(cause = error.chain(), "old rows cannot be purged now"),
        }
        tokio::select! {
            () = tokio::time::sleep(PURGE_EVERY) => {}
            () = stopping.cancelled() => {}
        }
    }
}

/// Says once of each sink that events no longer wait for it.
fn tell_of(known: &mut Vec<String>, sinks: Vec<String>) {
    for sink in sinks.iter().filter(|sink| !known.contains(sink)) {
        tracing::warn!(sink, "nobody has served this sink for 7 days; old events are deleted without its having them");
    }
    *known = sinks;
}

/// Deletes what was kept long enough by `now`.
pub async fn purge(database: &Database, now: Timestamp) -> Result<Purged> {
    let answers = db::purge_idempotency_keys(database.pool(), now - db::ANSWERS_KEPT_FOR).await?;
    let mut events = 0;
    for _ in 0..STATEMENTS {
        let purged = db::purge_events(database.pool(), now - EVENTS_KEPT_FOR, now - WAITED_FOR, EVENTS);
        let purged = db::within_limit(PATIENCE, purged).await?;
        events += purged;
        if purged < u64::from(EVENTS) {
            break;
        }
    }
    Ok(Purged { answers, events })
}
