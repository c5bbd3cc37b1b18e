use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
};

use axum::{
    Json, Router,
    extract::State,
    http::{HeaderMap, StatusCode},
    routing::post,
};
use dibs_common::testing::serve_router;
use serde_json::{Value, json};
use tokio::sync::Notify;

/// What the gateway does with a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    Approve,
    /// Approves, and never answers.
    ApproveInSilence,
    /// Approves, and answers once it is released.
    ApproveOnceReleased,
    Say(u16, String),
}

impl Reply {
    pub fn say(status: u16, body: &Value) -> Self {
        Self::Say(status, body.to_string())
    }
}

#[derive(Default)]
struct Books {
    reply: Option<Reply>,
    released: Arc<Notify>,
    questions: Vec<(String, Value)>,
    taken: BTreeMap<String, i64>,
}

/// A payment gateway of a test's own, on a port of its own.
#[derive(Clone)]
pub struct TestGateway {
    pub url: String,
    books: Arc<Mutex<Books>>,
}

impl TestGateway {
    pub async fn new(reply: Reply) -> Self {
        let books = Arc::new(Mutex::new(Books { reply: Some(reply), ..Books::default() }));
        let router = Router::new().route("/shop/payments", post(answer)).with_state(Arc::clone(&books));
        Self { url: format!("{}/shop", serve_router(router).await), books }
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().expect("books")
    }

    /// What it does from now on.
    pub fn will(&self, reply: Reply) {
        self.books().reply = Some(reply);
    }

    /// Lets one question go that waits to be answered.
    pub fn release(&self) {
        self.books().released.notify_one();
    }

    /// The idempotency key and the body of every question so far.
    pub fn questions(&self) -> Vec<(String, Value)> {
        self.books().questions.clone()
    }

    pub fn money(&self) -> i64 {
        self.books().taken.values().sum()
    }
}

async fn answer(
    State(books): State<Arc<Mutex<Books>>>,
    headers: HeaderMap,
    Json(question): Json<Value>,
) -> (StatusCode, String) {
    let (reply, released) = {
        let mut books = books.lock().expect("books");
        let key = headers["idempotency-key"].to_str().expect("text").to_owned();
        books.questions.push((key.clone(), question.clone()));
        let reply = books.reply.clone().expect("a reply");
        if !matches!(reply, Reply::Say(..)) {
            books.taken.insert(key, question["amount"].as_i64().expect("an amount"));
        }
        (reply, Arc::clone(&books.released))
    };
    if reply == Reply::ApproveOnceReleased {
        released.notified().await;
    }
    match reply {
        Reply::Approve | Reply::ApproveOnceReleased => (StatusCode::OK, json!({ "status": "APPROVED" }).to_string()),
        Reply::ApproveInSilence => std::future::pending().await,
        Reply::Say(status, body) => (StatusCode::from_u16(status).expect("a status"), body),
    }
}
