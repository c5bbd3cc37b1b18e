//! A response of the API, and whether it keeps the contract of its operation.

use reqwest::Response;
use serde_json::Value;
use uuid::Uuid;

use crate::record::Operation;

#[derive(Clone, Debug)]
pub struct ApiResponse {
    pub status: u16,
    /// The `Location` header.
    pub location: Option<String>,
    /// The `Retry-After` header, in seconds.
    pub retry_after: Option<u64>,
    /// The JSON body; a string when it is not JSON.
    pub body: Value,
}

impl ApiResponse {
    /// Reads the whole response; none when the connection breaks.
    pub async fn read(response: Response) -> Option<Self> {
        let status = response.status().as_u16();
        let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
        let location = header("location").map(str::to_owned);
        let retry_after = header("retry-after").and_then(|value| value.parse().ok());
        let body = response.bytes().await.ok()?;
        let text = || Value::String(String::from_utf8_lossy(&body).into_owned());
        Some(Self { status, location, retry_after, body: serde_json::from_slice(&body).unwrap_or_else(|_| text()) })
    }

    pub const fn is_success(&self) -> bool {
        self.status >= 200 && self.status < 300
    }

    /// The code of a problem; empty when there is none.
    pub fn code(&self) -> &str {
        self.text("code")
    }

    /// A string field of the body; empty when there is none.
    pub fn text(&self, field: &str) -> &str {
        self.body[field].as_str().unwrap_or_default()
    }

    /// A field of the body that is a UUID.
    pub fn id(&self, field: &str) -> Option<Uuid> {
        self.text(field).parse().ok()
    }

    /// Status and code.
    pub fn rejection(&self) -> String {
        format!("{} {}", self.status, self.code())
    }

    /// Whether another request with the same key is in progress.
    pub fn is_in_progress(&self) -> bool {
        self.status == 409 && self.code() == "IDEMPOTENCY_IN_PROGRESS"
    }

    /// Whether these may be the responses to two requests with the same key: equal except for `requestId`, or one of
    /// them in progress or to be retried.
    pub fn is_consistent_with(&self, other: &Self) -> bool {
        let either = |holds: fn(&Self) -> bool| holds(self) || holds(other);
        either(Self::is_in_progress)
            || either(|response| response.status == 503)
            || (self.status == other.status && self.without_request_id() == other.without_request_id())
    }

    fn without_request_id(&self) -> Value {
        let mut body = self.body.clone();
        if let Value::Object(members) = &mut body {
            members.remove("requestId");
        }
        body
    }

    /// Whether the contract of the operation allows this response under load.
    pub fn is_expected_of(&self, operation: Operation) -> bool {
        // A deadlock is retried inside: no text of MySQL may reach a client.
        if self.body.to_string().to_lowercase().contains("deadlock") {
            return false;
        }
        match self.status {
            // Only while a process is killed or overloaded; other rejections are part of normal traffic.
            503 => ["DEPENDENCY_UNAVAILABLE", "CAMPAIGN_UNAVAILABLE", "OVERLOADED"].contains(&self.code()),
            status if self.is_success() => successes(operation).contains(&status),
            _ => self.is_in_progress() || rejections(operation).contains(&self.code()),
        }
    }
}

const fn successes(operation: Operation) -> &'static [u16] {
    match operation {
        Operation::Place => &[201, 202],
        Operation::Charge | Operation::Pay | Operation::Confirm | Operation::Cancel | Operation::PollOutcome => {
            &[200, 202]
        }
        Operation::Claim => &[202],
        _ => &[200],
    }
}

const fn rejections(operation: Operation) -> &'static [&'static str] {
    match operation {
        Operation::Charge => &["POINTS_CAP_EXCEEDED"],
        Operation::Claim => &["COUPON_ALREADY_ISSUED", "COUPON_EXHAUSTED"],
        Operation::Place => &[
            "STOCK_INSUFFICIENT",
            "COUPON_NOT_USABLE",
            "POINTS_INSUFFICIENT",
            "PRODUCT_NOT_SELLING",
            "UNPAID_ORDERS_LIMIT_EXCEEDED",
            "UNPAID_UNITS_LIMIT_EXCEEDED",
        ],
        Operation::Pay => &["ORDER_STATE_CONFLICT", "POINTS_INSUFFICIENT"],
        Operation::Confirm => &["ORDER_STATE_CONFLICT"],
        Operation::Cancel => &["ORDER_STATE_CONFLICT", "POINTS_CAP_EXCEEDED"],
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn response(status: u16, body: Value) -> ApiResponse {
        ApiResponse { status, location: None, retry_after: None, body }
    }

    #[test]
    fn responses_to_one_key_may_differ_in_the_request_id_only() {
        let first = response(422, json!({"code": "POINTS_INSUFFICIENT", "requestId": "1"}));
        let consistent = |status, body| first.is_consistent_with(&response(status, body));
        assert!(consistent(422, json!({"code": "POINTS_INSUFFICIENT", "requestId": "2"})));
        assert!(consistent(409, json!({"code": "IDEMPOTENCY_IN_PROGRESS"})));
        assert!(consistent(503, json!({"code": "OVERLOADED"})));
        assert!(!consistent(422, json!({"code": "STOCK_INSUFFICIENT", "requestId": "1"})));
        assert!(!consistent(201, json!({})));
    }

    #[test]
    fn a_response_outside_the_contract_is_unexpected() {
        let expected =
            |operation, status, code: &str| response(status, json!({"code": code})).is_expected_of(operation);
        assert!(expected(Operation::Place, 422, "STOCK_INSUFFICIENT"));
        assert!(expected(Operation::Place, 503, "OVERLOADED"));
        assert!(expected(Operation::Place, 409, "IDEMPOTENCY_IN_PROGRESS"));
        assert!(!expected(Operation::Place, 500, "INTERNAL"));
        assert!(!expected(Operation::Place, 503, "UNKNOWN"));
        assert!(!expected(Operation::Place, 404, "PRODUCT_NOT_FOUND"));
        assert!(!expected(Operation::ShowOrder, 202, ""));
        assert!(!response(200, json!({"detail": "Deadlock found"})).is_expected_of(Operation::Balance));
    }

    #[test]
    fn fields_of_a_body_are_read_and_missing_ones_are_empty() {
        let id = Uuid::from_u128(7);
        let response = response(422, json!({"code": "POINTS_INSUFFICIENT", "orderId": id, "status": 3}));
        assert_eq!((response.id("orderId"), response.id("status")), (Some(id), None));
        assert_eq!((response.text("status"), response.text("missing")), ("", ""));
        assert_eq!(response.rejection(), "422 POINTS_INSUFFICIENT");
    }

    #[tokio::test]
    async fn a_body_that_is_not_json_is_kept_as_text() {
        let plain = axum::http::Response::builder().status(500).header("location", "/orders/1").body("broken");
        let read = ApiResponse::read(plain.expect("a response").into()).await.expect("read");
        assert_eq!((read.status, read.location.as_deref(), read.body), (500, Some("/orders/1"), json!("broken")));
    }
}
