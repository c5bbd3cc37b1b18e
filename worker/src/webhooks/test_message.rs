//! Test messages, which an administrator asks for in the console: is the receiver reachable, and does it take the
//! signature?

use std::time::Duration;

use bytes::Bytes;
use dibs_common::{
    clock,
    error::Result,
    integrations::{
        messages::Receiver,
        webhooks::{Delivery, DeliveryFailure, WebhookEndpoint},
    },
    live::{self, DeliveryTest, TestResult},
    redis::Redis,
    retry,
};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::Webhooks;

/// The type of a test message. A receiver ignores types that it does not know, as the specification says.
const TEST: &str = "dibs.test";
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// Sends the test messages that are asked for, until the process stops.
pub(crate) async fn send_tests(redis: Redis, webhooks: Webhooks, stopping: CancellationToken) {
    let Webhooks { data_platform, notifications } = webhooks;
    let receivers = [(Receiver::DataPlatform, data_platform), (Receiver::Notifications, notifications)];
    let mut rounds = retry::every(POLL_INTERVAL, &stopping);
    while rounds.next().await {
        for (receiver, endpoint) in &receivers {
            let Some(endpoint) = endpoint else { continue };
            if let Err(error) = send_requested(&redis, *receiver, endpoint).await {
                tracing::debug!(sink = receiver.name(), cause = error.chain(), "test message not sent");
            }
        }
    }
}

async fn send_requested(redis: &Redis, receiver: Receiver, endpoint: &WebhookEndpoint) -> Result<()> {
    let Some(test) = live::take_test(redis, receiver.name()).await? else { return Ok(()) };
    let delivery = endpoint.send(&test.id, body(&test), None).await;
    let outcome: &'static str = (&delivery).into();
    let detail = match delivery {
        Delivery::Accepted => None,
        Delivery::Refused(why) | Delivery::Failed(DeliveryFailure { reason: why, .. }) => Some(why),
    };
    let result = TestResult { id: test.id, outcome: Some(outcome.into()), detail, at: clock::now() };
    live::store_test(redis, receiver.name(), &result).await
}

fn body(test: &DeliveryTest) -> Bytes {
    let message = json!({
        "id": test.id, "type": TEST, "timestamp": clock::text(test.requested_at), "data": { "requestedBy": test.actor },
    });
    message.to_string().into()
}
