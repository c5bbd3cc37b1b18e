use chrono::TimeDelta;
use dibs_common::identifiers::random_below;

/// For how long a message is tried, from its first attempt on.
pub const TRIED_FOR: TimeDelta = TimeDelta::days(1);
/// The longest pause between two attempts of a message.
const LONGEST_PAUSE: i64 = 600_000;

/// The pause after so many attempts: 1 s, doubling to 10 minutes, and up to half of it more, so that messages that
/// failed together do not all come back together. At least as long as the receiver asked for.
pub fn pause_after(attempts: u32, asked_for: Option<TimeDelta>) -> TimeDelta {
    let base = (1_000_i64 << attempts.saturating_sub(1).min(10)).min(LONGEST_PAUSE);
    let spread = base * i64::from(random_below(500)) / 1_000;
    TimeDelta::milliseconds(base + spread).max(asked_for.unwrap_or_else(TimeDelta::zero))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_from_a_second_to_ten_minutes_and_are_spread() {
        for (attempts, base) in [(0, 1), (1, 1), (2, 2), (5, 16), (10, 512), (11, 600), (u32::MAX, 600)] {
            let pause = pause_after(attempts, None).num_milliseconds();
            assert!((base * 1_000..base * 1_500).contains(&pause), "{attempts}: {pause}");
        }
        assert_eq!(pause_after(1, Some(TimeDelta::minutes(3))), TimeDelta::minutes(3));
    }
}
