//! Messages to receivers by HTTP, whatever these answer.

mod circuit_breaker;
mod dead_letters;
mod delivery;
mod progress;

use chrono::TimeDelta;
use dibs_common::{
    clock::{self, Timestamp},
    db::{self, dead_letters::DeadLettersPage},
    domain::dead_letter::{DeadLetter, DeadLetterStatus},
    integrations::messages::Receiver,
    testing::TestEnvironment,
};
use dibs_worker::{
    relay::{Relay, StepOutcome},
    webhooks::{Limits, WebhookSink},
};
use tokio_util::sync::CancellationToken;

use crate::receiver::{OK, TestReceiver};

const KINDS: [&str; 3] = ["order.created", "order.paid", "order.confirmed"];

async fn write(environment: &TestEnvironment, aggregate_type: &str, id: &str, kind: &str, payload: &str) {
    environment
        .execute(&format!(
            "INSERT INTO outbox_events (aggregate_type, aggregate_id, type, payload, created_at) \
             VALUES ('{aggregate_type}', '{id}', '{kind}', '{payload}', NOW(3))"
        ))
        .await;
}

/// What happens to these orders: three events each, the first of all orders first.
async fn orders(environment: &TestEnvironment, ids: &[&str]) {
    for kind in KINDS {
        for id in ids {
            write(environment, "ORDER", id, kind, &format!(r#"{{"orderId": "{id}"}}"#)).await;
        }
    }
    while db::outbox::sequence_events(&environment.database).await.expect("numbered") > 0 {}
}

/// A sink, its receiver, and the time, which passes as the test says.
struct Line {
    receiver: TestReceiver,
    relay: Relay<WebhookSink>,
    now: Timestamp,
}

fn sink(environment: &TestEnvironment, to: Receiver, at: &TestReceiver) -> WebhookSink {
    WebhookSink::new(to, at.endpoint(), &environment.database, CancellationToken::new())
}

impl Line {
    async fn start(to: Receiver) -> (TestEnvironment, Self) {
        let environment = TestEnvironment::new().await;
        let line = Self::new(&environment, to).await;
        (environment, line)
    }

    async fn new(environment: &TestEnvironment, to: Receiver) -> Self {
        Self::with(environment, to, Limits::default()).await
    }

    async fn with(environment: &TestEnvironment, to: Receiver, limits: Limits) -> Self {
        let now = clock::now();
        db::outbox::register_sink(&environment.database.pool(), to.name(), now).await.expect("registered");
        let receiver = TestReceiver::new().await;
        let mut sink = sink(environment, to, &receiver);
        sink.limits = limits;
        Self { relay: Relay::new(&environment.database, sink), receiver, now }
    }

    /// Lets so much time pass, and then delivers what can be delivered.
    async fn after(&mut self, pause: TimeDelta) -> StepOutcome {
        self.now += pause;
        loop {
            let step = self.relay.step(self.now).await.expect("delivered");
            if step != StepOutcome::Delivered {
                return step;
            }
        }
    }

    async fn after_seconds(&mut self, seconds: i64) -> StepOutcome {
        self.after(TimeDelta::seconds(seconds)).await
    }

    /// Delivers for so long, a look each few seconds.
    async fn for_minutes(&mut self, minutes: i64) {
        for _ in 0..minutes * 10 {
            self.after_seconds(6).await;
        }
    }

    /// The data platform accepts everything again. After so many minutes it has received the three events of each of so
    /// many orders, those of each order in their order.
    async fn recover_and_end(mut self, environment: TestEnvironment, minutes: i64, orders: usize) {
        self.receiver.will(|_| OK);
        self.for_minutes(minutes).await;
        assert_eq!((behind(&environment, "data-platform").await, queued(&environment).await), (0, 0));
        let taken = self.receiver.taken_by_aggregate();
        assert!(taken.len() == orders && taken.values().all(|sequences| sequences.len() == 3 && sequences.is_sorted()));
        self.end(environment).await;
    }

    async fn end(mut self, environment: TestEnvironment) {
        self.relay.release_lease().await;
        environment.end().await;
    }
}

async fn letters(environment: &TestEnvironment, status: DeadLetterStatus) -> Vec<DeadLetter> {
    let page = DeadLettersPage { status: Some(status), limit: 100, ..DeadLettersPage::default() };
    db::dead_letters::list(&environment.database.pool(), &page).await.expect("letters")
}

async fn count_letters(environment: &TestEnvironment, status: DeadLetterStatus) -> i64 {
    environment.count(&format!("SELECT COUNT(*) FROM dead_letters WHERE status = '{}'", status.into_str())).await
}

/// Issues so many coupons of a campaign, a hundred in an event.
async fn issue(environment: &TestEnvironment, coupon: &str, count: u32) {
    for first in (0..count).step_by(100) {
        let users = first..count.min(first + 100);
        let issuance = |user: u32| format!(r#"{{"userCouponId": "c{user}", "userId": {user}, "validUntil": null}}"#);
        let issuances: Vec<String> = users.map(issuance).collect();
        let issuances = issuances.join(",");
        let payload = format!(r#"{{"couponId": {coupon}, "issuedAt": null, "issuances": [{issuances}]}}"#);
        write(environment, "COUPON", coupon, "coupon.issued", &payload).await;
    }
    db::outbox::sequence_events(&environment.database).await.expect("numbered");
}

async fn queued(environment: &TestEnvironment) -> i64 {
    environment.count("SELECT COUNT(*) FROM webhook_retry_queue").await
}

async fn behind(environment: &TestEnvironment, sink: &str) -> i64 {
    let sql = "SELECT CAST(last_sequence AS SIGNED) - CAST(delivered_through AS SIGNED) FROM outbox_sequence, sinks";
    environment.count(&format!("{sql} WHERE name = '{sink}'")).await
}
