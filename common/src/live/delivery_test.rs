use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::{
    error::Result,
    redis::{Redis, texts},
};

/// A request that no worker has taken by then is forgotten.
const REQUEST_KEPT: Duration = Duration::from_mins(1);
const RESULT_KEPT: Duration = Duration::from_hours(1);

/// A test message that is to be sent to a receiver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeliveryTest {
    /// The id of the message.
    pub id: String,
    /// Who asked for it.
    pub actor: String,
    #[serde(serialize_with = "crate::clock::serialize")]
    pub requested_at: DateTime<Utc>,
}

/// What the receiver said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TestResult {
    pub id: String,
    /// None: no worker has sent it yet.
    #[serde(default)]
    pub outcome: Option<String>,
    /// Why it was not accepted.
    #[serde(default)]
    pub detail: Option<String>,
    #[serde(serialize_with = "crate::clock::serialize")]
    pub at: DateTime<Utc>,
}

/// Asks a worker to send a test message.
pub async fn request_test(redis: &Redis, sink: &str, test: &DeliveryTest) -> Result<()> {
    let pending = TestResult { id: test.id.clone(), outcome: None, detail: None, at: test.requested_at };
    store_test(redis, sink, &pending).await?;
    let json = serde_json::to_string(test).unwrap_or_default();
    texts::set(redis, &redis.keys.delivery_test(sink), &json, REQUEST_KEPT).await
}

/// Takes the request, so that one worker sends the message.
pub async fn take_test(redis: &Redis, sink: &str) -> Result<Option<DeliveryTest>> {
    let text = texts::take(redis, &redis.keys.delivery_test(sink)).await?;
    Ok(text.and_then(|text| serde_json::from_str(&text).ok()))
}

pub async fn store_test(redis: &Redis, sink: &str, result: &TestResult) -> Result<()> {
    let text = serde_json::to_string(result).unwrap_or_default();
    texts::set(redis, &redis.keys.delivery_tested(sink), &text, RESULT_KEPT).await
}

/// The last test of the last hour.
pub async fn last_test(redis: &Redis, sink: &str) -> Result<Option<TestResult>> {
    let text = texts::get(redis, &redis.keys.delivery_tested(sink)).await?;
    Ok(text.and_then(|text| serde_json::from_str(&text).ok()))
}
