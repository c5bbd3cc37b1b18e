use std::{
    fs::File,
    io::{BufWriter, Write as _},
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result};
use axum::{
    Router,
    body::Bytes,
    extract::{self, DefaultBodyLimit, State},
    http::{HeaderMap, StatusCode},
    routing::post,
};
use dibs_common::{
    clock,
    domain::event::MessageId,
    integrations::webhooks::{ID_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER, WebhookSecrets},
};
use serde::Deserialize;
use tokio::{net::TcpListener, task::JoinHandle, time::Instant};

use super::Faults;
use crate::{
    output,
    record::{Deliveries, DeliveryAttempt},
};

/// How far the timestamp of a message may be off; the Standard Webhooks specification recommends five minutes.
const TOLERANCE_SECONDS: u64 = 300;
const MAX_MESSAGE_BYTES: usize = 1024 * 1024;

/// A receiver that runs until it is dropped.
pub struct Receiver {
    pub address: SocketAddr,
    state: Arc<ReceiverState>,
    server: JoinHandle<()>,
}

struct ReceiverState {
    secrets: WebhookSecrets,
    faults: Faults,
    began: Instant,
    recording: Mutex<Recording>,
}

struct Recording {
    deliveries: Deliveries,
    file: Option<BufWriter<File>>,
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Receiver {
    /// Starts to listen. `record` is a file that every attempt is appended to.
    pub async fn start(
        address: SocketAddr,
        secrets: WebhookSecrets,
        faults: Faults,
        record: Option<&Path>,
    ) -> Result<Self> {
        let file = record.map(Deliveries::append_to).transpose()?.map(BufWriter::new);
        let recording = Mutex::new(Recording { deliveries: Deliveries::default(), file });
        let state = Arc::new(ReceiverState { secrets, faults, began: Instant::now(), recording });
        let listener = TcpListener::bind(address).await.with_context(|| format!("listening on {address}"))?;
        let address = listener.local_addr().context("reading the address of the listener")?;
        let router = Router::new()
            .route("/{sink}", post(receive))
            .layer(DefaultBodyLimit::max(MAX_MESSAGE_BYTES))
            .with_state(Arc::clone(&state));
        let server = tokio::spawn(async move {
            // axum's accept loop retries errors, so it never ends by itself.
            let _ended: std::io::Result<()> = axum::serve(listener, router).await;
        });
        Ok(Self { address, state, server })
    }

    /// The URL of a sink.
    pub fn url(&self, sink: &str) -> String {
        format!("http://{}/{sink}", self.address)
    }

    /// All attempts so far.
    pub fn deliveries(&self) -> Deliveries {
        self.state.recording().deliveries.clone()
    }
}

impl ReceiverState {
    fn recording(&self) -> MutexGuard<'_, Recording> {
        self.recording.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Verifies and records a message; returns the status of the response.
    fn receive(&self, sink: String, headers: &HeaderMap, body: &[u8]) -> StatusCode {
        let id = header(headers, ID_HEADER);
        let head = serde_json::from_slice::<MessageHead>(body).unwrap_or_default();
        // The signature is verified before the faults strike: an invalid message is recorded even in an outage.
        let fault = self.fault(id, &head, headers, body);
        let status = match fault {
            // Dibs treats a 401 as retryable, so a wrong secret of this receiver loses no message.
            Some(_) => StatusCode::UNAUTHORIZED,
            None if self.faults.strike(self.began.elapsed()) => StatusCode::SERVICE_UNAVAILABLE,
            None => StatusCode::NO_CONTENT,
        };
        let mut recording = self.recording();
        let deliveries = recording.deliveries.sinks.entry(sink.clone()).or_default();
        // A message with an invalid id has no attempts to count.
        let attempt = id.parse::<MessageId>().map_or(1, |id| deliveries.next_attempt(id));
        let MessageHead { kind, aggregate_id, .. } = head;
        let status_code = status.as_u16();
        recording.add(&DeliveryAttempt {
            sink,
            id: id.to_owned(),
            kind,
            aggregate_id,
            attempt,
            fault,
            status: status_code,
        });
        status
    }

    /// What is invalid about a message.
    fn fault(&self, id: &str, head: &MessageHead, headers: &HeaderMap, body: &[u8]) -> Option<String> {
        let Ok(timestamp) = header(headers, TIMESTAMP_HEADER).parse::<i64>() else {
            return Some("no timestamp".into());
        };
        if clock::now().timestamp().abs_diff(timestamp) > TOLERANCE_SECONDS {
            return Some(format!("timestamp {timestamp} is more than {TOLERANCE_SECONDS} s off"));
        }
        if !self.secrets.verify(id, timestamp, body, header(headers, SIGNATURE_HEADER)) {
            return Some("the signature does not match".into());
        }
        (head.id != id).then(|| format!("the body has the id '{}'", head.id))
    }
}

impl Recording {
    fn add(&mut self, attempt: &DeliveryAttempt) {
        self.deliveries.add(attempt);
        if let Some(file) = &mut self.file {
            // Flushed line by line: the file must hold every attempt whose response was sent, even after SIGKILL.
            let line = serde_json::to_string(attempt).unwrap_or_default();
            if let Err(error) = writeln!(file, "{line}").and_then(|()| file.flush()) {
                output::note(&format!("writing the record: {error}; it ends here"));
                self.file = None;
            }
        }
    }
}

/// The fields of a message that a receiver reads.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct MessageHead {
    id: String,
    #[serde(rename = "type")]
    kind: String,
    aggregate_id: String,
}

fn header<'h>(headers: &'h HeaderMap, name: &str) -> &'h str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

async fn receive(
    State(state): State<Arc<ReceiverState>>,
    extract::Path(sink): extract::Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> StatusCode {
    // Recorded before the delay: a sender that times out has delivered all the same.
    let status = state.receive(sink, &headers, &body);
    if state.faults.delay > Duration::ZERO {
        tokio::time::sleep(state.faults.delay).await;
    }
    status
}

#[cfg(test)]
mod tests {
    use reqwest::Client;

    use super::*;
    use crate::receiver::Outage;

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const BODY: &str = r#"{"id": "event-1-0", "type": "order.paid", "aggregateId": "a", "data": {}}"#;

    fn secrets(secret: &str) -> WebhookSecrets {
        WebhookSecrets::parse(&secret.into()).expect("a secret")
    }

    async fn receiver(faults: Faults) -> Receiver {
        let anywhere = SocketAddr::from(([127, 0, 0, 1], 0));
        Receiver::start(anywhere, secrets(SECRET), faults, None).await.expect("a receiver")
    }

    /// Sends a message, signed with `secret` at `timestamp`; returns the status of the response.
    async fn send(receiver: &Receiver, id: &str, timestamp: i64, secret: &str) -> u16 {
        let signature = secrets(secret).signatures(id, timestamp, BODY.as_bytes());
        let request = Client::new().post(receiver.url("data-platform"));
        let request = request.header(ID_HEADER, id).header(TIMESTAMP_HEADER, timestamp.to_string());
        let response = request.header(SIGNATURE_HEADER, signature).body(BODY).send().await.expect("a response");
        response.status().as_u16()
    }

    fn now() -> i64 {
        clock::now().timestamp()
    }

    #[tokio::test]
    async fn a_valid_message_is_accepted_and_counted_by_its_id() {
        let receiver = receiver(Faults::default()).await;
        assert_eq!(send(&receiver, "event-1-0", now(), SECRET).await, 204);
        assert_eq!(send(&receiver, "event-1-0", now(), SECRET).await, 204);
        let deliveries = receiver.deliveries();
        let sink = &deliveries.sinks["data-platform"];
        assert_eq!((sink.attempts, sink.accepted().count(), sink.faults.count()), (2, 1, 0));
    }

    #[tokio::test]
    async fn an_invalid_message_is_refused_with_its_fault() {
        let receiver = receiver(Faults::default()).await;
        let stale = now() - 301;
        assert_eq!(send(&receiver, "event-1-0", stale, SECRET).await, 401);
        assert_eq!(send(&receiver, "event-1-0", now(), &format!("whsec_{}", "7".repeat(32))).await, 401);
        assert_eq!(send(&receiver, "event-2-0", now(), SECRET).await, 401);
        let unsigned = Client::new().post(receiver.url("data-platform")).body(BODY).send().await.expect("a response");
        assert_eq!(unsigned.status().as_u16(), 401);
        let deliveries = receiver.deliveries();
        let sink = &deliveries.sinks["data-platform"];
        let expected = [
            format!("data-platform event-1-0: timestamp {stale} is more than 300 s off"),
            "data-platform event-1-0: the signature does not match".to_owned(),
            "data-platform event-2-0: the body has the id 'event-1-0'".to_owned(),
            "data-platform : no timestamp".to_owned(),
        ];
        assert_eq!((sink.faults.samples(), sink.accepted().count()), (&expected[..], 0));
    }

    #[tokio::test]
    async fn a_message_in_an_outage_is_answered_with_503_and_not_accepted() {
        let outage = Some(Outage { after: Duration::ZERO, duration: Duration::from_mins(1) });
        let receiver = receiver(Faults { outage, ..Faults::default() }).await;
        assert_eq!(send(&receiver, "event-1-0", now(), SECRET).await, 503);
        let deliveries = receiver.deliveries();
        let sink = &deliveries.sinks["data-platform"];
        assert_eq!((sink.attempts, sink.rejected, sink.accepted().count(), sink.faults.count()), (1, 1, 0, 0));
    }
}
