use std::time::Duration;

use dibs_common::{
    db::{self, Database, outbox::SEQUENCE_BATCH_SIZE},
    retry::{self, Backoff, RetryPolicy},
};
use tokio_util::sync::CancellationToken;

/// Sinks poll as often, so an event is delivered within about twice that.
const POLL_INTERVAL: Duration = Duration::from_millis(100);
const RETRIES: RetryPolicy = RetryPolicy::exponential(Duration::from_millis(200), Duration::from_secs(2));

/// Gives committed events their sequence until the process stops. Every worker does; a row lock lets one at a time do so,
/// and passes to another at once when its holder dies.
pub async fn sequence_events(database: Database, stopping: CancellationToken) {
    let mut backoff = Backoff::new(RETRIES);
    loop {
        let goes_on = match db::outbox::sequence_events(&database).await {
            Ok(sequenced) => {
                backoff.reset();
                // A full batch means that more wait, so there is no pause.
                let is_full = sequenced == SEQUENCE_BATCH_SIZE as usize;
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
