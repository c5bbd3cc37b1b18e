//! Events: each is a row of `outbox_events`, which the relay publishes as one or more messages.

use std::{
    collections::BTreeMap,
    fmt::{self, Display, Formatter},
    str::FromStr,
};

use chrono::TimeDelta;
use serde::{Serialize, Serializer};
use strum::IntoStaticStr;

use crate::{
    clock::{Timestamp, from_millis},
    domain::trace_context::TraceContext,
    identifiers::{CouponId, OrderId, ProductId, UserId},
};

/// How long after the begin of an epoch a request may still be on its stream.
const PENDING_AFTER_RESTORE: TimeDelta = TimeDelta::minutes(1);

/// Which restore of `MySQL` to an earlier state came last: the Unix time at which it was noticed, in seconds; 0 for
/// none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u64);

impl Epoch {
    /// Whether what was requested at `moment` has no outcome any more: `MySQL` was restored since, and the request is
    /// no longer on its stream.
    pub fn has_lost(self, moment: Timestamp, now: Timestamp) -> bool {
        let began = from_millis(i64::try_from(self.0.saturating_mul(1_000)).unwrap_or(i64::MAX));
        moment < began && now - began > PENDING_AFTER_RESTORE
    }
}

impl From<u64> for Epoch {
    fn from(epoch: u64) -> Self {
        Self(epoch)
    }
}

impl Display for Epoch {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How far the outbox is. It grows, unless `MySQL` was restored to an earlier state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    pub epoch: Epoch,
    /// The highest sequence of an event.
    pub sequence: u64,
}

impl Display for Position {
    /// A sequence, and `@` with the epoch unless that is the first: what versions without epochs wrote stays valid.
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { epoch, sequence } = self;
        if *epoch == Epoch::default() { write!(f, "{sequence}") } else { write!(f, "{sequence}@{epoch}") }
    }
}

impl FromStr for Position {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (sequence, epoch) = text.split_once('@').unwrap_or((text, "0"));
        Ok(Self { epoch: Epoch(epoch.parse()?), sequence: sequence.parse()? })
    }
}

/// A row of the outbox that has its sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboxEvent {
    /// In which it got its sequence.
    pub epoch: Epoch,
    /// Its place in the order of delivery, without gaps.
    pub sequence: u64,
    /// ORDER, COUPON, POINTS or PRODUCT.
    pub aggregate_type: String,
    /// The id of the aggregate.
    pub aggregate_id: String,
    /// Such as `order.paid`.
    pub kind: String,
    /// The aggregate after the change, as JSON.
    pub payload: String,
    pub created_at: Timestamp,
    pub traces: EventTraces,
}

impl OutboxEvent {
    /// The id of its message at `place`.
    pub const fn message_id(&self, place: u32) -> MessageId {
        MessageId { epoch: self.epoch, sequence: self.sequence, place }
    }
}

/// The id of a message: epoch and sequence of its event, and its position in that. In the order of delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MessageId {
    pub epoch: Epoch,
    pub sequence: u64,
    /// 0 for the first message of the event.
    pub place: u32,
}

impl Display for MessageId {
    /// `event-7-0`, and with an epoch `event-1790000000-7-0`. Receivers remember ids of before there were epochs.
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { epoch, sequence, place } = self;
        if *epoch == Epoch::default() {
            write!(f, "event-{sequence}-{place}")
        } else {
            write!(f, "event-{epoch}-{sequence}-{place}")
        }
    }
}

impl FromStr for MessageId {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const EXPECTED: &str = "expected the id of a message, such as event-7-0";
        let numbers = text.strip_prefix("event-").ok_or(EXPECTED)?;
        let (numbers, place) = numbers.rsplit_once('-').ok_or(EXPECTED)?;
        let (epoch, sequence) = numbers.split_once('-').unwrap_or(("0", numbers));
        let (Ok(epoch), Ok(sequence), Ok(place)) = (epoch.parse(), sequence.parse(), place.parse()) else {
            return Err(EXPECTED);
        };
        Ok(Self { epoch: Epoch(epoch), sequence, place })
    }
}

impl Serialize for MessageId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What an event is about, spelled as the database holds its type. Events of one aggregate are published in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, IntoStaticStr)]
#[strum(serialize_all = "UPPERCASE", const_into_str)]
pub enum Aggregate {
    Order(OrderId),
    Coupon(CouponId),
    Points(UserId),
    Product(ProductId),
}

impl Aggregate {
    pub fn id(self) -> String {
        match self {
            Self::Order(id) => id.to_string(),
            Self::Coupon(id) => id.to_string(),
            Self::Points(id) => id.to_string(),
            Self::Product(id) => id.to_string(),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub aggregate: Aggregate,
    /// The type, such as `order.paid`.
    pub kind: &'static str,
    /// The aggregate after the event, as JSON.
    pub payload: String,
    pub traces: EventTraces,
}

/// The sampled requests that an event comes from, by the place of the message about them.
pub type EventTraces = BTreeMap<u32, TraceContext>;

impl Event {
    pub fn new(aggregate: Aggregate, kind: &'static str, payload: &impl Serialize) -> Self {
        // Serialization fails only for maps whose keys are not strings. No payload has one.
        let payload = serde_json::to_string(payload).unwrap_or_else(|_| "null".into());
        Self { aggregate, kind, payload, traces: EventTraces::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_parsed_from_its_display() {
        for (epoch, text) in [(0, "event-7-3"), (1_790_000_000, "event-1790000000-7-3")] {
            let id = MessageId { epoch: Epoch(epoch), sequence: 7, place: 3 };
            assert_eq!((id.to_string().as_str(), text.parse()), (text, Ok(id)));
        }
        for wrong in ["", "event-7", "event-7-x", "7-3", "event-1-2-3-4"] {
            wrong.parse::<MessageId>().expect_err(wrong);
        }
    }

    #[test]
    fn a_position_is_parsed_from_its_display_and_an_epoch_comes_before_a_sequence() {
        let position = |epoch, sequence| Position { epoch: Epoch(epoch), sequence };
        for (expected, text) in [(position(0, 7), "7"), (position(9, 7), "7@9")] {
            assert_eq!((expected.to_string().as_str(), text.parse()), (text, Ok(expected)));
        }
        assert!(position(9, 1) > position(0, 7) && position(9, 2) > position(9, 1));
    }

    #[test]
    fn a_request_is_lost_when_mysql_was_restored_after_it_and_its_stream_is_read() {
        let (epoch, second) = (Epoch(1_000), |second: i64| from_millis(second * 1_000));
        assert!(epoch.has_lost(second(999), second(1_061)));
        assert!(!epoch.has_lost(second(999), second(1_059)), "it may be on its stream");
        assert!(!epoch.has_lost(second(1_000), second(2_000)), "it came later");
        assert!(!Epoch::default().has_lost(second(999), second(2_000)), "no restore");
    }
}
