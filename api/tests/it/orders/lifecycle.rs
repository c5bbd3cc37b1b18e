//! From placing to the end: pay, confirm, cancel, expire.

use std::time::Duration;

use chrono::TimeDelta;
use dibs_common::{domain::campaign::Validity, domain::order::OrderRules, identifiers::new_uuid, testing::eventually};
use serde_json::{Value, json};

use super::{OrderTest, assert_refused, cancel, confirm, coupon, coupon_status, order_with, paid, pay, text};
use crate::app::TestApp;

#[tokio::test]
async fn seed_001_2_cancelling_gives_stock_coupon_and_money_back() {
    let test = OrderTest::new(4_000, 10, 20_000).await;
    let (coupon, order) = test.order_with_coupon(2).await;
    let order = test.place(paid(order)).await;
    let cancelled = cancel(&test, 1, &order).await;
    assert_eq!((cancelled.status.as_u16(), &cancelled.body["status"]), (200, &json!("CANCELLED")), "{cancelled:?}");
    assert_eq!(test.stock_and_balance().await, (10, 20_000));
    assert_eq!(coupon_status(&test, 1, &coupon).await, "USABLE");
    let payment = test.get(&format!("/payments/{}", text(&cancelled, "paymentId"))).await;
    assert_eq!((&payment.body["status"], &payment.body["amount"]), (&json!("CANCELLED"), &json!(5_000)));
    assert_eq!(test.environment.count("SELECT COUNT(*) FROM outbox_events WHERE type = 'order.cancelled'").await, 1);
    // Never twice.
    assert_eq!(cancel(&test, 1, &order).await.body, cancelled.body);
    assert_eq!(test.stock_and_balance().await, (10, 20_000));
    test.end_consistent().await;
}

#[tokio::test]
async fn seed_001_2_an_unpaid_order_is_cancelled_without_a_refund() {
    let test = OrderTest::new(4_000, 10, 0).await;
    let order = test.place(test.order(1, 2)).await;
    assert_eq!(cancel(&test, 1, &order).await.status, 200);
    assert_eq!(test.stock().await, 10);
    assert_eq!(test.environment.count("SELECT COUNT(*) FROM point_histories").await, 0);
    assert_eq!(pay(&test, 1, &order).await.code(), "ORDER_STATE_CONFLICT");
    test.end().await;
}

#[tokio::test]
async fn seed_001_2_a_coupon_whose_validity_is_over_comes_back_expired() {
    let test = OrderTest::new(10_000, 10, 0).await;
    let (coupon, body) = test.order_with_coupon(1).await;
    let order = test.place(body).await;
    test.environment.execute("UPDATE user_coupons SET valid_until = '2020-01-01'").await;
    assert_eq!(cancel(&test, 1, &order).await.status, 200);
    assert_eq!(
        test.environment.count("SELECT COUNT(*) FROM user_coupons WHERE status = 'EXPIRED' AND used_at IS NULL").await,
        1
    );
    assert_eq!(coupon_status(&test, 1, &coupon).await, "EXPIRED");
    test.end().await;
}

#[tokio::test]
async fn seed_001_2_a_refund_that_would_exceed_the_holding_cap_is_refused() {
    let test = OrderTest::new(10_000, 10, 10_000).await;
    let order = test.place(paid(test.order(1, 1))).await;
    assert_eq!(test.post("/points", json!({ "userId": 1, "amount": 10_000_000 })).await.status, 200);
    let refused = cancel(&test, 1, &order).await;
    assert_refused(&refused, 422, "POINTS_CAP_EXCEEDED");
    assert_eq!(test.stock_and_balance().await, (9, 10_000_000));
    test.end_consistent().await;
}

/// 002 section 4-2: what happened is in the outbox in the transaction in which it did.
#[tokio::test]
async fn seed_002_4_2_every_change_writes_its_event() {
    let test = OrderTest::new(10_000, 10, 0).await;
    assert_eq!(test.post("/points", json!({ "userId": 1, "amount": 30_000 })).await.status, 200);
    let first = test.place(paid(test.order(1, 1))).await;
    assert_eq!(confirm(&test, 1, &first).await.status, 200);
    let second = test.place(test.order(1, 1)).await;
    assert_eq!(pay(&test, 1, &second).await.status, 200);
    assert_eq!(cancel(&test, 1, &second).await.status, 200);
    let events = test.environment.texts("SELECT CONCAT(type, ' ', IF(aggregate_id = user_id, '', aggregate_id)) FROM (SELECT *, '1' AS user_id FROM outbox_events) e ORDER BY event_id").await;
    let of = |order: &str, kind: &str| format!("order.{kind} {order}");
    let expected = [
        of(&first, "created"),
        of(&first, "paid"),
        of(&first, "confirmed"),
        of(&second, "created"),
        of(&second, "paid"),
        of(&second, "cancelled"),
    ];
    assert_eq!(
        events.iter().filter(|event| event.starts_with("order.")).collect::<Vec<_>>(),
        expected.iter().collect::<Vec<_>>()
    );
    assert_eq!(events.iter().filter(|event| event.starts_with("points.charged")).count(), 1);
    let payload = test
        .environment
        .texts("SELECT CAST(payload AS CHAR) FROM outbox_events WHERE type = 'order.paid' ORDER BY event_id LIMIT 1")
        .await;
    let payload: Value = serde_json::from_str(&payload[0]).expect("JSON");
    assert_eq!(
        (&payload["orderId"], &payload["status"], &payload["items"][0]["quantity"]),
        (&json!(first), &json!("PAY_DONE"), &json!(1))
    );
    test.end().await;
}

/// 003 section 5 and 004: place, pay, confirm the purchase.
#[tokio::test]
async fn seed_003_5_and_004_an_order_is_placed_then_paid_then_confirmed() {
    let test = OrderTest::new(7_000, 10, 10_000).await;
    let order = test.place(test.order(1, 1)).await;
    let shown = test.get(&format!("/orders/{order}")).await;
    assert_eq!((&shown.body["status"], &shown.body["paymentId"]), (&json!("DEPOSIT_WAIT"), &Value::Null));
    assert_eq!(test.balance().await, 10_000);
    let made = pay(&test, 1, &order).await;
    assert_eq!(made.status, 200, "{made:?}");
    assert_eq!(
        (&made.body["status"], &made.body["amount"], &made.body["balance"]),
        (&json!("DONE"), &json!(7_000), &json!(3_000))
    );
    assert_eq!(test.get(&format!("/payments/{}", text(&made, "paymentId"))).await.body["status"], "DONE");
    // Paying twice pays once.
    assert_eq!(pay(&test, 1, &order).await.body, made.body);
    let confirmed = confirm(&test, 1, &order).await;
    assert_eq!((confirmed.status.as_u16(), &confirmed.body["status"]), (200, &json!("BUY_CONFIRM")));
    let refused = cancel(&test, 1, &order).await;
    assert_refused(&refused, 409, "ORDER_STATE_CONFLICT");
    test.end_consistent().await;
}

#[tokio::test]
async fn seed_004_a_payment_without_enough_points_fails_and_stays_readable() {
    let test = OrderTest::new(7_000, 10, 6_999).await;
    let order = test.place(test.order(1, 1)).await;
    let refused = pay(&test, 1, &order).await;
    assert_refused(&refused, 422, "POINTS_INSUFFICIENT");
    let payment = test.get(&format!("/payments/{}", text(&refused, "paymentId"))).await;
    assert_eq!((&payment.body["status"], &payment.body["code"]), (&json!("FAIL"), &json!("POINTS_INSUFFICIENT")));
    assert_eq!(test.get(&format!("/orders/{order}")).await.body["status"], "DEPOSIT_WAIT");
    assert_eq!(test.post("/points", json!({ "userId": 1, "amount": 10_000 })).await.status, 200);
    assert_eq!(pay(&test, 1, &order).await.body["balance"], 9_999);
    test.end_consistent().await;
}

#[tokio::test]
async fn seed_004_an_unpaid_order_cannot_be_confirmed_and_a_strangers_not_be_found() {
    let test = OrderTest::new(7_000, 10, 0).await;
    let order = test.place(test.order(1, 1)).await;
    assert_eq!(confirm(&test, 1, &order).await.code(), "ORDER_STATE_CONFLICT");
    for answer in [confirm(&test, 2, &order).await, cancel(&test, 2, &order).await, pay(&test, 2, &order).await] {
        assert_refused(&answer, 404, "ORDER_NOT_FOUND");
    }
    assert_eq!(test.get(&format!("/orders/{}", new_uuid())).await.code(), "ORDER_NOT_FOUND");
    assert_eq!(test.get(&format!("/payments/{}", new_uuid())).await.code(), "PAYMENT_NOT_FOUND");
    test.end().await;
}

/// An unpaid order ends by itself, and gives back what it took.
#[tokio::test]
async fn an_unpaid_order_expires_and_gives_back_stock_and_coupon() {
    let mut test = OrderTest::new(7_000, 10, 0).await;
    let coupon = coupon(&test, 1, |_| ()).await;
    test.stop_worker().await;
    test.start_worker(OrderRules { expiry: TimeDelta::milliseconds(1), ..OrderRules::DEFAULT });
    let body = order_with(&coupon, test.order(1, 1));
    let order = test.place(body).await;
    test.eventually_shows(&format!("/orders/{order}"), "EXPIRED").await;
    assert_eq!(test.stock().await, 10);
    assert_eq!(coupon_status(&test, 1, &coupon).await, "USABLE");
    assert_eq!(pay(&test, 1, &order).await.code(), "ORDER_STATE_CONFLICT");
    assert_eq!(test.environment.count("SELECT COUNT(*) FROM outbox_events WHERE type = 'order.expired'").await, 1);
    test.end_consistent().await;
}

#[tokio::test]
async fn a_coupon_past_its_validity_shows_as_expired_at_once_and_is_swept() {
    let app = TestApp::with_worker().await;
    let coupon = coupon(&app, 1, |terms| terms.validity = Validity::Days(1)).await;
    app.environment.execute("UPDATE user_coupons SET valid_until = '2020-01-01'").await;
    assert_eq!(coupon_status(&app, 1, &coupon).await, "EXPIRED");
    eventually("the coupon is swept", Duration::from_secs(10), async || {
        app.environment.count("SELECT COUNT(*) FROM user_coupons WHERE status = 'EXPIRED'").await == 1
    })
    .await;
    app.end().await;
}
