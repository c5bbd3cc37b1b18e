//! What a receiver outside Dibs is told: messages, each about one thing.
//!
//! An event becomes one message, but for `coupon.issued`: its row holds up to a hundred issuances, and each recipient is
//! told of one. Every time an event is told, its messages are the same, ids included, so that a receiver can recognise
//! one that comes again.

use std::{
    fmt::{self, Formatter},
    str::FromStr,
};

use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;

use crate::{clock::Timestamp, db::outbox::OutboxEvent, domain::claim::COUPON_ISSUED};

/// The id of a message: the sequence of its event, and its place in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MessageId {
    /// The event's place in the order of delivery.
    pub sequence: u64,
    /// 0 for the first message of the event.
    pub place: u32,
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "event-{}-{}", self.sequence, self.place)
    }
}

impl FromStr for MessageId {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const EXPECTED: &str = "expected the id of a message, such as event-7-0";
        let (sequence, place) = text.strip_prefix("event-").and_then(|rest| rest.split_once('-')).ok_or(EXPECTED)?;
        let (Ok(sequence), Ok(place)) = (sequence.parse(), place.parse()) else { return Err(EXPECTED) };
        Ok(Self { sequence, place })
    }
}

impl Serialize for MessageId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A message, as receivers get it: this in JSON.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Message {
    /// The same whenever this is told.
    pub id: MessageId,
    /// What happened, such as `order.paid`.
    #[serde(rename = "type")]
    pub kind: String,
    /// When it happened.
    pub timestamp: Timestamp,
    /// ORDER, COUPON, POINTS or PRODUCT.
    pub aggregate_type: String,
    /// The id of what it is about. Messages about one thing are told in their order, which is that of `sequence`.
    pub aggregate_id: String,
    /// The event's place in the order of delivery.
    pub sequence: u64,
    /// The thing after it happened.
    pub data: Box<RawValue>,
}

/// Who is told by HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receiver {
    /// Of every event of an order, those of each order in their order.
    DataPlatform,
    /// Of every coupon that is issued, in no order.
    Notifications,
}

impl Receiver {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::DataPlatform, Self::Notifications];

    /// Its name as a sink.
    pub const fn name(self) -> &'static str {
        match self {
            Self::DataPlatform => "data-platform",
            Self::Notifications => "notifications",
        }
    }

    /// The kinds of events that it is told of.
    pub const fn kinds(self) -> &'static [&'static str] {
        match self {
            Self::DataPlatform => {
                &["order.created", "order.paid", "order.confirmed", "order.cancelled", "order.expired"]
            }
            Self::Notifications => &[COUPON_ISSUED],
        }
    }

    /// Whether what it is told of one thing comes in the order in which it happened.
    pub const fn is_in_order(self) -> bool {
        matches!(self, Self::DataPlatform)
    }
}

/// The payload of `coupon.issued`, as its row holds it.
#[derive(Deserialize)]
struct CouponsIssued<'p> {
    #[serde(borrow, rename = "couponId")]
    coupon_id: &'p RawValue,
    #[serde(borrow, rename = "issuedAt")]
    issued_at: &'p RawValue,
    #[serde(borrow)]
    issuances: Vec<Recipient<'p>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Recipient<'p> {
    #[serde(borrow)]
    user_coupon_id: &'p RawValue,
    #[serde(borrow)]
    user_id: &'p RawValue,
    #[serde(borrow)]
    valid_until: &'p RawValue,
}

/// What is told of one issuance.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Told<'p> {
    user_coupon_id: &'p RawValue,
    coupon_id: &'p RawValue,
    user_id: &'p RawValue,
    issued_at: &'p RawValue,
    valid_until: &'p RawValue,
}

/// The messages of an event, in order.
///
/// # Errors
///
/// When the payload is not what Dibs writes.
pub fn messages(event: &OutboxEvent) -> Result<Vec<Message>, serde_json::Error> {
    let message = |place, data| Message {
        id: MessageId { sequence: event.sequence, place },
        kind: event.kind.clone(),
        timestamp: event.created_at,
        aggregate_type: event.aggregate_type.clone(),
        aggregate_id: event.aggregate_id.clone(),
        sequence: event.sequence,
        data,
    };
    if event.kind != COUPON_ISSUED {
        return Ok(vec![message(0, serde_json::from_str(&event.payload)?)]);
    }
    let CouponsIssued { coupon_id, issued_at, issuances } = serde_json::from_str(&event.payload)?;
    let told = (0..).zip(&issuances).map(|(place, Recipient { user_coupon_id, user_id, valid_until })| {
        let told = Told { user_coupon_id, coupon_id, user_id, issued_at, valid_until };
        Ok(message(place, serde_json::value::to_raw_value(&told)?))
    });
    told.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: &str, payload: &str) -> OutboxEvent {
        OutboxEvent {
            sequence: 7,
            aggregate_type: "COUPON".into(),
            aggregate_id: "3".into(),
            kind: kind.into(),
            payload: payload.into(),
            created_at: "2026-11-21T03:00:00Z".parse().expect("a moment"),
        }
    }

    fn told(event: &OutboxEvent) -> Vec<String> {
        let messages = messages(event).expect("readable");
        messages.iter().map(|message| serde_json::to_string(message).expect("JSON")).collect()
    }

    #[test]
    fn each_recipient_of_a_coupon_is_told_of_one_issuance() {
        let payload = r#"{"couponId": 3, "issuedAt": "2026-11-21T03:00:00Z", "issuances": [
            {"userCouponId": "a", "userId": 1, "validUntil": "2026-12-21T03:00:00Z"},
            {"userCouponId": "b", "userId": 2, "validUntil": "2026-12-21T03:00:00Z"}]}"#;
        let told = told(&event("coupon.issued", payload));
        assert_eq!(told.len(), 2);
        assert_eq!(
            told[1],
            concat!(
                r#"{"id":"event-7-1","type":"coupon.issued","timestamp":"2026-11-21T03:00:00Z","aggregateType":"COUPON","#,
                r#""aggregateId":"3","sequence":7,"data":{"userCouponId":"b","couponId":3,"userId":2,"#,
                r#""issuedAt":"2026-11-21T03:00:00Z","validUntil":"2026-12-21T03:00:00Z"}}"#
            )
        );
    }

    #[test]
    fn an_id_is_read_as_it_is_written() {
        let id = MessageId { sequence: 7, place: 3 };
        assert_eq!(id.to_string().parse(), Ok(id));
        for wrong in ["", "event-7", "event-7-x", "7-3"] {
            wrong.parse::<MessageId>().expect_err(wrong);
        }
    }

    #[test]
    fn any_other_event_is_one_message_with_its_payload() {
        let told = told(&event("order.paid", r#"{"orderId": "x"}"#));
        assert_eq!(told.len(), 1);
        assert!(told[0].ends_with(r#""data":{"orderId": "x"}}"#), "{told:?}");
    }

    #[test]
    fn what_dibs_would_not_write_is_no_message() {
        messages(&event("coupon.issued", r#"{"couponId": 3}"#)).expect_err("it names no issuances");
        messages(&event("order.paid", "oops")).expect_err("it is not JSON");
    }
}
