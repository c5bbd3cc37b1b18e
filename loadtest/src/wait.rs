//! Polling a condition, never without a timeout.

use std::{fmt::Display, time::Duration};

use anyhow::{Result, bail};
use tokio::time::{Instant, sleep};

/// Polls `condition` at `interval` until it holds. Fails after `timeout`, naming `what` was awaited, and when the
/// condition itself fails.
pub async fn until(
    what: impl Display,
    timeout: Duration,
    interval: Duration,
    mut condition: impl AsyncFnMut() -> Result<bool>,
) -> Result<()> {
    let end = Instant::now() + timeout;
    while !condition().await? {
        if Instant::now() >= end {
            bail!("timed out after {} s waiting for {what}", timeout.as_secs());
        }
        sleep(interval).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_millis(1);

    #[tokio::test(start_paused = true)]
    async fn the_condition_is_polled_until_it_holds() {
        let mut polls = 0;
        let began = Instant::now();
        let waited = until("three polls", Duration::from_secs(1), INTERVAL, async || {
            polls += 1;
            Ok(polls == 3)
        });
        waited.await.expect("it holds");
        assert_eq!((polls, began.elapsed()), (3, INTERVAL * 2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_timeout_names_what_was_awaited() {
        let error = until("a miracle", Duration::from_secs(2), INTERVAL, async || Ok(false)).await;
        assert_eq!(error.expect_err("a timeout").to_string(), "timed out after 2 s waiting for a miracle");
    }

    #[tokio::test(start_paused = true)]
    async fn an_error_of_the_condition_ends_the_wait_at_once() {
        let began = Instant::now();
        let error = until("anything", Duration::from_secs(2), INTERVAL, async || bail!("Redis is unreachable")).await;
        assert_eq!(error.expect_err("an error").to_string(), "Redis is unreachable");
        assert_eq!(began.elapsed(), Duration::ZERO);
    }
}
