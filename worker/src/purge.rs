use std::time::Duration;

use dibs_common::{
    clock,
    db::{self, Database},
};
use tokio_util::sync::CancellationToken;

const PURGE_EVERY: Duration = Duration::from_mins(1);

/// Deletes what is kept for a time only, until told to stop. Any number of workers may do so at once.
pub(crate) async fn run(database: Database, stopping: CancellationToken) {
    while !stopping.is_cancelled() {
        let expired = clock::now() - db::ANSWERS_KEPT_FOR;
        match db::purge_idempotency_keys(database.pool(), expired).await {
            Ok(0) => {}
            Ok(purged) => tracing::debug!(purged, "answers of idempotency keys were kept long enough"),
            Err(error) => tracing::warn!(cause = error.chain(), "old idempotency keys cannot be purged now"),
        }
        tokio::select! {
            () = tokio::time::sleep(PURGE_EVERY) => {}
            () = stopping.cancelled() => {}
        }
    }
}
