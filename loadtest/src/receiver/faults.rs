use std::time::Duration;

use dibs_common::identifiers::random_below;

/// The time in which a receiver answers everything with 503.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outage {
    /// Since the receiver's start.
    pub after: Duration,
    pub duration: Duration,
}

/// How a receiver fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// One of so many messages is answered with 503.
    pub refuse_one_in: Option<u16>,
    /// How long every response is delayed.
    pub delay: Duration,
    pub outage: Option<Outage>,
}

impl Faults {
    /// Whether a message at this time since the start is answered with 503.
    pub fn strike(&self, since_start: Duration) -> bool {
        let is_down = self
            .outage
            .is_some_and(|outage| since_start >= outage.after && since_start < outage.after + outage.duration);
        // Not seeded: the order of messages differs between runs anyway.
        is_down || self.refuse_one_in.is_some_and(|many| random_below(many) == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn an_outage_begins_and_ends_in_time() {
        let faults = Faults { outage: Some(Outage { after: SECOND, duration: SECOND * 2 }), ..Faults::default() };
        assert_eq!([0, 1, 2, 3].map(|at| faults.strike(SECOND * at)), [false, true, true, false]);
    }

    #[test]
    fn a_share_of_all_messages_is_refused() {
        let strikes = |refuse_one_in| {
            let faults = Faults { refuse_one_in, ..Faults::default() };
            (0..1_000).filter(|_| faults.strike(SECOND)).count()
        };
        assert_eq!((strikes(None), strikes(Some(1))), (0, 1_000));
        let half = strikes(Some(2));
        assert!((350..650).contains(&half), "{half}");
    }
}
