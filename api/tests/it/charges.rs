//! Charges with a payment gateway: its decisions, responses that are lost, and processes that die in between.

use std::time::{Duration, Instant};

use chrono::TimeDelta;
use dibs_common::{
    clock::{self, Timestamp},
    db,
    domain::{
        charge::{ChargeStatus, Decision, NewCharge},
        points::PointRules,
    },
    identifiers::ChargeId,
    integrations::payment_gateway::PaymentGateway,
    testing::{FaultProxy, TestEnvironment, eventually},
};
use dibs_worker::charges::ChargeReconciler;
use futures::future::join_all;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::{
    app::{Answer, TestApp},
    gateway::{Reply, TestGateway},
    points::{CAP, assert_points_add_up, balance, charge_body, end_with_exact_points},
};

const RULES: PointRules = PointRules { charge_minimum: 10_000, holding_cap: CAP };

async fn app_with(gateway_url: &str) -> TestApp {
    let environment = TestEnvironment::new().await;
    let shared = environment.settings.clone();
    TestApp::with(environment, shared, |settings| settings.shared.payment_gateway_url = Some(gateway_url.into())).await
}

fn reconciler(environment: &TestEnvironment, gateway_url: &str) -> ChargeReconciler {
    let gateway = Some(PaymentGateway::at(&gateway_url.into()).expect("a gateway"));
    ChargeReconciler { database: environment.database.clone(), gateway, stopping: CancellationToken::new() }
}

/// When every charge that was made so far is due, however often it was asked about.
fn later(minutes: i64) -> Timestamp {
    clock::now() + TimeDelta::minutes(minutes)
}

fn wanted(user: u64, amount: i64) -> NewCharge {
    NewCharge {
        id: ChargeId::generate(),
        user: user.try_into().expect("an id"),
        amount,
        payment_method: Some("CARD".into()),
    }
}

async fn state(app: &TestApp, answer: &Answer) -> Value {
    app.get(answer.header("location").expect("a location")).await.body["status"].clone()
}

/// `001` section 4: the gateway approves, then the points are credited.
#[tokio::test]
async fn seed_001_4_points_are_charged_once_the_payment_gateway_approves() {
    let gateway = TestGateway::new(Reply::Approve).await;
    let app = app_with(&gateway.url).await;
    let body = json!({ "userId": 1, "amount": 10_000, "paymentMethod": "CARD" });
    let charged = app.post("/points", body).await;
    assert_eq!((charged.status.as_u16(), &charged.body["balance"]), (200, &json!(10_000)));
    let charge = charged.body["chargeId"].clone();
    let question = json!({ "chargeId": charge, "userId": 1, "amount": 10_000, "paymentMethod": "CARD" });
    assert_eq!(gateway.questions(), [(charge.as_str().expect("text").to_owned(), question)]);
    end_with_exact_points(app).await;
}

#[tokio::test]
async fn seed_001_4_a_declined_charge_is_refused_and_frees_what_it_reserved() {
    let gateway = TestGateway::new(Reply::say(200, &json!({ "status": "DECLINED" }))).await;
    let app = app_with(&gateway.url).await;
    for reply in [json!({ "status": "DECLINED" }), Value::Null] {
        for status in if reply.is_null() { vec![402, 422] } else { vec![200, 201] } {
            gateway.will(Reply::say(status, &reply));
            let declined = app.post("/points", charge_body(1, CAP)).await;
            assert_eq!((declined.status.as_u16(), declined.code()), (422, "PAYMENT_DECLINED"), "{status}");
        }
    }
    assert_eq!(balance(&app, 1).await, 0);
    assert_eq!(app.environment.count("SELECT COUNT(*) FROM charges WHERE status = 'DECLINED'").await, 4);
    gateway.will(Reply::Approve);
    assert_eq!(app.post("/points", charge_body(1, CAP)).await.status, 200, "the whole cap is free");
    end_with_exact_points(app).await;
}

/// A charge that is refused by the rules costs no money.
#[tokio::test]
async fn a_charge_beyond_the_cap_never_reaches_the_payment_gateway() {
    let gateway = TestGateway::new(Reply::say(500, &Value::Null)).await;
    let app = app_with(&gateway.url).await;
    assert_eq!(app.post("/points", charge_body(1, 6_000_000)).await.status, 202);
    // What is on its way counts, so that it can be credited whatever comes.
    let refused = app.post("/points", charge_body(1, 4_000_001)).await;
    assert_eq!((refused.status.as_u16(), refused.code()), (422, "POINTS_CAP_EXCEEDED"));
    assert_eq!(app.post("/points", charge_body(1, 1)).await.code(), "AMOUNT_BELOW_MINIMUM");
    assert_eq!(gateway.questions().len(), 1);
    gateway.will(Reply::Approve);
    reconciler(&app.environment, &gateway.url).reconcile_due(later(1)).await.expect("settled");
    assert_eq!(balance(&app, 1).await, 6_000_000);
    end_with_exact_points(app).await;
}

#[tokio::test]
async fn a_charge_whose_answer_means_nothing_stays_pending() {
    let gateway = TestGateway::new(Reply::Approve).await;
    let app = app_with(&gateway.url).await;
    let nothing = [
        Reply::say(500, &json!({ "status": "APPROVED" })),
        Reply::say(400, &json!({ "status": "DECLINED" })),
        Reply::say(404, &Value::Null),
        Reply::say(307, &json!({ "status": "APPROVED" })),
        Reply::say(200, &json!({ "status": "PENDING" })),
        Reply::say(200, &json!({ "status": true })),
        Reply::say(200, &json!({})),
        Reply::Say(200, "APPROVED".into()),
        Reply::Say(200, String::new()),
        Reply::Say(200, " ".repeat(100_000)),
    ];
    for (user, reply) in (1..).zip(nothing) {
        gateway.will(reply.clone());
        let pending = app.post("/points", charge_body(user, 10_000)).await;
        assert_eq!((pending.status.as_u16(), &pending.body["status"]), (202, &json!("PENDING")), "{reply:?}");
        assert_eq!(pending.body["balance"], 0);
        let location = format!("/points/charges/{}", pending.body["chargeId"].as_str().expect("an id"));
        assert_eq!(pending.header("location"), Some(&*location));
        assert_eq!(state(&app, &pending).await, "PENDING");
    }
    assert_eq!(app.environment.count("SELECT SUM(pending) FROM point_accounts").await, 100_000);
    end_with_exact_points(app).await;
}

/// The gateway approved and its response was lost: the worker requests it again with the same key, and credits once.
#[tokio::test]
async fn seed_001_4_a_charge_without_an_answer_is_asked_about_again_with_the_same_key() {
    let gateway = TestGateway::new(Reply::ApproveInSilence).await;
    let app = app_with(&gateway.url).await;
    let began = Instant::now();
    let pending = app.post("/points", charge_body(1, 10_000)).await;
    assert_eq!((pending.status.as_u16(), balance(&app, 1).await), (202, json!(0)));
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    let reconciler = reconciler(&app.environment, &gateway.url);
    assert_eq!(reconciler.reconcile_due(clock::now()).await.expect("looked"), 0, "it is left to the API at first");
    gateway.will(Reply::Approve);
    assert_eq!(reconciler.reconcile_due(later(1)).await.expect("settled"), 1);
    assert_eq!((state(&app, &pending).await, balance(&app, 1).await), (json!("APPROVED"), json!(10_000)));
    assert_eq!(reconciler.reconcile_due(later(60)).await.expect("settled"), 0, "it is not asked about any more");
    let questions = gateway.questions();
    assert_eq!((questions.len(), &questions[0]), (2, &questions[1]));
    assert_eq!(gateway.money(), 10_000);
    end_with_exact_points(app).await;
}

#[tokio::test]
async fn a_charge_is_settled_once_the_connection_to_the_payment_gateway_is_back() {
    let gateway = TestGateway::new(Reply::Approve).await;
    let (proxy, url) = FaultProxy::before(&gateway.url).await.expect("a proxy");
    let app = app_with(&url).await;
    proxy.shut();
    let pending = app.post("/points", charge_body(1, 10_000)).await;
    assert_eq!((pending.status.as_u16(), gateway.questions().len()), (202, 0));
    let reconciler = reconciler(&app.environment, &url);
    let first = later(1);
    assert_eq!(reconciler.reconcile_due(first).await.expect("looked"), 1);
    assert_eq!(state(&app, &pending).await, "PENDING");
    assert_eq!(app.environment.count("SELECT attempts FROM charges").await, 1);
    assert_eq!(reconciler.reconcile_due(first).await.expect("looked"), 0, "not before the pause is over");
    assert_eq!(reconciler.reconcile_due(first + TimeDelta::seconds(3)).await.expect("looked"), 1);
    assert_eq!(app.environment.count("SELECT attempts FROM charges").await, 2);
    proxy.open();
    assert_eq!(reconciler.reconcile_due(later(10)).await.expect("settled"), 1);
    assert_eq!((state(&app, &pending).await, gateway.money()), (json!("APPROVED"), 10_000));
    end_with_exact_points(app).await;
}

/// Several processes may request one charge, and each gets a decision: one credit, and the first decision stands.
#[tokio::test]
async fn a_charge_that_the_payment_gateway_answers_twice_is_settled_once() {
    let (gateway, environment) = (TestGateway::new(Reply::Approve).await, TestEnvironment::new().await);
    let wanted = wanted(1, 10_000);
    let now = clock::now();
    db::charges::begin(&environment.database, &wanted, RULES, now).await.expect("begun");
    let (id, user) = (wanted.id, wanted.user);
    let asker = PaymentGateway::at(&gateway.url.as_str().into()).expect("a gateway");
    let settled = join_all((0..20).map(async |_| {
        let decision = asker.charge(&wanted).await.expect("a decision");
        db::charges::settle(&environment.database, id, user, decision, now).await.expect("settled")
    }))
    .await;
    assert!(settled.iter().all(|charged| *charged == settled[0]), "{settled:?}");
    assert_eq!((settled[0].charge.status, settled[0].balance), (ChargeStatus::Approved, 10_000));
    let contradiction =
        db::charges::settle(&environment.database, id, user, Decision::Declined, now).await.expect("settled");
    assert_eq!(contradiction, settled[0]);
    let repeated = db::charges::begin(&environment.database, &wanted, RULES, now).await.expect("there");
    assert_eq!(repeated, settled[0]);
    assert_eq!((gateway.questions().len(), gateway.money()), (20, 10_000));
    assert_points_add_up(&environment).await;
    environment.end().await;
}

/// Dies between each two steps: after the charge is written, and after the gateway has answered.
#[tokio::test]
async fn a_charge_survives_the_death_of_its_process_between_any_two_steps() {
    let (gateway, environment) = (TestGateway::new(Reply::Approve).await, TestEnvironment::new().await);
    let (unasked, answered) = (wanted(1, 10_000), wanted(1, 20_000));
    for wanted in [&unasked, &answered] {
        db::charges::begin(&environment.database, wanted, RULES, clock::now()).await.expect("begun");
    }
    let asker = PaymentGateway::at(&gateway.url.as_str().into()).expect("a gateway");
    assert_eq!(asker.charge(&answered).await, Some(Decision::Approved));
    // A worker takes both, and dies as well.
    let (now, until) = (later(1), later(2));
    let taken = db::charges::take_due(&environment.database, 10, now, until).await.expect("taken");
    assert_eq!(taken.len(), 2);
    let reconciler = reconciler(&environment, &gateway.url);
    assert_eq!(reconciler.reconcile_due(now).await.expect("looked"), 0, "they are taken");
    assert_eq!(reconciler.reconcile_due(later(3)).await.expect("settled"), 2);
    assert_eq!(environment.count("SELECT balance FROM point_accounts").await, 30_000);
    assert_eq!(gateway.money(), 30_000, "each was paid once");
    assert_points_add_up(&environment).await;
    environment.end().await;
}

#[tokio::test]
async fn several_workers_share_the_charges_that_are_due() {
    let (gateway, environment) = (TestGateway::new(Reply::Approve).await, TestEnvironment::new().await);
    for user in 1..=150 {
        db::charges::begin(&environment.database, &wanted(user % 10 + 1, 10_000), RULES, clock::now())
            .await
            .expect("begun");
    }
    let (one, other) = (reconciler(&environment, &gateway.url), reconciler(&environment, &gateway.url));
    let now = later(1);
    let (one, other) = tokio::join!(one.reconcile_due(now), other.reconcile_due(now));
    assert_eq!(one.expect("settled") + other.expect("settled"), 150);
    assert_eq!(gateway.questions().len(), 150, "no charge was asked about twice");
    assert_eq!(environment.count("SELECT SUM(balance) FROM point_accounts").await, 1_500_000);
    assert_points_add_up(&environment).await;
    environment.end().await;
}

/// A worker whose deployment lacks the setting must not give away what the gateway may decline.
#[tokio::test]
async fn a_worker_without_a_payment_gateway_approves_no_charge() {
    let environment = TestEnvironment::new().await;
    db::charges::begin(&environment.database, &wanted(1, 10_000), RULES, clock::now()).await.expect("begun");
    let blind = ChargeReconciler { gateway: None, ..reconciler(&environment, "http://unused") };
    assert_eq!(blind.reconcile_due(later(60)).await.expect("looked"), 0);
    assert_eq!(environment.count("SELECT COUNT(*) FROM charges WHERE status = 'PENDING'").await, 1);
    environment.end().await;
}

/// A client that goes away stops neither the question nor the credit.
#[tokio::test]
async fn a_charge_goes_on_when_its_client_goes_away() {
    let gateway = TestGateway::new(Reply::ApproveOnceReleased).await;
    let app = app_with(&gateway.url).await;
    let request = app.request(reqwest::Method::POST, "/points").json(&charge_body(1, 10_000));
    let impatient = tokio::spawn(async move { request.send().await.map(drop) });
    eventually("the gateway is asked", Duration::from_secs(2), async || gateway.questions().len() == 1).await;
    impatient.abort();
    assert!(impatient.await.is_err_and(|ended| ended.is_cancelled()));
    gateway.release();
    eventually("the points are credited", Duration::from_secs(2), async || balance(&app, 1).await == 10_000).await;
    end_with_exact_points(app).await;
}

#[tokio::test]
async fn settling_charges_goes_on_until_it_stops() {
    let (gateway, environment) = (TestGateway::new(Reply::Approve).await, TestEnvironment::new().await);
    let past = clock::now() - TimeDelta::minutes(1);
    db::charges::begin(&environment.database, &wanted(1, 10_000), RULES, past).await.expect("begun");
    let reconciler = reconciler(&environment, &gateway.url);
    let running = tokio::spawn(reconciler.clone().run());
    eventually("the charge is settled", Duration::from_secs(5), async || {
        environment.count("SELECT COUNT(*) FROM charges WHERE status = 'APPROVED'").await == 1
    })
    .await;
    reconciler.stopping.cancel();
    tokio::time::timeout(Duration::from_secs(2), running).await.expect("in time").expect("ended by itself");
    assert_points_add_up(&environment).await;
    environment.end().await;
}
