use std::{fmt::Write as _, time::Duration};

use dibs_common::{
    clock,
    db::{self, Database},
    domain::{campaign::Campaign, order::OrderRules},
    identifiers::{ClaimId, ProductId, UserId, new_uuid},
    redis::Redis,
    testing::{FIRST, FaultProxy, TestEnvironment},
};
use dibs_loadtest::{
    audit::{AuditReport, Evidence, ShopSettings, audit, audit_shop},
    record::{ClaimObservation, ClaimResponse, ClientRecord, Expectation, ExpectedState, Receipt, ShopRecord},
    stores::Stores,
    wait,
};
use dibs_worker::{
    assignments::assign_once,
    campaigns::{rebuild, reconcile_all},
    issuance::claim_worker,
    orders::command_processor,
    ranking::RankingSink,
    relay::{Relay, StepOutcome},
    streams::ReclaimPolicy,
};
use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    super::api::{ADMIN_TOKEN, serve_api},
    Network,
    operation::{Operation, Subject},
};

const RULES: OrderRules = OrderRules::DEFAULT;
const RECLAIM: ReclaimPolicy =
    ReclaimPolicy { min_idle: Duration::from_secs(1), poll_interval: Duration::from_millis(200) };
const PRICE: i64 = 5_000;
/// How long a caller repeats, and how long the system has to recover.
const LIMIT: Duration = Duration::from_mins(1);
/// Between two attempts of a caller.
const REPEAT_DELAY: Duration = Duration::from_millis(100);

/// API and worker in this process, behind proxies, on a database and a key prefix of their own.
pub struct World {
    environment: TestEnvironment,
    /// The way of the worker to the servers.
    database: Database,
    redis: Redis,
    /// By network.
    proxies: [FaultProxy; 4],
    /// The direct way, for preparations and audits.
    stores: Stores,
    base: String,
    client: Client,
    campaign: Campaign,
    product: ProductId,
    users: u64,
    claims: ClientRecord,
    shop: ShopRecord,
    stopping: CancellationToken,
    running: Vec<JoinHandle<()>>,
}

/// The responses to a caller that repeats.
#[derive(Default)]
struct Received {
    history: String,
    last: Value,
    status: StatusCode,
    attempts: u32,
    /// Whether the last one is that of the `Location` of a 202.
    was_followed: bool,
}

impl World {
    pub async fn new() -> Self {
        let environment = TestEnvironment::new().await;
        let (of_api, api_database, api_redis) = environment.behind_proxies().await;
        let (settings, worker_database, worker_redis) = environment.behind_proxies().await;
        let (database, redis) = (settings.database(8).expect("a pool"), settings.redis(2).await.expect("redis"));
        let stopping = CancellationToken::new();
        let (base, serving) = serve_api(of_api, &stopping).await;
        let claims = claim_worker(&database, &redis, FIRST, RECLAIM);
        let commands = command_processor(&database, &redis, RULES, RECLAIM);
        let (stop_claims, stop_commands) = (stopping.clone(), stopping.clone());
        let running = vec![
            serving,
            tokio::spawn(async move { claims.run([FIRST], stop_claims).await }),
            tokio::spawn(async move { commands.run([FIRST], stop_commands).await }),
        ];
        let client = Client::builder().timeout(Duration::from_secs(15)).build().expect("a client");
        let (campaign, product) = (environment.campaign(1_000_000).await, environment.product(PRICE, 1_000_000).await);
        let stores = Stores { database: environment.database.clone(), redis: environment.redis.clone() };
        Self {
            environment,
            database,
            redis,
            proxies: [api_database, api_redis, worker_database, worker_redis],
            stores,
            base,
            client,
            campaign,
            product,
            users: 0,
            claims: ClientRecord::default(),
            shop: ShopRecord::default(),
            stopping,
            running,
        }
    }

    pub fn proxy(&self, network: Network) -> FaultProxy {
        self.proxies[network as usize].clone()
    }

    /// A new user, and what the operation needs.
    pub async fn prepare(&mut self, operation: Operation) -> Subject {
        // A claim and an order of another user: every connection is open, every statement prepared.
        let warm_up = self.next_subject();
        self.claim(&warm_up).await;
        self.place(&warm_up).await;
        let mut subject = self.next_subject();
        let user = subject.user;
        if operation.needs_coupon() {
            self.claim(&subject).await;
            subject.user_coupon = Some(self.until_issued(user).await);
        }
        if operation.needs_order() {
            let charged = self.post("/points", json!({"userId": user, "amount": 10_000})).await;
            assert_eq!(charged.status, 200, "{}", charged.last);
            subject.order = Some(self.place(&subject).await.1);
        }
        if operation.needs_payment() {
            self.pay(&subject).await;
        }
        if operation != Operation::Relay {
            // So that nothing of the preparation is left to do.
            self.deliver_events().await;
        }
        subject
    }

    fn next_subject(&mut self) -> Subject {
        self.users += 1;
        let user = UserId::try_from(self.users).expect("an id");
        Subject { user, campaign: self.campaign.clone(), user_coupon: None, order: None }
    }

    /// Performs the operation as its caller, or as the worker, does: it is repeated until it succeeded. Returns what
    /// was received.
    pub async fn perform(&mut self, operation: Operation, subject: &Subject) -> String {
        match operation {
            Operation::Claim => self.claim(subject).await,
            Operation::Order => self.place(subject).await.0,
            Operation::Payment => self.pay(subject).await,
            Operation::Cancellation => self.cancel(subject).await,
            Operation::Assignment => self.assign(subject).await,
            Operation::Relay => self.relay().await,
            Operation::Rebuild => {
                repeat(async || {
                    rebuild(&self.database, &self.redis, &subject.campaign).await.map(|rebuilt| rebuilt.is_some())
                })
                .await
            }
        }
    }

    /// Waits until the streams are empty; what is left.
    pub async fn recover(&self) -> Vec<String> {
        let drained = wait::until("empty streams", LIMIT, Duration::from_millis(20), async || {
            let commands = self.redis.keys.order_stream(FIRST);
            Ok(self.stores.backlog(FIRST).await? == 0 && self.environment.stream_length(&commands).await == 0)
        });
        drained.await.err().map(|error| error.to_string()).into_iter().collect()
    }

    /// What is durable after an operation; adds the differences.
    pub async fn audit(&self, operation: Operation, subject: &Subject, differences: &mut Vec<String>) -> String {
        wait::until("a reconciliation", LIMIT, Duration::from_millis(20), async || {
            Ok(reconcile_all(&self.environment.database, &self.environment.redis).await.is_ok())
        })
        .await
        .expect("reconciled");
        self.deliver_events().await;
        let durable = self.durable(subject).await;
        if durable != operation.expected() {
            differences.push(format!("durable: '{durable}', expected '{}'", operation.expected()));
        }
        let evidence = Evidence { client: Some(&self.shop), deliveries: None };
        let shop = audit_shop(&self.stores, ShopSettings::default(), evidence).await.expect("an audit");
        let campaign = audit(&self.stores, self.campaign.id, Some(&self.claims)).await.expect("an audit");
        differences.extend(described(&shop).chain(described(&campaign)));
        durable
    }

    /// Stops everything. Fails when something was left behind.
    pub async fn end(mut self) {
        self.stopping.cancel();
        for task in self.running.drain(..) {
            task.await.expect("no panic");
        }
        self.environment.end().await;
    }

    /// Leaves the data to be looked at.
    pub fn abandon(self) {
        self.stopping.cancel();
    }

    async fn claim(&mut self, subject: &Subject) -> String {
        let body = json!({"userId": subject.user, "couponId": subject.campaign.id});
        let received = self.post("/coupons/issue", body).await;
        let response = match received.status.as_u16() {
            202 => ClaimResponse::Accepted(serde_json::from_value::<Receipt>(received.last).expect("a receipt")),
            // The first attempt was accepted.
            409 => {
                let first = received.last["claim"]["claimId"].as_str().and_then(|id| id.parse().ok());
                ClaimResponse::AlreadyIssued(first.map(ClaimId))
            }
            status => ClaimResponse::Unexpected(format!("{status} {}", received.last)),
        };
        let uncertain_attempts = received.attempts - 1;
        self.claims.observations.push(ClaimObservation { user: subject.user, response, uncertain_attempts });
        let _user_coupon = self.until_issued(subject.user).await;
        received.history
    }

    async fn place(&mut self, subject: &Subject) -> (String, Uuid) {
        let items = json!([{"productId": self.product, "quantity": 2}]);
        let body = json!({"userId": subject.user, "items": items, "userCouponId": subject.user_coupon});
        let received = self.post("/orders", body).await;
        let order = received.last["orderId"].as_str().and_then(|id| id.parse().ok()).unwrap_or_default();
        self.expect(subject, ExpectedState::Placed, order, &received);
        (received.history, order)
    }

    async fn pay(&mut self, subject: &Subject) -> String {
        let order = subject.order.expect("an order");
        let received = self.post("/payments/confirm", json!({"userId": subject.user, "orderId": order})).await;
        self.expect(subject, ExpectedState::Paid, order, &received);
        received.history
    }

    async fn cancel(&mut self, subject: &Subject) -> String {
        let order = subject.order.expect("an order");
        let received = self.post(&format!("/orders/{order}/cancel"), json!({"userId": subject.user})).await;
        self.expect(subject, ExpectedState::Cancelled, order, &received);
        received.history
    }

    async fn assign(&mut self, subject: &Subject) -> String {
        let path = format!("/admin/coupons/{}/assignments", subject.campaign.id);
        let received = self.post(&path, json!({"userIds": [subject.user], "expectedCount": 1})).await;
        let stopping = CancellationToken::new();
        let done = repeat(async || Ok(assign_once(&self.database, &self.redis, &stopping).await? == 0)).await;
        format!("{}; {done}", received.history)
    }

    async fn relay(&self) -> String {
        let mut relay = Relay::new(&self.database, self.ranking_sink());
        let relayed = repeat(async || {
            db::outbox::sequence_events(&self.database).await?;
            // A step that failed is taken again, by the same relay.
            Ok(relay.step(clock::now()).await? == StepOutcome::UpToDate)
        });
        let relayed = relayed.await;
        relay.release_lease().await;
        relayed
    }

    fn ranking_sink(&self) -> RankingSink {
        let zone = self.environment.settings.time_zone;
        RankingSink { database: self.database.clone(), redis: self.redis.clone(), zone }
    }

    /// What a response promised must be in MySQL.
    fn expect(&mut self, subject: &Subject, state: ExpectedState, id: Uuid, received: &Received) {
        let status = match state {
            ExpectedState::Placed => "DEPOSIT_WAIT",
            ExpectedState::Cancelled => "CANCELLED",
            _ => "DONE",
        };
        // Of a command that was followed: that it is done.
        if received.last["status"] == status || received.last["status"] == "DONE" {
            self.shop.expectations.push(Expectation { id, user: subject.user, state });
        } else {
            self.shop.anomalies.add(format!("{}: {}", received.history, received.last));
        }
    }

    /// Delivers events to the ranking by the direct way, until none is left.
    async fn deliver_events(&self) {
        let RankingSink { zone, .. } = self.ranking_sink();
        let (database, redis) = (self.environment.database.clone(), self.environment.redis.clone());
        let mut relay = Relay::new(&database, RankingSink { database: database.clone(), redis, zone });
        wait::until("all events to be delivered", LIMIT, Duration::from_millis(20), async || {
            // Many worlds share the servers, so a query may exceed its limit. Standby: a relay whose connection was cut may
            // still have its lease for a moment.
            let is_sequenced = db::outbox::sequence_events(&database).await.is_ok();
            Ok(is_sequenced && matches!(relay.step(clock::now()).await, Ok(StepOutcome::UpToDate)))
        })
        .await
        .expect("delivered");
        relay.release_lease().await;
    }

    async fn until_issued(&self, user: UserId) -> Uuid {
        let mut issued = None;
        let waited = wait::until("the coupon", LIMIT, Duration::from_millis(5), async || {
            let select = sqlx::query_scalar("SELECT user_coupon_id FROM user_coupons WHERE user_id = ?");
            issued = select.bind(user.get()).fetch_optional(&self.stores.database.pool()).await?;
            Ok(issued.is_some())
        });
        // The audit says what is missing.
        let _timed_out = waited.await;
        issued.unwrap_or_default()
    }

    /// The state of a user in one line.
    async fn durable(&self, subject: &Subject) -> String {
        let user = subject.user;
        let texts = async |what: &str, sql: String| {
            let found = self.environment.texts(&sql).await;
            found.iter().fold(String::new(), |mut text, found| {
                let _written = write!(text, "{}{what} {found}", if text.is_empty() { "" } else { ", " });
                text
            })
        };
        let coupons = texts("coupon", format!("SELECT CAST(status AS CHAR) FROM user_coupons WHERE user_id = {user}"));
        let ledger = |kind| {
            format!("(SELECT COUNT(*) FROM point_histories h WHERE h.order_id = o.order_id AND h.type = '{kind}')")
        };
        let orders = texts(
            "order",
            format!(
                "SELECT CONCAT(CAST(status AS CHAR), ', paid ', {}, ' times, refunded ', {}, ' times') FROM orders o \
                 WHERE user_id = {user}",
                ledger("PAYMENT"),
                ledger("REFUND")
            ),
        );
        let assignments = texts(
            "assignment",
            format!(
                "SELECT CAST(a.status AS CHAR) FROM assignments a JOIN assignment_users u USING (assignment_id) \
                 WHERE u.user_id = {user}"
            ),
        );
        let all = [coupons.await, orders.await, assignments.await];
        all.into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>().join(", ")
    }

    /// Posts with a key of its own, and repeats with the same key as a sensible client does, until the outcome is
    /// known. A 202 with a `Location` of an order, payment or command is followed.
    async fn post(&mut self, path: &str, body: Value) -> Received {
        let key = new_uuid().to_string();
        let received = self.send(path, &body, &key).await;
        // I12: the same key gets the same response. What a 202 was followed to is another one.
        let again = self.send(path, &body, &key).await;
        if !received.was_followed && !received.is_like(&again) {
            let (status, status_again) = (received.status, again.status);
            self.shop
                .duplicates
                .mismatches
                .add(format!("{path}: {status} {}, then {status_again} {}", received.last, again.last));
        }
        received
    }

    async fn send(&self, path: &str, body: &Value, key: &str) -> Received {
        let end = Instant::now() + LIMIT;
        let mut received = Received::default();
        let mut location = None;
        loop {
            received.attempts += 1;
            let request = match &location {
                None => self.client.request(Method::POST, format!("{}{path}", self.base)).json(body),
                Some(location) => self.client.get(format!("{}{location}", self.base)),
            };
            let response = request.header("idempotency-key", key).bearer_auth_of(path).send().await;
            let Ok(response) = response else {
                received.push("no response");
                assert!(Instant::now() < end, "{path}: {}", received.history);
                sleep(REPEAT_DELAY).await;
                continue;
            };
            received.status = response.status();
            let to_follow = response.headers().get("location").and_then(|value| Some(value.to_str().ok()?.to_owned()));
            received.last = response.json().await.unwrap_or_default();
            let code = received.last["code"].as_str().unwrap_or_default().to_owned();
            let status = received.status.as_u16();
            received.push(format!("{status} {code}").trim_end());
            let is_pending = match (status, &*code) {
                (503, _) | (409, "IDEMPOTENCY_IN_PROGRESS") => true,
                (202, _) if path == "/orders" || path.starts_with("/orders/") || path.starts_with("/payments") => {
                    location = to_follow;
                    received.was_followed = true;
                    true
                }
                // Of what was answered with 202.
                (404, _) => location.is_some(),
                _ => location.is_some() && ["PENDING", "READY"].iter().any(|status| received.last["status"] == *status),
            };
            if !is_pending || Instant::now() > end {
                return received;
            }
            sleep(REPEAT_DELAY).await;
        }
    }
}

impl Received {
    /// Whether both are the same response, but for the id of the request.
    fn is_like(&self, other: &Self) -> bool {
        let body = |received: &Self| {
            let mut body = received.last.clone();
            body.as_object_mut().and_then(|members| members.remove("requestId"));
            body
        };
        self.status == other.status && body(self) == body(other)
    }

    /// Adds a response; equal ones in a row are one.
    fn push(&mut self, response: &str) {
        if self.history.rsplit(", ").next() != Some(response) {
            let _written = write!(self.history, "{}{response}", if self.history.is_empty() { "" } else { ", " });
        }
    }
}

trait BearerAuthOf {
    fn bearer_auth_of(self, path: &str) -> Self;
}

impl BearerAuthOf for reqwest::RequestBuilder {
    /// The administrator's calls need a token.
    fn bearer_auth_of(self, path: &str) -> Self {
        if path.starts_with("/admin") { self.bearer_auth(ADMIN_TOKEN) } else { self }
    }
}

/// Repeats until it is done, as the tasks of the worker do; the outcomes in a line.
async fn repeat(mut attempt: impl AsyncFnMut() -> dibs_common::Result<bool>) -> String {
    let (end, mut failures) = (Instant::now() + LIMIT, 0);
    loop {
        match attempt().await {
            Ok(true) => return if failures == 0 { "Ok".into() } else { format!("{failures} x Err, Ok") },
            Ok(false) => {}
            Err(_) => failures += 1,
        }
        if Instant::now() > end {
            return "never done".into();
        }
        sleep(REPEAT_DELAY / 2).await;
    }
}

fn described(report: &AuditReport) -> impl Iterator<Item = String> {
    let different = report.checks.iter().filter(|check| check.differences() > 0);
    different.map(|check| format!("{}: {}", check.invariant(), check.examples().join(", ")))
}
