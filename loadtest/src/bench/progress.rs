//! Watches the worker process a backlog.

use std::time::Duration;

use anyhow::Result;
use tokio::time::Instant;

use super::harness::Harness;
use crate::{numbers::per_second, wait};

const TIMEOUT: Duration = Duration::from_mins(10);
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// Turns counts into a rate from the first progress to the last: the start of the worker is not part of it.
#[derive(Debug, Default)]
struct RateMeter {
    first: Option<(u64, Instant)>,
    rate: f64,
}

impl RateMeter {
    fn observe(&mut self, count: u64, now: Instant) {
        if count > 0 {
            // The count of the first observation is excluded: when it was processed is unknown.
            let (first, began) = *self.first.get_or_insert((count, now));
            self.rate = per_second(count - first, now - began);
        }
    }
}

/// Waits until `total` items are processed; returns how many a second.
pub async fn processing_rate(
    harness: &mut Harness,
    what: &str,
    total: u64,
    processed: impl AsyncFn() -> Result<u64>,
) -> Result<f64> {
    let mut meter = RateMeter::default();
    wait::until(format!("{total} {what}"), TIMEOUT, POLL_INTERVAL, async || {
        harness.expect_alive()?;
        let count = processed().await?;
        meter.observe(count, Instant::now());
        Ok(count >= total)
    })
    .await?;
    Ok(meter.rate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_starts_with_the_first_progress() {
        let (mut meter, start) = (RateMeter::default(), Instant::now());
        for (second, count) in [(0, 0), (5, 0), (6, 100), (7, 200), (10, 500)] {
            meter.observe(count, start + Duration::from_secs(second));
        }
        assert!((meter.rate - 100.0).abs() < 1e-9, "{}", meter.rate);
    }

    #[test]
    fn without_progress_the_rate_is_zero() {
        let mut meter = RateMeter::default();
        meter.observe(0, Instant::now());
        assert!(meter.rate.abs() < f64::EPSILON);
    }
}
