use std::time::Duration;

use dibs_common::{
    db::{
        self, Database,
        outbox::{SEQUENCE_BATCH_SIZE, Sequencing},
    },
    domain::event::Position,
    error::Result,
    redis::{Redis, database_position, scripts::remember_position},
    retry::{self, Backoff, RetryPolicy},
};
use tokio_util::sync::CancellationToken;

use crate::epoch;

/// Sinks poll as often, so an event is delivered within about twice that.
const POLL_INTERVAL: Duration = Duration::from_millis(100);
const RETRIES: RetryPolicy = RetryPolicy::exponential(Duration::from_millis(200), Duration::from_secs(2));

/// Gives committed events their sequence until the process stops. Every worker does; a row lock lets one at a time do
/// so, and passes to another at once when its holder dies.
pub async fn sequence_events(database: Database, redis: Redis, stopping: CancellationToken) {
    let mut sequencer = Sequencer { database, redis, remembered: Position::default() };
    let mut backoff = Backoff::new(RETRIES);
    loop {
        let goes_on = match sequencer.step().await {
            Ok(events) => {
                backoff.reset();
                // A full batch means that more wait, so there is no pause.
                let is_full = events == SEQUENCE_BATCH_SIZE as usize;
                if is_full { !stopping.is_cancelled() } else { retry::sleep(POLL_INTERVAL, &stopping).await }
            }
            Err(error) => {
                metrics::counter!("dibs_outbox_sequencing_failures_total").increment(1);
                tracing::warn!(cause = error.chain(), "event sequencing failed; retrying");
                backoff.wait(&stopping).await
            }
        };
        if !goes_on {
            return;
        }
    }
}

struct Sequencer {
    database: Database,
    redis: Redis,
    /// The highest position that is known. While Redis is unreachable, it shows that `MySQL` was restored.
    remembered: Position,
}

impl Sequencer {
    /// Gives the next events their sequence; how many.
    async fn step(&mut self) -> Result<usize> {
        match database_position::find(&self.redis).await {
            Ok(position) => self.remembered = self.remembered.max(position.unwrap_or_default()),
            // Events must not wait for Redis.
            Err(error) => tracing::debug!(cause = error.chain(), "database position not read"),
        }
        match db::outbox::sequence_events_after(&self.database, self.remembered).await? {
            Sequencing::Busy => Ok(0),
            Sequencing::Done { events, position } => {
                if position > self.remembered {
                    self.remembered = position;
                    // When it fails, the next round of any worker catches up.
                    if let Err(error) = remember_position(&self.redis, position).await {
                        tracing::debug!(cause = error.chain(), "database position not remembered");
                    }
                }
                Ok(events)
            }
            Sequencing::Behind => {
                epoch::check(&self.database, &self.redis, self.remembered).await?;
                Ok(0)
            }
        }
    }
}
