use std::{net::SocketAddr, time::Duration};

use axum::{Router, routing::get};
use clap::Parser;
use dibs_api::{
    access::policy::{Access, Listener, Place, Policy},
    app::{App, SharedApp},
    edge::Edge,
    serve,
    settings::ApiSettings,
};
use dibs_common::{
    config::Settings,
    domain::{campaign::CampaignTerms, order::OrderRules},
    identifiers::{CouponId, Partition},
    supervisor::Supervisor,
    testing::{FIRST, FaultProxy, TestEnvironment, eventually, no_metrics, open_terms, serve_router},
};
use dibs_worker::{
    Worker,
    issuance::{ClaimWorker, claim_worker},
    streams::ReclaimPolicy,
};
use futures::future::join_all;
use metrics_exporter_prometheus::PrometheusHandle;
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::described::Sent;

pub const ADMIN_TOKEN: &str = "a token of the tests";

/// Orders as settings have them by default.
pub const RULES: OrderRules = OrderRules::DEFAULT;

/// The routes that [`TestApp::serve_panic`] serves.
const PANIC: &[Policy] = &[Policy { method: "GET", path: "/panic", access: Access::Public, place: Place::Both }];

/// An answer, taken apart.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: reqwest::header::HeaderMap,
    pub body: Value,
}

impl Answer {
    /// The stable code of a refusal.
    pub fn code(&self) -> &str {
        self.body["code"].as_str().unwrap_or_else(|| panic!("a problem with a code: {self:?}"))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    pub async fn of(request: RequestBuilder) -> Self {
        let (client, request) = request.build_split();
        let request = request.expect("a request");
        let sent = Sent::of(&request);
        let response = client.execute(request).await.expect("an answer");
        let (status, headers) = (response.status(), response.headers().clone());
        let bytes = response.bytes().await.expect("a body");
        assert!(headers.contains_key("x-request-id"), "every answer has a request id");
        let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        if status.is_client_error() || (status.is_server_error() && body["dependencies"].is_null()) {
            assert_eq!(headers["content-type"], "application/problem+json");
            assert_eq!(body["status"], status.as_u16());
            assert_eq!(body["requestId"], headers["x-request-id"].to_str().expect("text"));
        }
        sent.expect_described(status, &headers, &body);
        Self { status, headers, body }
    }
}

/// Settings that lead to the servers of `shared`, changed by `change`.
fn settings(shared: Settings, change: impl FnOnce(&mut ApiSettings)) -> ApiSettings {
    let given =
        ["test", "--database-url=mysql://unused/unused", "--redis-url=redis://unused", "--admin-token", ADMIN_TOKEN];
    let mut settings = ApiSettings::try_parse_from(given).expect("settings");
    settings.shared = shared;
    change(&mut settings);
    settings
}

/// The API on a port of its own, in an environment of its own.
pub struct TestApp {
    pub environment: TestEnvironment,
    pub app: SharedApp,
    pub address: SocketAddr,
    pub client: reqwest::Client,
    serving: JoinHandle<()>,
    working: Option<(CancellationToken, JoinHandle<()>)>,
}

impl TestApp {
    pub async fn new() -> Self {
        Self::at(TestEnvironment::new().await).await
    }

    pub async fn at(environment: TestEnvironment) -> Self {
        let shared = environment.settings.clone();
        Self::with(environment, shared, |_| ()).await
    }

    /// The API with settings that differ: another way to the servers, or changed by `change`.
    pub async fn with(environment: TestEnvironment, shared: Settings, change: impl FnOnce(&mut ApiSettings)) -> Self {
        Self::serving(environment, settings(shared, change), no_metrics(), Supervisor::new(CancellationToken::new()))
            .await
    }

    /// The API with a recorder of metrics, of which a process has at most one.
    pub async fn with_metrics(environment: TestEnvironment, shared: Settings, metrics: PrometheusHandle) -> Self {
        Self::serving(environment, settings(shared, |_| ()), metrics, Supervisor::new(CancellationToken::new())).await
    }

    /// The API with a supervisor that injects faults.
    pub async fn supervised(environment: TestEnvironment, shared: Settings, supervisor: Supervisor) -> Self {
        Self::serving(environment, settings(shared, |_| ()), no_metrics(), supervisor).await
    }

    async fn serving(
        environment: TestEnvironment,
        settings: ApiSettings,
        metrics: PrometheusHandle,
        supervisor: Supervisor,
    ) -> Self {
        let app = App::start(settings, metrics, supervisor).await.expect("the API");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let served = app.clone();
        let serving = tokio::spawn(async move { serve(served, listener).await.expect("served") });
        let client = reqwest::Client::builder().timeout(Duration::from_secs(15)).build().expect("a client");
        Self { environment, app, address, client, serving, working: None }
    }

    /// The API, and the id of an open campaign.
    pub async fn with_campaign(total_quantity: u32) -> (Self, CouponId) {
        let app = Self::new().await;
        let coupon = app.environment.campaign(total_quantity).await.id;
        (app, coupon)
    }

    /// The API on proxies that can break its connections: to the database, and to Redis.
    pub async fn behind_proxies() -> (Self, FaultProxy, FaultProxy) {
        let environment = TestEnvironment::new().await;
        let (settings, database, redis) = environment.behind_proxies().await;
        (Self::with(environment, settings, |_| ()).await, database, redis)
    }

    /// Serves `/panic` behind the edge of the API, until the test ends. Returns the URL without the path.
    pub async fn serve_panic(&self) -> String {
        let panicking = get(async || -> () { panic!("on purpose") });
        let edge = Edge::new(self.app.clone(), Listener::Only, PANIC);
        serve_router(Router::new().route("/panic", panicking).route("/unlisted", get(async || ())).layer(edge)).await
    }

    /// The API, and a worker that works.
    pub async fn with_worker() -> Self {
        let mut app = Self::new().await;
        app.start_worker(RULES);
        app
    }

    /// Another API process for the same shop.
    pub async fn second(&self) -> SecondApi {
        let settings = ApiSettings { shared: self.environment.settings.clone(), ..self.app.settings.clone() };
        let supervisor = Supervisor::new(CancellationToken::new());
        let app = App::start(settings, no_metrics(), supervisor).await.expect("the API");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let served = app.clone();
        let serving = tokio::spawn(async move { serve(served, listener).await.expect("served") });
        SecondApi { app, address, client: self.client.clone(), serving }
    }

    /// Lets a worker work until the end.
    pub fn start_worker(&mut self, rules: OrderRules) {
        let stopping = CancellationToken::new();
        let (database, redis) = (&self.environment.database, &self.environment.redis);
        let worker = Worker { rules, ..Worker::new(database, redis, Supervisor::new(stopping.clone())) };
        let working = tokio::spawn(worker.run(self.environment.settings.claim_partitions));
        self.working = Some((stopping, working));
    }

    /// Stops the worker, once what it has in flight is done.
    pub async fn stop_worker(&mut self) {
        if let Some((stopping, working)) = self.working.take() {
            stopping.cancel();
            working.await.expect("the worker ended by itself");
        }
    }

    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("http://{}{path}", self.address))
    }

    pub async fn get(&self, path: &str) -> Answer {
        Answer::of(self.request(Method::GET, path)).await
    }

    /// Waits until a resource has this status.
    pub async fn eventually_shows(&self, path: &str, status: &str) {
        eventually(&format!("{path} is {status}"), Duration::from_secs(20), async || {
            self.get(path).await.body["status"] == status
        })
        .await;
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        Answer::of(self.request(Method::POST, path).json(&body)).await
    }

    pub async fn administer(&self, path: &str, body: Value) -> Answer {
        Answer::of(self.request(Method::POST, path).bearer_auth(ADMIN_TOKEN).json(&body)).await
    }

    pub async fn get_as_administrator(&self, path: &str) -> Answer {
        Answer::of(self.request(Method::GET, path).bearer_auth(ADMIN_TOKEN)).await
    }

    pub async fn patch(&self, path: &str, body: Value) -> Answer {
        Answer::of(self.request(Method::PATCH, path).bearer_auth(ADMIN_TOKEN).json(&body)).await
    }

    pub async fn claim(&self, coupon: CouponId, user: u64) -> Answer {
        self.post("/coupons/issue", claim_body(coupon, user)).await
    }

    pub async fn claim_and_wait(&self, coupon: CouponId, user: u64) -> Answer {
        let request = self.request(Method::POST, "/coupons/issue").header("prefer", "wait=10");
        Answer::of(request.json(&claim_body(coupon, user))).await
    }

    pub async fn claim_state(&self, coupon: CouponId, user: u64) -> Answer {
        self.get(&format!("/coupons/{coupon}/claims/{user}")).await
    }

    pub fn worker(&self, partition: Partition) -> ClaimWorker {
        claim_worker(&self.environment.database, &self.environment.redis, partition, ReclaimPolicy::default())
    }

    /// Confirms every claim that was accepted so far.
    pub async fn work(&self) {
        let partitions = 0..self.environment.settings.claim_partitions;
        join_all(partitions.map(Partition).map(async |partition| {
            self.worker(partition).drain(partition).await.expect("drained");
        }))
        .await;
    }

    /// Stops the API as SIGTERM does, and ends its environment.
    pub async fn end(mut self) {
        self.stop_worker().await;
        self.app.stopping.cancel();
        drop(self.client);
        self.serving.await.expect("the API ended by itself");
        drop(self.app);
        self.environment.end().await;
    }
}

pub fn claim_body(coupon: CouponId, user: u64) -> Value {
    json!({ "couponId": coupon, "userId": user })
}

/// The body that makes a campaign of these terms.
pub fn terms_body(change: impl FnOnce(&mut CampaignTerms)) -> Value {
    let mut terms = open_terms();
    change(&mut terms);
    serde_json::to_value(terms).expect("JSON")
}

/// The partition of every campaign, where there is only one.
pub const ONLY: Partition = FIRST;

/// An API process beside that of a [`TestApp`].
pub struct SecondApi {
    app: SharedApp,
    address: SocketAddr,
    client: reqwest::Client,
    serving: JoinHandle<()>,
}

impl SecondApi {
    pub async fn claim(&self, coupon: CouponId, user: u64) -> Answer {
        let request = self.client.post(format!("http://{}/coupons/issue", self.address));
        Answer::of(request.json(&claim_body(coupon, user))).await
    }

    pub async fn end(self) {
        self.app.stopping.cancel();
        drop(self.client);
        self.serving.await.expect("the API ended by itself");
    }
}
