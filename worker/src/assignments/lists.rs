//! Lists of users without an effect: they are removed, and approvals that do not come end.

use std::time::Duration;

use dibs_common::{
    assignments::expire_unapproved,
    clock::Timestamp,
    db::{self, Database, assignments::uploads},
    error::Result,
};
use tokio_util::sync::CancellationToken;

/// Lists that are removed at once. The next run goes on.
const MAX_LISTS: u32 = 10;
/// Users of one statement, which holds their locks, and how many statements remove from one list in a run.
const BATCH_SIZE: u32 = 2_000;
const MAX_BATCHES: usize = 100;
const BATCH_TIMEOUT: Duration = Duration::from_secs(10);

/// Ends the assignments that were not approved by `now`, and removes the users of lists that have no effect: uploads
/// that were refused or have gone silent, and assignments that were rejected or have expired.
pub async fn clean_up(database: &Database, now: Timestamp, stopping: &CancellationToken) -> Result<()> {
    // Without the lease: each one is ended under the lock of its campaign.
    let expired = expire_unapproved(database, now).await?;
    if expired > 0 {
        tracing::info!(expired, "assignments expired without an approval");
    }
    let pool = database.pool();
    let lists = db::within(uploads::list_expired(&pool, now, MAX_LISTS)).await?;
    if lists.is_empty() {
        return Ok(());
    }
    let Some(lease) = database.try_lease("lists of assignments").await? else { return Ok(()) };
    for list in lists {
        for _ in 0..MAX_BATCHES {
            let removing = uploads::remove(&pool, list, BATCH_SIZE);
            if stopping.is_cancelled() || db::within_limit(BATCH_TIMEOUT, removing).await? {
                break;
            }
        }
    }
    lease.release().await
}
