//! Whether a receiver is reachable at all.
//!
//! After so many attempts in a row without a response the circuit opens; 429, 502, 503 and 504 count as none. While it
//! is open, one message at a time probes the receiver, each time another one, after delays that grow. Any response
//! closes the circuit, that of a failure too. A message that got no response when the circuit opened is suspect from
//! then on: when it fails again while others get responses, that says nothing about the receiver.

use std::collections::HashSet;

use chrono::TimeDelta;
use dibs_common::{clock::Timestamp, domain::event::MessageId};

use super::retry_delay;

/// The longest delay between two probes, unless the receiver asks for more.
const MAX_PROBE_DELAY: TimeDelta = TimeDelta::seconds(30);

#[derive(Clone, Debug, Default)]
pub(super) struct CircuitBreaker {
    /// Attempts without a response since the last one with a response.
    failures_in_a_row: u32,
    responded_at: Option<Timestamp>,
    open: Option<Open>,
    suspects: HashSet<MessageId>,
}

#[derive(Clone, Copy, Debug)]
struct Open {
    probes: u32,
    next_probe_at: Timestamp,
}

/// What may be sent now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Permit {
    All,
    /// One message: the one of this number, modulo how many there are.
    Probe(u32),
    Nothing,
}

impl CircuitBreaker {
    pub fn permit(&self, now: Timestamp) -> Permit {
        match self.open {
            None => Permit::All,
            Some(open) if now >= open.next_probe_at => Permit::Probe(open.probes),
            Some(_) => Permit::Nothing,
        }
    }

    pub const fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Whether the receiver responded since then and the circuit is closed. Of the time before this process began
    /// nothing is known.
    pub fn was_reachable_since(&self, then: Timestamp) -> bool {
        !self.is_open() && self.responded_at.is_some_and(|responded| responded >= then)
    }

    /// Records a response; whether it closes the circuit.
    pub fn record_response(&mut self, now: Timestamp) -> bool {
        self.failures_in_a_row = 0;
        self.responded_at = Some(now);
        self.open.take().is_some()
    }

    /// Records an attempt without a response; whether it opens the circuit, which `threshold` of them in a row do.
    pub fn record_failure(
        &mut self,
        id: MessageId,
        retry_after: Option<TimeDelta>,
        now: Timestamp,
        threshold: u32,
    ) -> bool {
        if let Some(open) = &mut self.open {
            // The number also selects the next probe, so that one message that the receiver cannot answer does not keep
            // the circuit open.
            open.probes = open.probes.saturating_add(1);
            open.next_probe_at = open.next_probe_at.max(now + probe_delay(open.probes, retry_after));
            self.suspects.insert(id);
            return false;
        }
        if self.suspects.contains(&id) {
            return false;
        }
        self.failures_in_a_row += 1;
        if self.failures_in_a_row < threshold {
            return false;
        }
        self.open = Some(Open { probes: 0, next_probe_at: now + probe_delay(1, retry_after) });
        true
    }

    /// These failed and did not join the retry queue, because the circuit is open.
    pub fn suspect(&mut self, ids: impl IntoIterator<Item = MessageId>) {
        self.suspects.extend(ids);
    }

    /// The sink has advanced to this sequence: suspects up to there do not come again.
    pub fn advance(&mut self, sequence: u64) {
        // The set would grow for as long as the process runs.
        self.suspects.retain(|id| id.sequence > sequence);
    }
}

fn probe_delay(probes: u32, retry_after: Option<TimeDelta>) -> TimeDelta {
    retry_delay(probes, None).min(MAX_PROBE_DELAY).max(retry_after.unwrap_or_else(TimeDelta::zero))
}

#[cfg(test)]
mod tests {
    use dibs_common::{clock::from_millis, domain::event::Epoch};

    use super::*;

    const fn id(sequence: u64) -> MessageId {
        MessageId { epoch: Epoch(0), sequence, place: 0 }
    }

    #[test]
    fn the_circuit_of_a_receiver_that_only_fails_is_open_until_one_message_gets_a_response() {
        let (mut breaker, now) = (CircuitBreaker::default(), from_millis(0));
        assert!(!breaker.record_failure(id(1), None, now, 3));
        assert!(!breaker.record_response(now), "it was closed");
        assert!(!breaker.record_failure(id(2), None, now, 3) && !breaker.record_failure(id(3), None, now, 3));
        assert!(breaker.record_failure(id(4), None, now, 3));
        assert_eq!(breaker.permit(now), Permit::Nothing);
        let later = now + TimeDelta::seconds(2);
        assert_eq!(breaker.permit(later), Permit::Probe(0));
        assert!(!breaker.record_failure(id(2), Some(TimeDelta::minutes(5)), later, 3));
        assert_eq!(breaker.permit(later + TimeDelta::minutes(4)), Permit::Nothing, "Retry-After is longer");
        assert_eq!(breaker.permit(later + TimeDelta::minutes(5)), Permit::Probe(1), "another message");
        assert!(!breaker.was_reachable_since(now), "the circuit is open");
        assert!(breaker.record_response(later));
        assert!(breaker.was_reachable_since(later) && !breaker.was_reachable_since(later + TimeDelta::seconds(1)));
        assert_eq!(breaker.permit(later), Permit::All);
    }

    #[test]
    fn a_suspect_that_fails_while_others_get_responses_does_not_open_the_circuit() {
        let (mut breaker, now) = (CircuitBreaker::default(), from_millis(0));
        assert!(breaker.record_failure(id(1), None, now, 1));
        breaker.suspect([id(1)]);
        assert!(breaker.record_response(now));
        assert!(!breaker.record_failure(id(1), None, now, 1), "it is suspect");
        breaker.advance(1);
        assert!(breaker.record_failure(id(1), None, now, 1));
    }
}
