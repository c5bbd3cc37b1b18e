use std::time::Duration;

use chrono::TimeDelta;
use dibs_common::{
    clock::{self, Timestamp},
    db::{
        self, Database,
        outbox::{Backlog, SEQUENCE_BATCH_SIZE, SinkBacklog},
    },
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How often there is a look for new events. Sinks look as often, so an event is on its way within twice that.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How often the metrics say what is still to be told.
const SHOW_EVERY: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_secs(1);

/// Numbers events as they are committed, and shows how many wait for each sink, until told to stop. Every worker does;
/// one at a time gets to number.
pub async fn number_until_stopped(database: Database, stopping: CancellationToken) {
    let mut shown_at = None;
    while !stopping.is_cancelled() {
        let numbered = db::outbox::sequence_events(&database).await;
        if shown_at.is_none_or(|shown: Instant| shown.elapsed() > SHOW_EVERY) {
            shown_at = Some(Instant::now());
            show(&database).await;
        }
        let pause = match numbered {
            Ok(numbered) if numbered == SEQUENCE_BATCH_SIZE as usize => continue,
            Ok(_) => LOOK_EVERY,
            Err(error) => {
                metrics::counter!("dibs_outbox_sequencing_failures_total").increment(1);
                tracing::warn!(cause = error.chain(), "events cannot be numbered now");
                PAUSE
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = stopping.cancelled() => {}
        }
    }
}

/// Lets the metrics say what is still to be told, whoever serves the sinks.
async fn show(database: &Database) {
    match db::within(db::outbox::find_backlog(database.pool())).await {
        Ok(backlog) => show_backlog(&backlog, clock::now()),
        Err(error) => tracing::debug!(cause = error.chain(), "nobody can say what is still to be told"),
    }
}

fn show_backlog(Backlog { unsequenced_since, sinks }: &Backlog, now: Timestamp) {
    let age = |since: Option<Timestamp>| since.map_or(TimeDelta::zero(), |since| now - since).as_seconds_f64().max(0.0);
    metrics::gauge!("dibs_outbox_unsequenced_age_seconds").set(age(*unsequenced_since));
    for SinkBacklog { sink, events, waiting_since } in sinks {
        let events = f64::from(u32::try_from(*events).unwrap_or(u32::MAX));
        metrics::gauge!("dibs_outbox_backlog_events", "sink" => sink.clone()).set(events);
        metrics::gauge!("dibs_outbox_lag_seconds", "sink" => sink.clone()).set(age(*waiting_since));
    }
}
