use std::time::Duration;

use chrono::TimeDelta;
use dibs_common::retry::RetryPolicy;

/// How long a message is tried, from its first attempt on.
pub const RETRIED_FOR: TimeDelta = TimeDelta::days(1);

/// From 1 s to 10 minutes, and up to half as long again, so that messages that failed together do not come back
/// together.
// A policy only ever shortens a delay. So its base and cap are half as long again as the shortest delays meant here.
const RETRIES: RetryPolicy =
    RetryPolicy { jitter: 33, ..RetryPolicy::exponential(Duration::from_millis(1_500), Duration::from_mins(15)) };

/// The delay after so many attempts; at least as long as the receiver asked for by `Retry-After`.
pub fn retry_delay(attempts: u32, retry_after: Option<TimeDelta>) -> TimeDelta {
    let delay = TimeDelta::from_std(RETRIES.jittered_delay(attempts)).unwrap_or(TimeDelta::MAX);
    delay.max(retry_after.unwrap_or_else(TimeDelta::zero))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_from_a_second_to_ten_minutes_and_are_spread() {
        for (attempts, shortest) in [(0, 1), (1, 1), (2, 2), (5, 16), (10, 512), (11, 600), (u32::MAX, 600)] {
            let delay = retry_delay(attempts, None).num_milliseconds();
            assert!((shortest * 1_000..=shortest * 1_500).contains(&delay), "{attempts}: {delay}");
        }
        assert_eq!(retry_delay(1, Some(TimeDelta::minutes(3))), TimeDelta::minutes(3));
    }
}
