//! Whether a receiver is there at all.
//!
//! After so many attempts in a row that nobody answered it counts as away; 429, 502, 503 and 504 are no answer. Then one
//! message at a time is sent, each time another one, after pauses that grow: whatever answer brings it back, a failure,
//! too. What nobody answered when it went away is suspect from then on: should it fail again while others are answered,
//! that says nothing about the receiver.

use std::collections::HashSet;

use chrono::TimeDelta;
use dibs_common::{clock::Timestamp, integrations::messages::MessageId};

use super::pause_after;

/// The longest pause between two looks whether a receiver is back, unless it asks for more.
const LONGEST_LOOK: TimeDelta = TimeDelta::seconds(30);

/// What is known of a receiver.
#[derive(Clone, Debug, Default)]
pub(super) struct Breaker {
    /// Attempts that nobody answered since one was.
    failed_in_a_row: u32,
    /// When one was last.
    answered_at: Option<Timestamp>,
    away: Option<Away>,
    suspects: HashSet<MessageId>,
}

#[derive(Clone, Copy, Debug)]
struct Away {
    looks: u32,
    next_look_at: Timestamp,
}

/// What may be sent now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Permit {
    /// Everything.
    All,
    /// One message, to see whether the receiver is back: that of this number, of all that there are.
    One(u32),
    /// Nothing.
    Nothing,
}

impl Breaker {
    /// What may be sent at `now`.
    pub(super) fn permit(&self, now: Timestamp) -> Permit {
        match self.away {
            None => Permit::All,
            Some(away) if now >= away.next_look_at => Permit::One(away.looks),
            Some(_) => Permit::Nothing,
        }
    }

    /// Whether the receiver counts as away.
    pub(super) const fn is_away(&self) -> bool {
        self.away.is_some()
    }

    /// Whether the receiver was there since then, and is not away. Nobody is known to have been there before this
    /// process began.
    pub(super) fn was_there_since(&self, then: Timestamp) -> bool {
        !self.is_away() && self.answered_at.is_some_and(|answered| answered >= then)
    }

    /// An attempt had an answer; whether that brings the receiver back.
    pub(super) fn answered(&mut self, now: Timestamp) -> bool {
        self.failed_in_a_row = 0;
        self.answered_at = Some(now);
        self.away.take().is_some()
    }

    /// Nobody answered an attempt; whether that makes the receiver count as away, after `in_a_row` of them.
    pub(super) fn failed(
        &mut self,
        id: MessageId,
        asked_for: Option<TimeDelta>,
        now: Timestamp,
        in_a_row: u32,
    ) -> bool {
        if let Some(away) = &mut self.away {
            away.looks = away.looks.saturating_add(1);
            away.next_look_at = away.next_look_at.max(now + look_after(away.looks, asked_for));
            self.suspects.insert(id);
            return false;
        }
        if self.suspects.contains(&id) {
            return false;
        }
        self.failed_in_a_row += 1;
        if self.failed_in_a_row < in_a_row {
            return false;
        }
        self.away = Some(Away { looks: 0, next_look_at: now + look_after(1, asked_for) });
        true
    }

    /// These failed, and were not parked as the receiver is away.
    pub(super) fn suspect(&mut self, ids: impl IntoIterator<Item = MessageId>) {
        self.suspects.extend(ids);
    }

    /// Everything up to this sequence is seen to.
    pub(super) fn moved_to(&mut self, sequence: u64) {
        self.suspects.retain(|id| id.sequence > sequence);
    }
}

fn look_after(looks: u32, asked_for: Option<TimeDelta>) -> TimeDelta {
    pause_after(looks, None).min(LONGEST_LOOK).max(asked_for.unwrap_or_else(TimeDelta::zero))
}

#[cfg(test)]
mod tests {
    use dibs_common::clock::from_millis;

    use super::*;

    const fn id(sequence: u64) -> MessageId {
        MessageId { sequence, place: 0 }
    }

    #[test]
    fn a_receiver_that_only_fails_is_away_until_one_message_is_answered() {
        let (mut breaker, now) = (Breaker::default(), from_millis(0));
        assert!(!breaker.failed(id(1), None, now, 3));
        assert!(!breaker.answered(now), "it was not away");
        assert!(!breaker.failed(id(2), None, now, 3) && !breaker.failed(id(3), None, now, 3));
        assert!(breaker.failed(id(4), None, now, 3));
        assert_eq!(breaker.permit(now), Permit::Nothing);
        let later = now + TimeDelta::seconds(2);
        assert_eq!(breaker.permit(later), Permit::One(0));
        assert!(!breaker.failed(id(2), Some(TimeDelta::minutes(5)), later, 3));
        assert_eq!(breaker.permit(later + TimeDelta::minutes(4)), Permit::Nothing, "it asked to be left alone");
        assert_eq!(breaker.permit(later + TimeDelta::minutes(5)), Permit::One(1), "another message");
        assert!(!breaker.was_there_since(now), "it is away");
        assert!(breaker.answered(later));
        assert!(breaker.was_there_since(later) && !breaker.was_there_since(later + TimeDelta::seconds(1)));
        assert_eq!(breaker.permit(later), Permit::All);
    }

    #[test]
    fn what_fails_while_others_are_taken_does_not_make_the_receiver_away() {
        let (mut breaker, now) = (Breaker::default(), from_millis(0));
        assert!(breaker.failed(id(1), None, now, 1));
        breaker.suspect([id(1)]);
        assert!(breaker.answered(now));
        assert!(!breaker.failed(id(1), None, now, 1), "it is suspect");
        breaker.moved_to(1);
        assert!(breaker.failed(id(1), None, now, 1));
    }
}
