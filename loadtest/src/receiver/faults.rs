use std::time::Duration;

use dibs_common::identifiers::random_below;

/// How a receiver fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// It answers one of so many with 503.
    pub refuse_one_in: Option<u16>,
    /// How long it takes to answer.
    pub slow: Duration,
    /// After which time it is away, and for how long.
    pub away: Option<(Duration, Duration)>,
}

impl Faults {
    /// Whether a message that comes so long after the start is answered with 503.
    pub fn strike(&self, since_start: Duration) -> bool {
        let is_away = self.away.is_some_and(|(after, lasting)| since_start >= after && since_start < after + lasting);
        is_away || self.refuse_one_in.is_some_and(|many| random_below(many) == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receiver_is_away_for_as_long_as_it_is_told() {
        let second = Duration::from_secs(1);
        let faults = Faults { away: Some((second, second * 2)), ..Faults::default() };
        assert_eq!([0, 1, 2, 3].map(|at| faults.strike(second * at)), [false, true, true, false]);
        assert!(Faults { refuse_one_in: Some(1), ..Faults::default() }.strike(second));
        assert!(!Faults::default().strike(second));
    }
}
