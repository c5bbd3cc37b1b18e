//! Callers that wait for an outcome: what they cost, what they leave to others, and what they do not miss.

use std::time::{Duration, Instant};

use dibs_common::{
    identifiers::{CouponId, ProductId},
    testing::{TestEnvironment, eventually},
};
use futures::future::join_all;
use reqwest::{Method, RequestBuilder};
use serde_json::json;

use crate::app::{Answer, RULES, TestApp, claim_body};

/// A claim whose caller waits for so many seconds.
fn claim(app: &TestApp, coupon: CouponId, user: u64, wait: u32) -> RequestBuilder {
    let request = app.request(Method::POST, "/coupons/issue").header("prefer", format!("wait={wait}"));
    request.json(&claim_body(coupon, user))
}

fn order(app: &TestApp, product: ProductId, user: u64, wait: u32) -> RequestBuilder {
    let request = app.request(Method::POST, "/orders").header("prefer", format!("wait={wait}"));
    request.json(&json!({ "userId": user, "items": [{ "productId": product, "quantity": 1 }] }))
}

async fn until_claimed(app: &TestApp, coupon: CouponId, count: u32) {
    let batcher = app.app.claims.batcher(coupon).await.expect("a batcher");
    eventually("redis has accepted the claims", Duration::from_secs(5), async || {
        batcher.claimed(&app.environment.redis).await.expect("redis") == Some(count)
    })
    .await;
}

async fn until_ordered(app: &TestApp, count: i64) {
    let stream = app.environment.redis.keys.order_stream(crate::app::ONLY);
    eventually("the orders are on their stream", Duration::from_secs(5), async || {
        app.environment.stream_length(&stream).await == count
    })
    .await;
}

#[tokio::test]
async fn statements_do_not_grow_with_the_number_of_waiting_callers() {
    let (mut app, database, _redis) = TestApp::behind_proxies().await;
    let product = app.environment.product(7_000, 1_000).await;
    let coupon = app.environment.campaign(1_000).await.id;
    let mut sent = Vec::new();
    for users in [1..2_u64, 2..302] {
        let before = database.sent();
        let requests = users.flat_map(|user| [claim(&app, coupon, user, 4), order(&app, product, user, 4)]);
        let answers = join_all(requests.map(Answer::of)).await;
        assert!(answers.iter().all(|answer| answer.status == 202));
        sent.push(database.sent() - before);
    }
    // Callers that asked by themselves would send some hundred times as much.
    assert!(sent[1] <= sent[0] * 2, "{sent:?}");
    app.work().await;
    app.start_worker(RULES);
    eventually("all orders are placed", Duration::from_secs(20), async || {
        app.environment.count("SELECT COUNT(*) FROM orders").await == 301
    })
    .await;
    app.end().await;
}

/// Pub/sub loses what is published while its connection is broken.
#[tokio::test]
async fn an_outcome_whose_message_is_lost_is_looked_up() {
    let (mut app, _database, redis) = TestApp::behind_proxies().await;
    let product = app.environment.product(7_000, 1).await;
    let coupon = app.environment.campaign(10).await.id;
    let issuing = tokio::spawn(Answer::of(claim(&app, coupon, 1, 10)));
    let ordering = [1, 2].map(|user| tokio::spawn(Answer::of(order(&app, product, user, 10))));
    until_claimed(&app, coupon, 1).await;
    until_ordered(&app, 2).await;
    redis.shut();
    let began = Instant::now();
    app.work().await;
    app.start_worker(RULES);
    let issued = issuing.await.expect("an answer");
    assert_eq!((issued.status.as_u16(), &issued.body["status"]), (200, &json!("ISSUED")));
    let ordered = join_all(ordering).await.into_iter().map(|answer| answer.expect("an answer"));
    let mut ordered: Vec<Answer> = ordered.collect();
    ordered.sort_by_key(|answer| answer.status);
    assert_eq!((ordered[0].status.as_u16(), &ordered[0].body["status"]), (201, &json!("DEPOSIT_WAIT")));
    assert_eq!((ordered[1].status.as_u16(), ordered[1].code()), (422, "STOCK_INSUFFICIENT"));
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    redis.open();
    app.end().await;
}

#[tokio::test]
async fn a_call_above_the_limit_of_waiting_callers_is_answered_202_at_once() {
    let environment = TestEnvironment::new().await;
    let product = environment.product(7_000, 10).await;
    let shared = environment.settings.clone();
    // A quarter of it may wait for claims, and a quarter for commands.
    let mut app = TestApp::with(environment, shared, |settings| settings.max_requests_in_progress = 8).await;
    let coupon = app.environment.campaign(10).await.id;
    let requests = [1, 2].map(|user| [claim(&app, coupon, user, 10), order(&app, product, user, 10)]);
    let waiting: Vec<_> = requests.into_iter().flatten().map(|request| tokio::spawn(Answer::of(request))).collect();
    until_claimed(&app, coupon, 2).await;
    until_ordered(&app, 2).await;

    let began = Instant::now();
    let answered = Answer::of(claim(&app, coupon, 3, 10)).await;
    assert_eq!((answered.status.as_u16(), answered.header("preference-applied")), (202, None));
    assert_eq!(Answer::of(order(&app, product, 3, 10)).await.status, 202);
    for path in [format!("/coupons/{coupon}"), "/products".into(), "/points?userId=1".into()] {
        assert_eq!(app.get(&path).await.status, 200, "other calls are answered meanwhile: {path}");
    }
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());

    app.start_worker(RULES);
    for answer in join_all(waiting).await {
        let answer = answer.expect("an answer");
        assert!([200, 201].contains(&answer.status.as_u16()), "{answer:?}");
    }
    assert_eq!(Answer::of(claim(&app, coupon, 4, 10)).await.status, 200, "and there is room again");
    app.end().await;
}
