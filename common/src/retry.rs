//! How failed work is tried again: one policy type, one sleep.

use std::{future::Future, time::Duration};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::identifiers::random_below;

/// When to try again, and when to stop trying.
///
/// The delay before attempt `n + 1` is `base * factor^(n - 1)`, at most `cap`, and then up to `jitter` percent shorter,
/// so that callers that failed together do not come back together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// The delay after the first attempt.
    pub base: Duration,
    /// What each further delay is multiplied by, at least 1.
    pub factor: u32,
    /// The longest delay.
    pub cap: Duration,
    /// By how many percent a delay may be shorter, 0 to 100.
    pub jitter: u8,
    /// No attempt begins later than this after the first; none: for as long as it takes.
    pub deadline: Option<Duration>,
}

impl RetryPolicy {
    /// Doubles the delay from `base` to `cap`, spread over half of it, without a deadline.
    pub const fn exponential(base: Duration, cap: Duration) -> Self {
        Self { base, factor: 2, cap, jitter: 50, deadline: None }
    }

    /// The same delay after every attempt.
    pub const fn constant(delay: Duration) -> Self {
        Self { base: delay, factor: 1, cap: delay, jitter: 0, deadline: None }
    }

    #[must_use]
    pub const fn within(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// The delay after attempt number `attempt`, counted from 1. `random` is uniform in 0..=100.
    pub fn delay_after(&self, attempt: u32, random: u8) -> Duration {
        // Saturating, as attempts are counted without a bound while a server is unreachable.
        let growth = self.factor.saturating_pow(attempt.saturating_sub(1));
        let longest = self.base.saturating_mul(growth).min(self.cap);
        let shorter = longest * u32::from(self.jitter.min(100)) * u32::from(random.min(100)) / 10_000;
        longest.saturating_sub(shorter)
    }

    /// The delay after attempt number `attempt`, with a random jitter.
    pub fn jittered_delay(&self, attempt: u32) -> Duration {
        self.delay_after(attempt, u8::try_from(random_below(101)).unwrap_or(0))
    }

    /// The delay after attempt number `attempt`; none when the next one would begin after the deadline. `elapsed`
    /// counts from the first attempt.
    pub fn next_delay(&self, attempt: u32, elapsed: Duration) -> Option<Duration> {
        let delay = self.jittered_delay(attempt);
        self.deadline.is_none_or(|deadline| elapsed + delay <= deadline).then_some(delay)
    }
}

/// The failed attempts at one piece of work, and the delays between them.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    policy: RetryPolicy,
    attempts: u32,
    began: Instant,
}

impl Backoff {
    /// The first attempt begins now.
    pub fn new(policy: RetryPolicy) -> Self {
        Self { policy, attempts: 0, began: Instant::now() }
    }

    /// An attempt failed: the delay before the next one; none when that would begin after the deadline.
    pub fn next_delay(&mut self) -> Option<Duration> {
        self.attempts = self.attempts.saturating_add(1);
        self.policy.next_delay(self.attempts, self.began.elapsed())
    }

    /// Sleeps until the next attempt. False when there is none: the deadline passes, or `stopping` is cancelled.
    pub async fn wait(&mut self, stopping: &CancellationToken) -> bool {
        match self.next_delay() {
            Some(delay) => sleep(delay, stopping).await,
            None => false,
        }
    }

    /// Sleeps until the next attempt, also while the process stops: for short work that has begun. False when the
    /// deadline passes before.
    pub async fn pause(&mut self) -> bool {
        let delay = self.next_delay();
        if let Some(delay) = delay {
            tokio::time::sleep(delay).await;
        }
        delay.is_some()
    }

    /// An attempt succeeded: the next failure is the first of new work.
    pub fn reset(&mut self) {
        *self = Self::new(self.policy);
    }
}

/// Asks for a value until there is one; none when there is none before the policy's deadline. An error ends the wait.
pub async fn await_value<T, E, F: Future<Output = Result<Option<T>, E>>>(
    policy: RetryPolicy,
    mut poll: impl FnMut() -> F,
) -> Result<Option<T>, E> {
    let mut backoff = Backoff::new(policy);
    loop {
        if let Some(value) = poll().await? {
            return Ok(Some(value));
        }
        if !backoff.pause().await {
            return Ok(None);
        }
    }
}

/// Sleeps for `delay`, or until `stopping` is cancelled; whether it slept to the end.
pub async fn sleep(delay: Duration, stopping: &CancellationToken) -> bool {
    tokio::select! {
        () = tokio::time::sleep(delay) => true,
        () = stopping.cancelled() => false,
    }
}

/// The rounds of a task that repeats its work. See [`every`].
#[derive(Debug)]
pub struct Rounds<'a> {
    interval: Duration,
    stopping: &'a CancellationToken,
    has_begun: bool,
}

/// Rounds with a pause of `interval` between them, until `stopping` is cancelled. The first begins at once.
pub fn every(interval: Duration, stopping: &CancellationToken) -> Rounds<'_> {
    Rounds { interval, stopping, has_begun: false }
}

impl Rounds<'_> {
    /// Waits for the next round; false when there is none.
    pub async fn next(&mut self) -> bool {
        if std::mem::replace(&mut self.has_begun, true) {
            // Counted from the end of a round, so that a slow dependency is not asked without a pause.
            sleep(self.interval, self.stopping).await;
        }
        !self.stopping.is_cancelled()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn delays_double_up_to_the_cap() {
        let policy = RetryPolicy::exponential(Duration::from_millis(50), Duration::from_secs(1));
        let longest = |attempt| policy.delay_after(attempt, 0).as_millis();
        assert_eq!([1, 2, 3, 5, 6, 40, u32::MAX].map(longest), [50, 100, 200, 800, 1_000, 1_000, 1_000]);
    }

    #[test]
    fn jitter_shortens_a_delay_by_at_most_its_share() {
        let policy = RetryPolicy::exponential(Duration::from_millis(100), Duration::from_secs(1));
        assert_eq!([0, 50, 100, 255].map(|random| policy.delay_after(1, random).as_millis()), [100, 75, 50, 50]);
        assert_eq!(RetryPolicy::constant(Duration::from_secs(1)).delay_after(7, 100), Duration::from_secs(1));
    }

    #[test]
    fn no_attempt_begins_after_the_deadline() {
        let policy = RetryPolicy::constant(Duration::from_secs(1)).within(Duration::from_secs(3));
        assert_eq!(policy.next_delay(1, Duration::from_secs(2)), Some(Duration::from_secs(1)));
        assert_eq!(policy.next_delay(2, Duration::from_millis(2_001)), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_back_off_begins_again_after_a_success() {
        let mut backoff = Backoff::new(RetryPolicy { jitter: 0, ..RetryPolicy::exponential(SECOND, SECOND * 8) });
        assert_eq!([(); 5].map(|()| backoff.next_delay()), [1, 2, 4, 8, 8].map(|seconds| Some(SECOND * seconds)));
        backoff.reset();
        assert_eq!(backoff.next_delay(), Some(SECOND));
    }

    #[tokio::test(start_paused = true)]
    async fn a_value_is_awaited_until_it_is_there_or_the_deadline_has_passed() {
        let policy = RetryPolicy::constant(SECOND).within(SECOND * 3);
        for (polls_needed, found, polls) in [(1, Some(1), 1), (4, Some(4), 4), (5, None, 4)] {
            let mut count = 0;
            let value = await_value(policy, || {
                count += 1;
                std::future::ready(Ok::<_, ()>((count == polls_needed).then_some(count)))
            });
            assert_eq!((value.await, count), (Ok(found), polls));
        }
        assert_eq!(await_value(policy, async || Err::<Option<()>, _>("broken")).await, Err("broken"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_sleep_ends_early_when_the_process_stops() {
        let stopping = CancellationToken::new();
        assert!(sleep(Duration::from_secs(5), &stopping).await);
        stopping.cancel();
        assert!(!sleep(Duration::from_secs(5), &stopping).await);
    }

    #[tokio::test(start_paused = true)]
    async fn rounds_have_a_pause_between_them_and_end_when_the_process_stops() {
        let (stopping, began) = (CancellationToken::new(), Instant::now());
        let mut rounds = every(SECOND, &stopping);
        for begins_at in [Duration::ZERO, SECOND * 3 / 2, SECOND * 3] {
            assert!(rounds.next().await);
            assert_eq!(began.elapsed(), begins_at);
            tokio::time::sleep(SECOND / 2).await;
        }
        stopping.cancel();
        assert!(!rounds.next().await);
        assert_eq!(began.elapsed(), SECOND * 7 / 2);
    }
}
