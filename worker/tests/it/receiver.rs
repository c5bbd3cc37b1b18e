//! A receiver of webhooks of a test's own, on a port of its own.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::post,
};
use dibs_common::{
    clock,
    integrations::webhooks::{ID_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER, WebhookEndpoint, WebhookSecrets},
    testing::serve_router,
};
use serde_json::Value;

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// A request, as it came.
#[derive(Clone, Debug)]
pub struct Arrival {
    pub id: String,
    pub message: Value,
    pub is_signed: bool,
    /// 1 for the first time this message came.
    pub attempt: usize,
    pub answered: u16,
}

impl Arrival {
    pub fn text(&self, field: &str) -> String {
        self.message[field].as_str().expect("text").to_owned()
    }
}

/// What is answered to a message: status, body, and `Retry-After`.
pub type Answer = (u16, &'static str, Option<&'static str>);
type Rule = Box<dyn Fn(&Arrival) -> Answer + Send>;

pub const OK: Answer = (200, "", None);

struct Books {
    rule: Rule,
    arrivals: Vec<Arrival>,
}

#[derive(Clone)]
pub struct TestReceiver {
    pub url: String,
    books: Arc<Mutex<Books>>,
}

impl TestReceiver {
    /// One that takes everything.
    pub async fn new() -> Self {
        let books = Arc::new(Mutex::new(Books { rule: Box::new(|_| OK), arrivals: Vec::new() }));
        let router = Router::new().route("/in", post(take)).with_state(Arc::clone(&books));
        Self { url: format!("{}/in", serve_router(router).await), books }
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().expect("books")
    }

    /// What it answers from now on.
    pub fn will(&self, rule: impl Fn(&Arrival) -> Answer + Send + 'static) {
        self.books().rule = Box::new(rule);
    }

    /// All that came so far.
    pub fn arrivals(&self) -> Vec<Arrival> {
        self.books().arrivals.clone()
    }

    /// The ids of what it has taken, each once, in order.
    pub fn taken(&self) -> Vec<String> {
        let mut taken: Vec<String> = Vec::new();
        for arrival in self.arrivals().iter().filter(|arrival| arrival.answered == 200) {
            if !taken.contains(&arrival.id) {
                taken.push(arrival.id.clone());
            }
        }
        taken
    }

    /// What it has taken of each aggregate, each message once: its sequences, in order.
    pub fn taken_by_aggregate(&self) -> BTreeMap<String, Vec<u64>> {
        let mut by_aggregate: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        for arrival in self.arrivals().iter().filter(|arrival| arrival.answered == 200) {
            let of_aggregate = by_aggregate.entry(arrival.text("aggregateId")).or_default();
            let sequence = arrival.message["sequence"].as_u64().expect("a sequence");
            if !of_aggregate.contains(&sequence) {
                of_aggregate.push(sequence);
            }
        }
        by_aggregate
    }

    pub fn endpoint(&self) -> WebhookEndpoint {
        endpoint(&self.url)
    }
}

pub fn endpoint(url: &str) -> WebhookEndpoint {
    let secrets = WebhookSecrets::parse(&SECRET.into()).expect("a secret");
    WebhookEndpoint::at("DATA_PLATFORM_URL", &url.into(), secrets).expect("a URL")
}

async fn take(State(books): State<Arc<Mutex<Books>>>, headers: HeaderMap, body: Bytes) -> Response {
    let header = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let (id, timestamp): (String, i64) = (header(ID_HEADER), header(TIMESTAMP_HEADER).parse().expect("seconds"));
    let secrets = WebhookSecrets::parse(&SECRET.into()).expect("a secret");
    let is_fresh = (clock::now().timestamp() - timestamp).abs() < 300;
    let mut books = books.lock().expect("books");
    let mut arrival = Arrival {
        message: serde_json::from_slice(&body).expect("JSON"),
        is_signed: is_fresh && secrets.verify(&id, timestamp, &body, &header(SIGNATURE_HEADER)),
        attempt: books.arrivals.iter().filter(|earlier| earlier.id == id).count() + 1,
        answered: 0,
        id,
    };
    let (status, text, retry_after) = (books.rule)(&arrival);
    arrival.answered = status;
    books.arrivals.push(arrival);
    let status = StatusCode::from_u16(status).expect("a status");
    match retry_after {
        Some(after) => (status, [("retry-after", after)], text).into_response(),
        None => (status, text).into_response(),
    }
}
