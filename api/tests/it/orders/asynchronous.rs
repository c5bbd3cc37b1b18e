//! Commands whose caller does not get the outcome at once.

use std::time::Duration;

use chrono::TimeDelta;
use dibs_common::{
    clock,
    domain::order::{Action, Command, Line},
    identifiers::CommandId,
    redis::{pending_commands, streams::OrderStream},
};
use reqwest::Method;
use serde_json::json;
use uuid::Uuid;

use super::{OrderTest, assert_refused, location, order_of, pay, send_async, text};
use crate::app::{Answer, ONLY, RULES, TestApp};

/// A caller that does not wait reads the state later, before and after the execution.
#[tokio::test]
async fn a_command_that_is_not_waited_for_can_be_asked_after() {
    let mut test = OrderTest::without_worker(7_000, 10, 7_000).await;
    let placed = send_async(&test, "/orders", test.order(1, 1)).await;
    assert_eq!((placed.status.as_u16(), &placed.body["status"]), (202, &json!("PENDING")));
    let at = location(&placed);
    assert_eq!(test.get(&at).await.body["status"], "PENDING");
    let order = text(&placed, "orderId").to_owned();
    let paying = send_async(&test, "/payments/confirm", json!({ "userId": 1, "orderId": order })).await;
    let payment = location(&paying);
    assert_eq!(test.get(&payment).await.body["status"], "READY");
    let cancelling = send_async(&test, &format!("/orders/{order}/cancel"), json!({ "userId": 1 })).await;
    let command = location(&cancelling);
    assert_eq!(test.get(&command).await.body["status"], "PENDING");
    let confirming = send_async(&test, &format!("/orders/{order}/confirm"), json!({ "userId": 1 })).await;
    let refused = location(&confirming);
    test.start_worker(RULES);
    test.eventually_shows(&refused, "REFUSED").await;
    assert_eq!(test.get(&refused).await.body["code"], "ORDER_STATE_CONFLICT");
    assert_eq!(test.get(&command).await.body["status"], "DONE");
    assert_eq!(test.get(&payment).await.body["status"], "CANCELLED");
    assert_eq!(test.get(&at).await.body["status"], "CANCELLED");
    test.end_consistent().await;
}

/// A worker that is absent makes callers wait no longer than they said, and loses nothing.
#[tokio::test]
async fn without_a_worker_a_caller_is_answered_202() {
    let mut test = OrderTest::without_worker(7_000, 10, 0).await;
    let taken =
        Answer::of(test.request(Method::POST, "/orders").header("prefer", "wait=1").json(&test.order(1, 1))).await;
    assert_eq!(taken.status, 202);
    test.start_worker(RULES);
    let at = taken.header("location").expect("where");
    test.eventually_shows(at, "DEPOSIT_WAIT").await;
    test.end().await;
}

/// An order that a worker has read, and is late with, while another worker runs.
async fn with_late_order() -> (OrderTest, OrderStream, String) {
    let mut test = OrderTest::without_worker(7_000, 10, 7_000).await;
    let placed = send_async(&test, "/orders", test.order(1, 1)).await;
    let order = text(&placed, "orderId").to_owned();
    let late = OrderStream::open(&test.environment.redis, ONLY, "late".into()).await.expect("opened");
    assert_eq!(late.read(10).await.expect("read").len(), 1);
    test.start_worker(RULES);
    (test, late, order)
}

/// A command of an order that is still on its stream, pending at a late worker, comes too early, and a repeat succeeds.
#[tokio::test]
async fn paying_before_the_order_is_placed_is_too_early() {
    let (test, _late, order) = with_late_order().await;
    let early = pay(&test, 1, &order).await;
    assert_refused(&early, 409, "ORDER_STATE_CONFLICT");
    assert_eq!(early.header("retry-after"), Some("1"));
    // Its kind is known by its own path only.
    assert_eq!(test.get(&format!("/payments/{order}")).await.code(), "PAYMENT_NOT_FOUND");
    test.eventually_shows(&format!("/orders/{order}"), "DEPOSIT_WAIT").await;
    assert_eq!(pay(&test, 1, &order).await.status, 200);
    test.end_consistent().await;
}

/// Its outcome was in the state of the database that a restore has replaced.
#[tokio::test]
async fn a_command_whose_outcome_a_restore_has_lost_is_not_pending() {
    let app = TestApp::new().await;
    let ten_minutes_ago = clock::now() - TimeDelta::minutes(10);
    let millis = u128::try_from(ten_minutes_ago.timestamp_millis()).expect("after 1970");
    // A UUIDv7 of that time.
    let id = CommandId(Uuid::from_u128(millis << 80 | 7 << 76 | 2 << 62 | 1));
    let line = Line { product_id: 1.try_into().expect("an id"), quantity: 1 };
    let action = Action::Place { items: vec![line], coupon: None, payment: None };
    let command = Command { id, user: 1.try_into().expect("an id"), at: ten_minutes_ago, action, trace: None };
    pending_commands::remember(&app.environment.redis, &command).await.expect("remembered");
    let order = format!("/orders/{id}");
    assert_eq!(app.get(&order).await.body["status"], "PENDING");
    let restored = "INSERT INTO epochs VALUES (UNIX_TIMESTAMP() - 300, 0, 'test', NOW(3))";
    app.environment.execute(restored).await;
    assert_refused(&app.get(&order).await, 404, "ORDER_NOT_FOUND");
    app.end().await;
}

/// An answer with `Retry-After` decides nothing for good, also where its key has an operation of an attempt before it.
#[tokio::test]
async fn a_key_that_came_too_early_pays_once_the_order_is_there() {
    let (test, _late, order) = with_late_order().await;
    let body = format!("{{\"userId\":1,\"orderId\":\"{order}\"}}");
    // As an attempt leaves it that was answered with 503.
    test.environment
        .execute(&format!(
            "INSERT INTO idempotency_keys (key_hash, body_hash, operation_id, in_progress_until, created_at) VALUES \
             (UNHEX(SHA2('POST\n/payments/confirm\nagain', 256)), UNHEX(SHA2('{body}', 256)), UNHEX(REPEAT('07', 16)), \
             UTC_TIMESTAMP(3), UTC_TIMESTAMP(3))"
        ))
        .await;
    let pay = || {
        let request = test.request(Method::POST, "/payments/confirm").header("idempotency-key", "again");
        Answer::of(request.header("content-type", "application/json").body(body.clone()))
    };
    let early = pay().await;
    assert_refused(&early, 409, "ORDER_STATE_CONFLICT");
    assert_eq!(early.header("retry-after"), Some("1"));
    test.eventually_shows(&format!("/orders/{order}"), "DEPOSIT_WAIT").await;
    let paid = pay().await;
    assert_eq!((paid.status.as_u16(), &paid.body["status"]), (200, &json!("DONE")), "{paid:?}");
    let again = pay().await;
    assert_eq!((again.status.as_u16(), again.header("idempotent-replayed")), (200, Some("true")));
    assert_eq!(again.body, paid.body);
    test.end_consistent().await;
}

/// Without the database an order is taken and waits on its stream; what has to be read is refused in time.
#[tokio::test]
async fn without_the_database_an_order_is_taken_and_executed_later() {
    let (mut app, database_proxy, _redis_proxy) = TestApp::behind_proxies().await;
    let product = app.environment.product(7_000, 10).await;
    database_proxy.shut();
    let began = tokio::time::Instant::now();
    let body = order_of(1, product, 1);
    let taken = Answer::of(app.request(Method::POST, "/orders").header("prefer", "wait=2").json(&body)).await;
    assert_eq!(taken.status, 202, "{taken:?}");
    let at = location(&taken);
    let refused = app.get(&at).await;
    assert_refused(&refused, 503, "DEPENDENCY_UNAVAILABLE");
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
    database_proxy.open();
    app.start_worker(RULES);
    app.eventually_shows(&at, "DEPOSIT_WAIT").await;
    app.end().await;
}
