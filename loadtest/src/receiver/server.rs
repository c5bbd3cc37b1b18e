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
    extract::{DefaultBodyLimit, Path as PathOf, State},
    http::{HeaderMap, StatusCode},
    routing::post,
};
use dibs_common::{
    clock,
    integrations::{
        messages::MessageId,
        webhooks::{ID_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER, WebhookSecrets},
    },
};
use serde::Deserialize;
use tokio::{net::TcpListener, task::JoinHandle, time::Instant};

use super::Faults;
use crate::record::{Arrival, Deliveries};

/// How far the time of a message may be off.
const TOLERANCE_SECONDS: u64 = 300;
/// The longest message, in bytes.
const LONGEST_MESSAGE: usize = 1024 * 1024;

/// A receiver that runs until it is dropped.
pub struct Receiver {
    /// Where it listens.
    pub address: SocketAddr,
    desk: Arc<Desk>,
    serving: JoinHandle<()>,
}

struct Desk {
    secrets: WebhookSecrets,
    faults: Faults,
    began: Instant,
    books: Mutex<Books>,
}

struct Books {
    deliveries: Deliveries,
    record: Option<BufWriter<File>>,
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Receiver {
    /// Begins to receive. A record is written to `record`, when it is given; a file that is there is added to.
    pub async fn start(
        address: SocketAddr,
        secrets: WebhookSecrets,
        faults: Faults,
        record: Option<&Path>,
    ) -> Result<Self> {
        let record = record.map(Deliveries::append_to).transpose()?.map(BufWriter::new);
        let books = Mutex::new(Books { deliveries: Deliveries::default(), record });
        let desk = Arc::new(Desk { secrets, faults, began: Instant::now(), books });
        let listener = TcpListener::bind(address).await.context("listening")?;
        let address = listener.local_addr().context("listening")?;
        let router = Router::new()
            .route("/{sink}", post(take))
            .layer(DefaultBodyLimit::max(LONGEST_MESSAGE))
            .with_state(Arc::clone(&desk));
        let serving = tokio::spawn(async move {
            // It ends with an error only where it could not begin.
            let _ended: std::io::Result<()> = axum::serve(listener, router).await;
        });
        Ok(Self { address, desk, serving })
    }

    /// Where the sink of that name is told.
    pub fn url(&self, sink: &str) -> String {
        format!("http://{}/{sink}", self.address)
    }

    /// All that came so far.
    pub fn deliveries(&self) -> Deliveries {
        self.desk.books().deliveries.clone()
    }
}

impl Desk {
    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at what came, records it, and says what to answer.
    fn receive(&self, sink: String, headers: &HeaderMap, body: &[u8]) -> StatusCode {
        let header = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let id = header(ID_HEADER);
        let told = serde_json::from_slice::<Told>(body).unwrap_or_default();
        let fault = self.fault(id, &told, headers, body);
        let status = match fault {
            Some(_) => StatusCode::UNAUTHORIZED,
            None if self.faults.strike(self.began.elapsed()) => StatusCode::SERVICE_UNAVAILABLE,
            None => StatusCode::NO_CONTENT,
        };
        let mut books = self.books();
        let of_sink = books.deliveries.sinks.entry(sink.clone()).or_default();
        let attempt = id.parse::<MessageId>().map_or(1, |id| of_sink.next_attempt(id));
        let Told { kind, aggregate_id, .. } = told;
        let arrival = Arrival { sink, id: id.to_owned(), kind, aggregate_id, attempt, fault, status: status.as_u16() };
        books.add(&arrival);
        status
    }

    fn fault(&self, id: &str, told: &Told, headers: &HeaderMap, body: &[u8]) -> Option<String> {
        let header = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let Ok(timestamp) = header(TIMESTAMP_HEADER).parse::<i64>() else { return Some("no timestamp".into()) };
        if clock::now().timestamp().abs_diff(timestamp) > TOLERANCE_SECONDS {
            return Some(format!("timestamp {timestamp} is too far from now"));
        }
        if !self.secrets.verify(id, timestamp, body, header(SIGNATURE_HEADER)) {
            return Some("the signature is not one of this message".into());
        }
        (told.id != id).then(|| format!("the body says that its id is '{}'", told.id))
    }
}

impl Books {
    fn add(&mut self, arrival: &Arrival) {
        self.deliveries.add(arrival);
        if let Some(record) = &mut self.record {
            // Flushed line by line, so that what was answered is on file whoever ends this process.
            let line = serde_json::to_string(arrival).unwrap_or_default();
            let written = writeln!(record, "{line}").and_then(|()| record.flush());
            if let Err(error) = written {
                crate::output::note(&format!("the record cannot be written any further: {error}"));
                self.record = None;
            }
        }
    }
}

/// What is read of a message.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Told {
    id: String,
    #[serde(rename = "type")]
    kind: String,
    aggregate_id: String,
}

async fn take(
    State(desk): State<Arc<Desk>>,
    PathOf(sink): PathOf<String>,
    headers: HeaderMap,
    body: Bytes,
) -> StatusCode {
    let status = desk.receive(sink, &headers, &body);
    if desk.faults.slow > Duration::ZERO {
        tokio::time::sleep(desk.faults.slow).await;
    }
    status
}
