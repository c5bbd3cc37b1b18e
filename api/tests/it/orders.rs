//! Orders and payments, flow by flow of the design documents.

use std::time::Duration;

use chrono::TimeDelta;
use dibs_common::{
    domain::{
        campaign::{CampaignTerms, Discount, DiscountType, Validity},
        order::OrderRules,
    },
    identifiers::{ProductId, new_uuid},
    testing::{TestEnvironment, eventually, open_terms},
};
use futures::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};

use crate::app::{Answer, RULES, TestApp};

fn order_of(user: u64, product: ProductId, quantity: u32) -> Value {
    json!({ "userId": user, "items": [{ "productId": product, "quantity": quantity }] })
}

fn paid(mut order: Value) -> Value {
    order["pay"] = json!(true);
    order
}

fn text<'a>(answer: &'a Answer, field: &str) -> &'a str {
    answer.body[field].as_str().unwrap_or_else(|| panic!("{field}: {answer:?}"))
}

async fn stock(app: &TestApp, product: ProductId) -> i64 {
    app.place.count(&format!("SELECT stock FROM products WHERE product_id = {product}")).await
}

async fn balance(app: &TestApp, user: u64) -> i64 {
    app.get(&format!("/points?userId={user}")).await.body["balance"].as_i64().expect("a balance")
}

/// An order that was placed.
async fn place(app: &TestApp, body: Value) -> String {
    let placed = app.post("/orders", body).await;
    assert_eq!(placed.status, 201, "{placed:?}");
    text(&placed, "orderId").to_owned()
}

async fn pay(app: &TestApp, user: u64, order: &str) -> Answer {
    app.post("/payments/confirm", json!({ "userId": user, "orderId": order })).await
}

async fn confirm(app: &TestApp, user: u64, order: &str) -> Answer {
    app.post(&format!("/orders/{order}/confirm"), json!({ "userId": user })).await
}

async fn cancel(app: &TestApp, user: u64, order: &str) -> Answer {
    app.post(&format!("/orders/{order}/cancel"), json!({ "userId": user })).await
}

/// A coupon in a user's hands: 3,000 won off orders from 5,000 won on, unless `change` says otherwise.
async fn coupon(app: &TestApp, user: u64, change: impl FnOnce(&mut CampaignTerms)) -> String {
    let mut terms = CampaignTerms {
        discount: Discount { kind: DiscountType::Fixed, value: 3_000, max_amount: None },
        minimum_order_amount: 5_000,
        ..open_terms()
    };
    change(&mut terms);
    let campaign = app.place.campaign_of(terms).await;
    let issued = app.claim_and_wait(campaign.id, user).await;
    assert_eq!(issued.status, 200, "{issued:?}");
    text(&issued, "userCouponId").to_owned()
}

async fn coupon_status(app: &TestApp, user: u64, coupon: &str) -> String {
    let owned = app.get(&format!("/users/{user}/coupons")).await;
    let items = owned.body["items"].as_array().expect("items");
    let found = items.iter().find(|item| item["userCouponId"] == coupon).expect("the coupon");
    found["status"].as_str().expect("a status").to_owned()
}

/// 000 section 4, the whole way: stock, coupon, points, ledger, event.
#[tokio::test]
async fn seed_000_4_an_order_takes_stock_coupon_and_points() {
    let app = TestApp::with_worker().await;
    let product = app.place.product(4_000, 10).await;
    app.place.points(1, 20_000).await;
    let coupon = coupon(&app, 1, |_| ()).await;
    let mut body = paid(order_of(1, product, 2));
    body["userCouponId"] = json!(coupon);
    let placed = app.post("/orders", body).await;
    assert_eq!(placed.status, 201, "{placed:?}");
    let order = text(&placed, "orderId");
    assert_eq!(placed.header("location"), Some(&*format!("/orders/{order}")));
    assert_eq!(placed.body["status"], "PAY_DONE");
    assert_eq!(
        (&placed.body["totalAmount"], &placed.body["discountAmount"], &placed.body["payAmount"]),
        (&json!(8_000), &json!(3_000), &json!(5_000))
    );
    assert_eq!(
        placed.body["items"],
        json!([{ "productId": product, "name": "커피 'Guji' \\ 200 g", "unitPrice": 4_000, "quantity": 2 }])
    );
    assert_eq!((stock(&app, product).await, balance(&app, 1).await), (8, 15_000));
    assert_eq!(coupon_status(&app, 1, &coupon).await, "USED");
    let history = app.get("/points/history?userId=1").await;
    let newest = &history.body["items"][0];
    assert_eq!(
        (&newest["type"], &newest["amount"], &newest["balanceAfter"]),
        (&json!("PAYMENT"), &json!(-5_000), &json!(15_000))
    );
    assert_eq!(newest["orderId"], *order);
    let shown = app.get(&format!("/orders/{order}")).await;
    assert_eq!(shown.body, placed.body);
    assert_eq!(
        app.place.count("SELECT COUNT(*) FROM outbox_events WHERE type IN ('order.created', 'order.paid') AND aggregate_type = 'ORDER'").await,
        2
    );
    app.place.expect_books_in_order().await;
    app.end().await;
}

#[tokio::test]
async fn seed_000_4_too_little_stock_changes_nothing() {
    let app = TestApp::with_worker().await;
    let (plenty, few) = (app.place.product(1_000, 10).await, app.place.product(1_000, 1).await);
    let body =
        json!({ "userId": 1, "items": [{ "productId": plenty, "quantity": 1 }, { "productId": few, "quantity": 2 }] });
    let refused = app.post("/orders", body).await;
    assert_eq!((refused.status.as_u16(), refused.code()), (422, "STOCK_INSUFFICIENT"));
    assert!(text(&refused, "detail").contains("has 1 in stock"), "{refused:?}");
    assert_eq!((stock(&app, plenty).await, stock(&app, few).await), (10, 1));
    let listed = app.get("/orders?userId=1").await;
    assert_eq!(
        (&listed.body["items"][0]["status"], &listed.body["items"][0]["code"]),
        (&json!("REJECTED"), &json!("STOCK_INSUFFICIENT"))
    );
    assert_eq!(app.place.count("SELECT COUNT(*) FROM outbox_events WHERE aggregate_type = 'ORDER'").await, 0);
    app.place.expect_books_in_order().await;
    app.end().await;
}

/// 000 section 4 draws the way back of stock and coupon: nothing has left when the points do not suffice.
#[tokio::test]
async fn seed_000_4_too_few_points_leave_stock_and_coupon() {
    let app = TestApp::with_worker().await;
    let product = app.place.product(10_000, 10).await;
    app.place.points(1, 6_999).await;
    let coupon = coupon(&app, 1, |_| ()).await;
    let mut body = paid(order_of(1, product, 1));
    body["userCouponId"] = json!(coupon);
    let refused = app.post("/orders", body).await;
    assert_eq!((refused.status.as_u16(), refused.code()), (422, "POINTS_INSUFFICIENT"));
    assert_eq!((stock(&app, product).await, balance(&app, 1).await), (10, 6_999));
    assert_eq!(coupon_status(&app, 1, &coupon).await, "USABLE");
    app.place.expect_books_in_order().await;
    app.end().await;
}

/// 001 section 1: product, quantity and an optional coupon; here without one.
#[tokio::test]
async fn seed_001_1_an_order_without_a_coupon_is_placed_and_paid() {
    let app = TestApp::with_worker().await;
    let product = app.place.product(3_000, 5).await;
    app.place.points(1, 10_000).await;
    let placed = app.post("/orders", paid(order_of(1, product, 3))).await;
    assert_eq!((placed.status.as_u16(), &placed.body["payAmount"]), (201, &json!(9_000)));
    assert_eq!((stock(&app, product).await, balance(&app, 1).await), (2, 1_000));
    app.end().await;
}

#[tokio::test]
async fn seed_001_2_cancelling_gives_stock_coupon_and_money_back() {
    let app = TestApp::with_worker().await;
    let product = app.place.product(4_000, 10).await;
    app.place.points(1, 20_000).await;
    let coupon = coupon(&app, 1, |_| ()).await;
    let mut body = paid(order_of(1, product, 2));
    body["userCouponId"] = json!(coupon);
    let order = place(&app, body).await;
    let cancelled = cancel(&app, 1, &order).await;
    assert_eq!((cancelled.status.as_u16(), &cancelled.body["status"]), (200, &json!("CANCELLED")), "{cancelled:?}");
    assert_eq!((stock(&app, product).await, balance(&app, 1).await), (10, 20_000));
    assert_eq!(coupon_status(&app, 1, &coupon).await, "USABLE");
    let payment = app.get(&format!("/payments/{}", text(&cancelled, "paymentId"))).await;
    assert_eq!((&payment.body["status"], &payment.body["amount"]), (&json!("CANCELLED"), &json!(5_000)));
    assert_eq!(app.place.count("SELECT COUNT(*) FROM outbox_events WHERE type = 'order.cancelled'").await, 1);
    // Never twice.
    assert_eq!(cancel(&app, 1, &order).await.body, cancelled.body);
    assert_eq!((stock(&app, product).await, balance(&app, 1).await), (10, 20_000));
    app.place.expect_books_in_order().await;
    app.end().await;
}

#[tokio::test]
async fn seed_001_2_an_unpaid_order_is_cancelled_without_a_refund() {
    let app = TestApp::with_worker().await;
    let product = app.place.product(4_000, 10).await;
    let order = place(&app, order_of(1, product, 2)).await;
    assert_eq!(cancel(&app, 1, &order).await.status, 200);
    assert_eq!(stock(&app, product).await, 10);
    assert_eq!(app.place.count("SELECT COUNT(*) FROM point_histories").await, 0);
    assert_eq!(pay(&app, 1, &order).await.code(), "ORDER_STATE_CONFLICT");
    app.end().await;
}

#[tokio::test]
async fn seed_001_2_a_coupon_whose_validity_is_over_comes_back_expired() {
    let app = TestApp::with_worker().await;
    let product = app.place.product(10_000, 10).await;
    let coupon = coupon(&app, 1, |_| ()).await;
    let mut body = order_of(1, product, 1);
    body["userCouponId"] = json!(coupon);
    let order = place(&app, body).await;
    app.place.execute("UPDATE user_coupons SET valid_until = '2020-01-01'").await;
    assert_eq!(cancel(&app, 1, &order).await.status, 200);
    assert_eq!(
        app.place.count("SELECT COUNT(*) FROM user_coupons WHERE status = 'EXPIRED' AND used_at IS NULL").await,
        1
    );
    assert_eq!(coupon_status(&app, 1, &coupon).await, "EXPIRED");
    app.end().await;
}

#[tokio::test]
async fn seed_001_2_a_refund_that_would_exceed_the_holding_cap_is_refused() {
    let app = TestApp::with_worker().await;
    let product = app.place.product(10_000, 10).await;
    app.place.points(1, 10_000).await;
    let order = place(&app, paid(order_of(1, product, 1))).await;
    assert_eq!(app.post("/points", json!({ "userId": 1, "amount": 10_000_000 })).await.status, 200);
    let refused = cancel(&app, 1, &order).await;
    assert_eq!((refused.status.as_u16(), refused.code()), (422, "POINTS_CAP_EXCEEDED"));
    assert_eq!((stock(&app, product).await, balance(&app, 1).await), (9, 10_000_000));
    app.place.expect_books_in_order().await;
    app.end().await;
}

/// 002 section 4-1: the branches of stock, coupon and points, each of which fails the whole order.
#[tokio::test]
async fn seed_002_4_1_a_coupon_that_cannot_be_used_fails_the_order() {
    let app = TestApp::with_worker().await;
    let product = app.place.product(4_999, 10).await;
    let (mine, over) = (coupon(&app, 1, |_| ()).await, coupon(&app, 1, |terms| terms.name = "over".into()).await);
    app.place.execute(&format!("UPDATE user_coupons SET valid_until = '2020-01-01' WHERE user_coupon_id = UNHEX(REPLACE('{over}', '-', ''))")).await;
    let order = async |user: u64, quantity: u32, coupon: &str| {
        let mut body = order_of(user, product, quantity);
        body["userCouponId"] = json!(coupon);
        app.post("/orders", body).await
    };
    let somebody_elses = order(2, 2, &mine).await;
    let unknown = order(1, 2, &new_uuid().to_string()).await;
    let too_small = order(1, 1, &mine).await;
    let no_longer_valid = order(1, 2, &over).await;
    for refused in [somebody_elses, unknown, too_small, no_longer_valid] {
        assert_eq!((refused.status.as_u16(), refused.code()), (422, "COUPON_NOT_USABLE"));
    }
    assert_eq!(stock(&app, product).await, 10);
    assert_eq!(order(1, 2, &mine).await.status, 201);
    assert_eq!(order(1, 2, &mine).await.code(), "COUPON_NOT_USABLE");
    assert_eq!(stock(&app, product).await, 8);
    app.place.expect_books_in_order().await;
    app.end().await;
}

/// 002 section 4-2: what happened is in the outbox in the transaction in which it did.
#[tokio::test]
async fn seed_002_4_2_every_change_writes_its_event() {
    let app = TestApp::with_worker().await;
    let product = app.place.product(10_000, 10).await;
    assert_eq!(app.post("/points", json!({ "userId": 1, "amount": 30_000 })).await.status, 200);
    let first = place(&app, paid(order_of(1, product, 1))).await;
    assert_eq!(confirm(&app, 1, &first).await.status, 200);
    let second = place(&app, order_of(1, product, 1)).await;
    assert_eq!(pay(&app, 1, &second).await.status, 200);
    assert_eq!(cancel(&app, 1, &second).await.status, 200);
    let events = app.place.texts("SELECT CONCAT(type, ' ', IF(aggregate_id = user_id, '', aggregate_id)) FROM (SELECT *, '1' AS user_id FROM outbox_events) e ORDER BY event_id").await;
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
    let payload = app
        .place
        .texts("SELECT CAST(payload AS CHAR) FROM outbox_events WHERE type = 'order.paid' ORDER BY event_id LIMIT 1")
        .await;
    let payload: Value = serde_json::from_str(&payload[0]).expect("JSON");
    assert_eq!(
        (&payload["orderId"], &payload["status"], &payload["items"][0]["quantity"]),
        (&json!(first), &json!("PAY_DONE"), &json!(1))
    );
    app.end().await;
}

/// 003 section 4: a product that is not for sale, and one that does not exist.
#[tokio::test]
async fn seed_003_4_a_product_that_is_not_for_sale_fails_the_order() {
    let app = TestApp::with_worker().await;
    let product = app.place.product(1_000, 10).await;
    app.place.execute("UPDATE products SET status = 'STOPPED'").await;
    let refused = app.post("/orders", order_of(1, product, 1)).await;
    assert_eq!((refused.status.as_u16(), refused.code()), (422, "PRODUCT_NOT_SELLING"));
    let unknown = app.post("/orders", order_of(1, 999.try_into().expect("an id"), 1)).await;
    assert_eq!((unknown.status.as_u16(), unknown.code()), (404, "PRODUCT_NOT_FOUND"));
    app.end().await;
}

/// 003 section 5 and 004: place, pay, confirm the purchase.
#[tokio::test]
async fn seed_003_5_and_004_an_order_is_placed_then_paid_then_confirmed() {
    let app = TestApp::with_worker().await;
    let product = app.place.product(7_000, 10).await;
    app.place.points(1, 10_000).await;
    let order = place(&app, order_of(1, product, 1)).await;
    let shown = app.get(&format!("/orders/{order}")).await;
    assert_eq!((&shown.body["status"], &shown.body["paymentId"]), (&json!("DEPOSIT_WAIT"), &Value::Null));
    assert_eq!(balance(&app, 1).await, 10_000);
    let made = pay(&app, 1, &order).await;
    assert_eq!(made.status, 200, "{made:?}");
    assert_eq!(
        (&made.body["status"], &made.body["amount"], &made.body["balance"]),
        (&json!("DONE"), &json!(7_000), &json!(3_000))
    );
    assert_eq!(app.get(&format!("/payments/{}", text(&made, "paymentId"))).await.body["status"], "DONE");
    // Paying twice pays once.
    assert_eq!(pay(&app, 1, &order).await.body, made.body);
    let confirmed = confirm(&app, 1, &order).await;
    assert_eq!((confirmed.status.as_u16(), &confirmed.body["status"]), (200, &json!("BUY_CONFIRM")));
    let refused = cancel(&app, 1, &order).await;
    assert_eq!((refused.status.as_u16(), refused.code()), (409, "ORDER_STATE_CONFLICT"));
    app.place.expect_books_in_order().await;
    app.end().await;
}

#[tokio::test]
async fn seed_004_a_payment_without_enough_points_fails_and_stays_readable() {
    let app = TestApp::with_worker().await;
    let product = app.place.product(7_000, 10).await;
    app.place.points(1, 6_999).await;
    let order = place(&app, order_of(1, product, 1)).await;
    let refused = pay(&app, 1, &order).await;
    assert_eq!((refused.status.as_u16(), refused.code()), (422, "POINTS_INSUFFICIENT"));
    let payment = app.get(&format!("/payments/{}", text(&refused, "paymentId"))).await;
    assert_eq!((&payment.body["status"], &payment.body["code"]), (&json!("FAIL"), &json!("POINTS_INSUFFICIENT")));
    assert_eq!(app.get(&format!("/orders/{order}")).await.body["status"], "DEPOSIT_WAIT");
    assert_eq!(app.post("/points", json!({ "userId": 1, "amount": 10_000 })).await.status, 200);
    assert_eq!(pay(&app, 1, &order).await.body["balance"], 9_999);
    app.place.expect_books_in_order().await;
    app.end().await;
}

#[tokio::test]
async fn seed_004_an_unpaid_order_cannot_be_confirmed_and_a_strangers_not_be_found() {
    let app = TestApp::with_worker().await;
    let product = app.place.product(7_000, 10).await;
    let order = place(&app, order_of(1, product, 1)).await;
    assert_eq!(confirm(&app, 1, &order).await.code(), "ORDER_STATE_CONFLICT");
    for answer in [confirm(&app, 2, &order).await, cancel(&app, 2, &order).await, pay(&app, 2, &order).await] {
        assert_eq!((answer.status.as_u16(), answer.code()), (404, "ORDER_NOT_FOUND"));
    }
    assert_eq!(app.get(&format!("/orders/{}", new_uuid())).await.code(), "ORDER_NOT_FOUND");
    assert_eq!(app.get(&format!("/payments/{}", new_uuid())).await.code(), "PAYMENT_NOT_FOUND");
    app.end().await;
}

/// An unpaid order ends by itself, and gives back what it took.
#[tokio::test]
async fn an_unpaid_order_expires_and_gives_back_stock_and_coupon() {
    let mut app = TestApp::with_worker().await;
    let product = app.place.product(7_000, 10).await;
    let coupon = coupon(&app, 1, |_| ()).await;
    app.stop_worker().await;
    app.start_worker(OrderRules { expiry: TimeDelta::milliseconds(1), holding_cap: 10_000_000 });
    let mut body = order_of(1, product, 1);
    body["userCouponId"] = json!(coupon);
    let order = place(&app, body).await;
    eventually("the order expires", Duration::from_secs(10), async || {
        app.get(&format!("/orders/{order}")).await.body["status"] == "EXPIRED"
    })
    .await;
    assert_eq!(stock(&app, product).await, 10);
    assert_eq!(coupon_status(&app, 1, &coupon).await, "USABLE");
    assert_eq!(pay(&app, 1, &order).await.code(), "ORDER_STATE_CONFLICT");
    assert_eq!(app.place.count("SELECT COUNT(*) FROM outbox_events WHERE type = 'order.expired'").await, 1);
    app.place.expect_books_in_order().await;
    app.end().await;
}

#[tokio::test]
async fn a_coupon_past_its_validity_shows_as_expired_at_once_and_is_swept() {
    let app = TestApp::with_worker().await;
    let coupon = coupon(&app, 1, |terms| terms.validity = Validity::Days(1)).await;
    app.place.execute("UPDATE user_coupons SET valid_until = '2020-01-01'").await;
    assert_eq!(coupon_status(&app, 1, &coupon).await, "EXPIRED");
    eventually("the coupon is swept", Duration::from_secs(10), async || {
        app.place.count("SELECT COUNT(*) FROM user_coupons WHERE status = 'EXPIRED'").await == 1
    })
    .await;
    app.end().await;
}

/// Who does not wait asks later, before and after it is carried out.
#[tokio::test]
async fn a_command_that_is_not_waited_for_can_be_asked_after() {
    let mut app = TestApp::new().await;
    let product = app.place.product(7_000, 10).await;
    app.place.points(1, 7_000).await;
    let send = async |path: &str, body: Value| {
        Answer::of(app.request(Method::POST, path).header("prefer", "respond-async").json(&body)).await
    };
    let placed = send("/orders", order_of(1, product, 1)).await;
    assert_eq!((placed.status.as_u16(), &placed.body["status"]), (202, &json!("PENDING")));
    let at = placed.header("location").expect("where").to_owned();
    assert_eq!(app.get(&at).await.body["status"], "PENDING");
    let order = text(&placed, "orderId").to_owned();
    let paying = send("/payments/confirm", json!({ "userId": 1, "orderId": order })).await;
    let payment = paying.header("location").expect("where").to_owned();
    assert_eq!(app.get(&payment).await.body["status"], "READY");
    let cancelling = send(&format!("/orders/{order}/cancel"), json!({ "userId": 1 })).await;
    let command = cancelling.header("location").expect("where").to_owned();
    assert_eq!(app.get(&command).await.body["status"], "PENDING");
    let confirming = send(&format!("/orders/{order}/confirm"), json!({ "userId": 1 })).await;
    let refused = confirming.header("location").expect("where").to_owned();
    app.start_worker(RULES);
    eventually("all are carried out", Duration::from_secs(10), async || {
        app.get(&refused).await.body["status"] == "REFUSED"
    })
    .await;
    assert_eq!(app.get(&refused).await.body["code"], "ORDER_STATE_CONFLICT");
    assert_eq!(app.get(&command).await.body["status"], "DONE");
    assert_eq!(app.get(&payment).await.body["status"], "CANCELLED");
    assert_eq!(app.get(&at).await.body["status"], "CANCELLED");
    app.place.expect_books_in_order().await;
    app.end().await;
}

/// A worker that is away makes callers wait no longer than they said, and loses nothing.
#[tokio::test]
async fn without_a_worker_a_caller_is_told_to_come_back() {
    let mut app = TestApp::new().await;
    let product = app.place.product(7_000, 10).await;
    let taken =
        Answer::of(app.request(Method::POST, "/orders").header("prefer", "wait=1").json(&order_of(1, product, 1)))
            .await;
    assert_eq!(taken.status, 202);
    app.start_worker(RULES);
    let at = taken.header("location").expect("where");
    eventually("it is placed", Duration::from_secs(10), async || app.get(at).await.body["status"] == "DEPOSIT_WAIT")
        .await;
    app.end().await;
}

/// Fifty at once of each: one effect, and equal answers for all.
#[tokio::test]
async fn i7_and_i8_fifty_identical_requests_at_once_have_one_effect() {
    let app = TestApp::with_worker().await;
    let product = app.place.product(7_000, 10).await;
    app.place.points(1, 20_000).await;
    let order = place(&app, order_of(1, product, 1)).await;
    let paths = ["/payments/confirm".to_owned(), format!("/orders/{order}/confirm")];
    for path in &paths {
        let body = if path.ends_with("payments/confirm") {
            json!({ "userId": 1, "orderId": order })
        } else {
            json!({ "userId": 1 })
        };
        let answers = join_all((0..50).map(|_| app.post(path, body.clone()))).await;
        for answer in &answers {
            assert_eq!((answer.status.as_u16(), &answer.body), (200, &answers[0].body), "{path}");
        }
    }
    assert_eq!(balance(&app, 1).await, 13_000);
    let second = place(&app, paid(order_of(1, product, 1))).await;
    let answers = join_all((0..50).map(|_| cancel(&app, 1, &second))).await;
    for answer in &answers {
        assert_eq!((answer.status.as_u16(), &answer.body), (200, &answers[0].body));
    }
    assert_eq!((stock(&app, product).await, balance(&app, 1).await), (9, 13_000));
    assert_eq!(app.place.count("SELECT COUNT(*) FROM point_histories WHERE type = 'REFUND'").await, 1);
    app.place.expect_books_in_order().await;
    app.end().await;
}

#[tokio::test]
async fn i7_a_coupon_ordered_with_fifty_times_at_once_is_used_once() {
    let app = TestApp::with_worker().await;
    let product = app.place.product(7_000, 100).await;
    let coupon = coupon(&app, 1, |_| ()).await;
    let mut body = order_of(1, product, 1);
    body["userCouponId"] = json!(coupon);
    let answers = join_all((0..50).map(|_| app.post("/orders", body.clone()))).await;
    assert_eq!(answers.iter().filter(|answer| answer.status == 201).count(), 1);
    for refused in answers.iter().filter(|answer| answer.status != 201) {
        assert_eq!(refused.code(), "COUPON_NOT_USABLE");
    }
    assert_eq!(stock(&app, product).await, 99);
    app.place.expect_books_in_order().await;
    app.end().await;
}

/// I5: a hundred users at once for ten units, in orders that touch the products in different order.
#[tokio::test]
async fn i5_a_rush_for_the_last_units_sells_each_once() {
    let app = TestApp::with_worker().await;
    let (first, second) = (app.place.product(1_000, 10).await, app.place.product(1_000, 10).await);
    let bodies = (1..=100_u64).map(|user| {
        let products = if user % 2 == 0 { [first, second] } else { [second, first] };
        json!({ "userId": user, "items": products.map(|product| json!({ "productId": product, "quantity": 1 })) })
    });
    let answers = join_all(bodies.map(|body| app.post("/orders", body))).await;
    assert_eq!(answers.iter().filter(|answer| answer.status == 201).count(), 10);
    assert_eq!(answers.iter().filter(|answer| answer.status == 422).count(), 90);
    assert_eq!((stock(&app, first).await, stock(&app, second).await), (0, 0));
    app.place.expect_books_in_order().await;
    app.end().await;
}

#[tokio::test]
async fn bad_orders_are_clear_4xx_and_change_nothing() {
    let app = TestApp::with_worker().await;
    let product = app.place.product(9_007_199_254_740_991, 10_000_000).await;
    let line = |quantity: Value| json!({ "productId": product, "quantity": quantity });
    let body = |items: Vec<Value>| json!({ "userId": 1, "items": items });
    let cases = [
        (body(vec![]), 400, "VALIDATION_FAILED"),
        (body(vec![line(json!(0))]), 400, "VALIDATION_FAILED"),
        (body(vec![line(json!(-1))]), 400, "VALIDATION_FAILED"),
        (body(vec![line(json!(1.5))]), 400, "VALIDATION_FAILED"),
        (body(vec![line(json!(10_001))]), 400, "VALIDATION_FAILED"),
        (body(vec![line(json!(6_000)), line(json!(6_000))]), 400, "VALIDATION_FAILED"),
        (body(vec![line(json!(u64::MAX))]), 400, "VALIDATION_FAILED"),
        (body(vec![line(json!(2))]), 400, "VALIDATION_FAILED"),
        (body(vec![line(json!(10_000))]), 400, "VALIDATION_FAILED"),
        (body(vec![line(json!(1)); 101]), 400, "VALIDATION_FAILED"),
        (body(vec![line(json!(1)); 10_000]), 413, "PAYLOAD_TOO_LARGE"),
        (json!({ "userId": 1, "items": [[product, 1]] }), 400, "VALIDATION_FAILED"),
        (json!({ "userId": 0, "items": [line(json!(1))] }), 400, "VALIDATION_FAILED"),
        (json!({ "userId": 1, "items": [line(json!(1))], "userCouponId": "x" }), 400, "VALIDATION_FAILED"),
        (json!({ "userId": 1, "items": [line(json!(1))], "gift": true }), 400, "VALIDATION_FAILED"),
    ];
    for (body, status, code) in cases {
        let refused = app.post("/orders", body.clone()).await;
        assert_eq!((refused.status.as_u16(), refused.code()), (status, code), "{body}");
    }
    assert_eq!(app.post("/orders/x/cancel", json!({ "userId": 1 })).await.code(), "VALIDATION_FAILED");
    assert_eq!(app.get("/orders").await.code(), "VALIDATION_FAILED");
    assert_eq!(app.get("/orders?userId=1&limit=101").await.code(), "VALIDATION_FAILED");
    assert_eq!(stock(&app, product).await, 10_000_000);
    app.end().await;
}

#[tokio::test]
async fn orders_are_listed_by_page_the_newest_first() {
    let app = TestApp::with_worker().await;
    let product = app.place.product(1_000, 10).await;
    let mut placed = Vec::new();
    for _ in 0..3 {
        placed.push(place(&app, order_of(1, product, 1)).await);
    }
    let first = app.get("/orders?userId=1&limit=2").await;
    let second = app.get(&format!("/orders?userId=1&limit=2&cursor={}", text(&first, "nextCursor"))).await;
    let ids = [&first, &second].into_iter().flat_map(|page| page.body["items"].as_array().expect("items"));
    let ids: Vec<&str> = ids.filter_map(|order| order["orderId"].as_str()).collect();
    assert_eq!(ids, placed.iter().rev().collect::<Vec<_>>());
    assert_eq!(second.body["nextCursor"], Value::Null);
    assert_eq!(second.body["items"][0]["items"][0]["quantity"], 1);
    app.end().await;
}

/// I12: fifty at once with one key make one charge and one order; the others are told so, or to come back.
#[tokio::test]
async fn i12_fifty_requests_with_one_key_make_one_charge_and_one_order() {
    let app = TestApp::with_worker().await;
    let product = app.place.product(7_000, 100).await;
    let calls =
        [("/points", json!({ "userId": 1, "amount": 10_000 }), 200), ("/orders", paid(order_of(1, product, 1)), 201)];
    for (path, body, status) in calls {
        let send = || Answer::of(app.request(Method::POST, path).header("idempotency-key", "once").json(&body));
        let answers = join_all((0..50).map(|_| send())).await;
        let made: Vec<&Answer> = answers.iter().filter(|answer| answer.status == status).collect();
        assert!(!made.is_empty(), "{path}: {answers:?}");
        for answer in &answers {
            if answer.status == status {
                assert_eq!(answer.body, made[0].body, "{path}");
            } else {
                assert_eq!((answer.status.as_u16(), answer.code()), (409, "IDEMPOTENCY_IN_PROGRESS"), "{path}");
            }
        }
        let again = send().await;
        assert_eq!((again.status, &again.body), (made[0].status, &made[0].body), "{path}");
    }
    assert_eq!((stock(&app, product).await, balance(&app, 1).await), (99, 3_000));
    app.place.expect_books_in_order().await;
    app.end().await;
}

/// A command of an order that is still on its stream, in the hands of a late worker, comes too early and not in vain.
#[tokio::test]
async fn paying_before_the_order_is_placed_is_too_early() {
    let mut app = TestApp::new().await;
    let product = app.place.product(7_000, 10).await;
    app.place.points(1, 7_000).await;
    let send = async |path: &str, body: Value| {
        Answer::of(app.request(Method::POST, path).header("prefer", "respond-async").json(&body)).await
    };
    let placed = send("/orders", order_of(1, product, 1)).await;
    let order = text(&placed, "orderId").to_owned();
    // A worker that read the order, and is late with it.
    let late = dibs_common::redis::streams::OrderStream::open(&app.place.redis, crate::app::ONLY, "late".into()).await;
    let late = late.expect("opened");
    assert_eq!(late.read(10).await.expect("read").len(), 1);
    app.start_worker(RULES);
    let early = pay(&app, 1, &order).await;
    assert_eq!((early.status.as_u16(), early.code()), (409, "ORDER_STATE_CONFLICT"));
    assert_eq!(early.header("retry-after"), Some("1"));
    // What it is is told by its own path only.
    assert_eq!(app.get(&format!("/payments/{order}")).await.code(), "PAYMENT_NOT_FOUND");
    eventually("another worker takes over", Duration::from_secs(20), async || {
        app.get(&format!("/orders/{order}")).await.body["status"] == "DEPOSIT_WAIT"
    })
    .await;
    assert_eq!(pay(&app, 1, &order).await.status, 200);
    app.place.expect_books_in_order().await;
    app.end().await;
}

/// Without the database an order is taken and waits on its stream; what has to be read is refused in time.
#[tokio::test]
async fn without_the_database_an_order_is_taken_and_carried_out_later() {
    let place = TestEnvironment::new().await;
    let product = place.product(7_000, 10).await;
    let (shared, database_gate, _redis_gate) = place.gated().await;
    let mut app = TestApp::with(place, shared, |_| ()).await;
    database_gate.shut();
    let began = tokio::time::Instant::now();
    let body = order_of(1, product, 1);
    let taken = Answer::of(app.request(Method::POST, "/orders").header("prefer", "wait=2").json(&body)).await;
    assert_eq!(taken.status, 202, "{taken:?}");
    let at = taken.header("location").expect("where").to_owned();
    let refused = app.get(&at).await;
    assert_eq!((refused.status.as_u16(), refused.code()), (503, "DEPENDENCY_UNAVAILABLE"));
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
    database_gate.open();
    app.start_worker(RULES);
    eventually("it is placed", Duration::from_secs(10), async || app.get(&at).await.body["status"] == "DEPOSIT_WAIT")
        .await;
    app.end().await;
}
