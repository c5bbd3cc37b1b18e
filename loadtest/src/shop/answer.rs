//! What the users of a shop are answered, and which answers they may get.

use std::collections::BTreeMap;

use reqwest::Response;
use serde_json::Value;
use uuid::Uuid;

use crate::record::Call;

/// An answer that came.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The header of that name.
    pub location: Option<String>,
    /// The body, JSON; null when it is none.
    pub body: Value,
}

impl Answer {
    /// Reads it to its end; none when the connection breaks.
    pub async fn read(response: Response) -> Option<Self> {
        let status = response.status().as_u16();
        let location = response.headers().get("location").and_then(|value| Some(value.to_str().ok()?.to_owned()));
        let body = response.bytes().await.ok()?;
        let text = || Value::String(String::from_utf8_lossy(&body).into_owned());
        Some(Self { status, location, body: serde_json::from_slice(&body).unwrap_or_else(|_| text()) })
    }

    /// Whether it says that something was done, or will be.
    pub const fn is_success(&self) -> bool {
        self.status >= 200 && self.status < 300
    }

    /// The code of a refusal.
    pub fn code(&self) -> &str {
        self.text("code")
    }

    /// A text of the body, empty when there is none.
    pub fn text(&self, field: &str) -> &str {
        self.body[field].as_str().unwrap_or_default()
    }

    /// An id of the body.
    pub fn id(&self, field: &str) -> Option<Uuid> {
        self.text(field).parse().ok()
    }

    /// Status and code, as refusals are counted.
    pub fn refusal(&self) -> String {
        format!("{} {}", self.status, self.code())
    }

    /// Whether the same request is still being answered.
    pub fn is_in_progress(&self) -> bool {
        self.status == 409 && self.code() == "IDEMPOTENCY_IN_PROGRESS"
    }

    /// Whether two answers to requests with the same key may be: the same apart from the request's id, or in progress,
    /// or that the request is to be made again.
    pub fn may_stand_beside(&self, other: &Self) -> bool {
        let either = |holds: fn(&Self) -> bool| holds(self) || holds(other);
        either(Self::is_in_progress)
            || either(|answer| answer.status == 503)
            || (self.status == other.status && self.without_request_id() == other.without_request_id())
    }

    fn without_request_id(&self) -> Value {
        let mut body = self.body.clone();
        if let Value::Object(members) = &mut body {
            members.remove("requestId");
        }
        body
    }

    /// Whether the call may be answered so.
    pub fn is_expected_of(&self, call: Call) -> bool {
        if self.body.to_string().to_lowercase().contains("deadlock") {
            return false;
        }
        match self.status {
            503 => ["DEPENDENCY_UNAVAILABLE", "CAMPAIGN_UNAVAILABLE", "OVERLOADED"].contains(&self.code()),
            status if self.is_success() => successes(call).contains(&status),
            _ => self.is_in_progress() || refusals(call).contains(&self.code()),
        }
    }
}

const fn successes(call: Call) -> &'static [u16] {
    match call {
        Call::Place => &[201, 202],
        Call::Charge | Call::Pay | Call::Confirm | Call::Cancel | Call::FollowUp => &[200, 202],
        Call::Claim => &[202],
        _ => &[200],
    }
}

const fn refusals(call: Call) -> &'static [&'static str] {
    match call {
        Call::Charge => &["POINTS_CAP_EXCEEDED"],
        Call::Claim => &["COUPON_ALREADY_ISSUED", "COUPON_EXHAUSTED"],
        Call::Place => &["STOCK_INSUFFICIENT", "COUPON_NOT_USABLE", "POINTS_INSUFFICIENT", "PRODUCT_NOT_SELLING"],
        Call::Pay => &["ORDER_STATE_CONFLICT", "POINTS_INSUFFICIENT"],
        Call::Confirm => &["ORDER_STATE_CONFLICT"],
        Call::Cancel => &["ORDER_STATE_CONFLICT", "POINTS_CAP_EXCEEDED"],
        _ => &[],
    }
}

/// Counts a refusal.
pub fn count(refusals: &mut BTreeMap<String, u64>, answer: &Answer) {
    if !answer.is_success() {
        *refusals.entry(answer.refusal()).or_default() += 1;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn answer(status: u16, body: Value) -> Answer {
        Answer { status, location: None, body }
    }

    #[test]
    fn the_same_answer_may_differ_in_the_request_id_only() {
        let first = answer(422, json!({"code": "POINTS_INSUFFICIENT", "requestId": "1"}));
        assert!(first.may_stand_beside(&answer(422, json!({"code": "POINTS_INSUFFICIENT", "requestId": "2"}))));
        assert!(first.may_stand_beside(&answer(409, json!({"code": "IDEMPOTENCY_IN_PROGRESS"}))));
        assert!(!first.may_stand_beside(&answer(422, json!({"code": "STOCK_INSUFFICIENT", "requestId": "1"}))));
        assert!(!first.may_stand_beside(&answer(201, json!({}))));
    }

    #[test]
    fn what_no_call_may_be_answered_is_seen() {
        let expected = |call, status, code: &str| answer(status, json!({"code": code})).is_expected_of(call);
        assert!(expected(Call::Place, 422, "STOCK_INSUFFICIENT"));
        assert!(expected(Call::Place, 503, "OVERLOADED"));
        assert!(!expected(Call::Place, 500, "INTERNAL"));
        assert!(!expected(Call::Place, 404, "PRODUCT_NOT_FOUND"));
        assert!(!expected(Call::ShowOrder, 202, ""));
        assert!(!answer(200, json!({"detail": "Deadlock found"})).is_expected_of(Call::Balance));
    }
}
