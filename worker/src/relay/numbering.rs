use std::time::Duration;

use dibs_common::db::{self, Database, NUMBERED_AT_ONCE};
use tokio_util::sync::CancellationToken;

/// How often there is a look for new events. Sinks look as often, so an event is on its way within twice that.
const LOOK_EVERY: Duration = Duration::from_millis(100);
const PAUSE: Duration = Duration::from_secs(1);

/// Numbers events as they are committed, until told to stop. Every worker does; one at a time gets to.
pub async fn number_until_stopped(database: Database, stopping: CancellationToken) {
    while !stopping.is_cancelled() {
        let pause = match db::number_events(&database).await {
            Ok(numbered) if numbered == NUMBERED_AT_ONCE as usize => continue,
            Ok(_) => LOOK_EVERY,
            Err(error) => {
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
