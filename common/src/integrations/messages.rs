//! Events as receivers outside Dibs get them: messages, each about one aggregate.
//!
//! An event becomes one message, but for `coupon.issued`: its row holds up to a hundred issuances, and each becomes a
//! message of its own. An event always becomes the same messages, ids included, so that a receiver can deduplicate.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{
    clock::Timestamp,
    domain::{
        claim::COUPON_ISSUED,
        event::{MessageId, OutboxEvent},
        trace_context::TraceContext,
    },
};

/// A message. Receivers get this in JSON.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Message {
    /// The same in every delivery.
    pub id: MessageId,
    /// The type of its event, such as `order.paid`.
    #[serde(rename = "type")]
    pub kind: String,
    /// When the event was created.
    #[serde(serialize_with = "crate::clock::serialize")]
    pub timestamp: Timestamp,
    /// ORDER, COUPON, POINTS or PRODUCT.
    pub aggregate_type: String,
    /// Messages of one aggregate are ordered by `epoch` and `sequence`.
    pub aggregate_id: String,
    /// Changes when the database was restored to an earlier state.
    pub epoch: u64,
    /// The position of the event in the order of delivery.
    pub sequence: u64,
    /// The sampled request that it comes from, as the distributed tracing extension of `CloudEvents` names it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<TraceContext>,
    /// The state of the aggregate after the event.
    pub data: Box<RawValue>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::IntoStaticStr)]
#[strum(serialize_all = "kebab-case", const_into_str)]
pub enum Receiver {
    /// Gets every event of an order, those of each order in their order.
    DataPlatform,
    /// Gets every coupon that is issued, in any order.
    Notifications,
}

impl Receiver {
    pub const ALL: [Self; 2] = [Self::DataPlatform, Self::Notifications];

    pub const fn name(self) -> &'static str {
        // The key of its row in `sinks` and the source of its dead letters, so no variant is renamed.
        self.into_str()
    }

    /// The types of events that it gets.
    pub const fn kinds(self) -> &'static [&'static str] {
        match self {
            Self::DataPlatform => {
                &["order.created", "order.paid", "order.confirmed", "order.cancelled", "order.expired"]
            }
            Self::Notifications => &[COUPON_ISSUED],
        }
    }

    /// Whether it gets the messages of one aggregate in their order.
    pub const fn is_ordered(self) -> bool {
        matches!(self, Self::DataPlatform)
    }
}

// Raw values: numbers and times reach the receiver as the row has them, and are not parsed and written again.
/// The payload of `coupon.issued`, as its row holds it.
#[derive(Deserialize)]
struct CouponsIssued<'p> {
    #[serde(borrow, rename = "couponId")]
    coupon_id: &'p RawValue,
    #[serde(borrow, rename = "issuedAt")]
    issued_at: &'p RawValue,
    /// None in a row of an earlier version, whose issuances are objects.
    #[serde(borrow, rename = "validUntil")]
    valid_until: Option<&'p RawValue>,
    #[serde(borrow)]
    issuances: Vec<&'p RawValue>,
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

impl<'p> Recipient<'p> {
    fn read(issuance: &'p RawValue, valid_until: Option<&'p RawValue>) -> Result<Self, serde_json::Error> {
        let Some(valid_until) = valid_until else { return serde_json::from_str(issuance.get()) };
        let (user_id, user_coupon_id) = serde_json::from_str(issuance.get())?;
        Ok(Self { user_coupon_id, user_id, valid_until })
    }
}

/// The data of the message about one issuance.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CouponIssued<'p> {
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
/// When the payload does not have the form that Dibs writes.
pub fn messages(event: &OutboxEvent) -> Result<Vec<Message>, serde_json::Error> {
    let message = |place, data| Message {
        id: event.message_id(place),
        kind: event.kind.clone(),
        timestamp: event.created_at,
        aggregate_type: event.aggregate_type.clone(),
        aggregate_id: event.aggregate_id.clone(),
        epoch: event.epoch.0,
        sequence: event.sequence,
        traceparent: event.traces.get(&place).copied(),
        data,
    };
    if event.kind != COUPON_ISSUED {
        return Ok(vec![message(0, serde_json::from_str(&event.payload)?)]);
    }
    let CouponsIssued { coupon_id, issued_at, valid_until, issuances } = serde_json::from_str(&event.payload)?;
    let messages = (0..).zip(issuances).map(|(place, issuance)| {
        let Recipient { user_coupon_id, user_id, valid_until } = Recipient::read(issuance, valid_until)?;
        let data = CouponIssued { user_coupon_id, coupon_id, user_id, issued_at, valid_until };
        Ok(message(place, serde_json::value::to_raw_value(&data)?))
    });
    messages.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::event::{Epoch, EventTraces};

    fn event(kind: &str, payload: &str) -> OutboxEvent {
        OutboxEvent {
            epoch: Epoch::default(),
            sequence: 7,
            aggregate_type: "COUPON".into(),
            aggregate_id: "3".into(),
            kind: kind.into(),
            payload: payload.into(),
            created_at: "2026-11-21T03:00:00Z".parse().expect("a moment"),
            traces: EventTraces::new(),
        }
    }

    fn rendered(event: &OutboxEvent) -> Vec<String> {
        let messages = messages(event).expect("readable");
        messages.iter().map(|message| serde_json::to_string(message).expect("JSON")).collect()
    }

    #[test]
    fn each_issuance_of_an_event_is_a_message() {
        let payload = r#"{"couponId": 3, "issuedAt": "2026-11-21T03:00:00Z", "validUntil": "2026-12-21T03:00:00Z",
            "issuances": [[1, "a"], [2, "b"]]}"#;
        let of_an_earlier_version = r#"{"couponId": 3, "issuedAt": "2026-11-21T03:00:00Z", "issuances": [
            {"userCouponId": "a", "userId": 1, "validUntil": "2026-12-21T03:00:00Z"},
            {"userCouponId": "b", "userId": 2, "validUntil": "2026-12-21T03:00:00Z"}]}"#;
        for payload in [payload, of_an_earlier_version] {
            let messages = rendered(&event("coupon.issued", payload));
            assert_eq!(messages.len(), 2);
            assert_eq!(
                messages[1],
                concat!(
                    r#"{"id":"event-7-1","type":"coupon.issued","timestamp":"2026-11-21T03:00:00.000Z","#,
                    r#""aggregateType":"COUPON","aggregateId":"3","epoch":0,"sequence":7,"data":{"userCouponId":"b","#,
                    r#""couponId":3,"userId":2,"issuedAt":"2026-11-21T03:00:00Z","validUntil":"2026-12-21T03:00:00Z"}}"#
                )
            );
        }
    }

    #[test]
    fn any_other_event_is_one_message_with_its_payload() {
        let messages = rendered(&event("order.paid", r#"{"orderId": "x"}"#));
        assert_eq!(messages.len(), 1);
        assert!(messages[0].ends_with(r#""data":{"orderId": "x"}}"#), "{messages:?}");
    }

    #[test]
    fn an_invalid_payload_is_no_message() {
        messages(&event("coupon.issued", r#"{"couponId": 3}"#)).expect_err("it names no issuances");
        messages(&event("order.paid", "oops")).expect_err("it is not JSON");
    }
}
