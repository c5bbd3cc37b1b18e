//! Waiting for a condition, never without a limit.

use std::{fmt::Display, time::Duration};

use anyhow::{Result, bail};
use tokio::time::{Instant, sleep};

/// Asks `condition` every so often until it holds; fails when it does not within `limit`, naming `what`.
pub async fn until(
    what: impl Display,
    limit: Duration,
    every: Duration,
    mut condition: impl AsyncFnMut() -> Result<bool>,
) -> Result<()> {
    let end = Instant::now() + limit;
    while !condition().await? {
        if Instant::now() >= end {
            bail!("{what}: not within {} s", limit.as_secs());
        }
        sleep(every).await;
    }
    Ok(())
}
