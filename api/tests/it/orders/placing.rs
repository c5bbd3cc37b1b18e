//! Placing an order: what it takes, and what refuses it.

use dibs_common::identifiers::new_uuid;
use serde_json::{Value, json};

use super::{
    OrderTest, assert_refused, coupon, coupon_status, end_consistent, order_of, order_with, paid, stock, text,
};
use crate::app::TestApp;

/// 000 section 4, the whole way: stock, coupon, points, ledger, event.
#[tokio::test]
async fn seed_000_4_an_order_takes_stock_coupon_and_points() {
    let test = OrderTest::new(4_000, 10, 20_000).await;
    let (coupon, order) = test.order_with_coupon(2).await;
    let placed = test.post("/orders", paid(order)).await;
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
        json!([{ "productId": test.product, "name": "커피 'Guji' \\ 200 g", "unitPrice": 4_000, "quantity": 2 }])
    );
    assert_eq!(test.stock_and_balance().await, (8, 15_000));
    assert_eq!(coupon_status(&test, 1, &coupon).await, "USED");
    let history = test.get("/points/history?userId=1").await;
    let newest = &history.body["items"][0];
    assert_eq!(
        (&newest["type"], &newest["amount"], &newest["balanceAfter"]),
        (&json!("PAYMENT"), &json!(-5_000), &json!(15_000))
    );
    assert_eq!(newest["orderId"], *order);
    let shown = test.get(&format!("/orders/{order}")).await;
    assert_eq!(shown.body, placed.body);
    assert_eq!(
        test.environment.count("SELECT COUNT(*) FROM outbox_events WHERE type IN ('order.created', 'order.paid') AND aggregate_type = 'ORDER'").await,
        2
    );
    test.end_consistent().await;
}

#[tokio::test]
async fn seed_000_4_too_little_stock_changes_nothing() {
    let app = TestApp::with_worker().await;
    let (plenty, few) = (app.environment.product(1_000, 10).await, app.environment.product(1_000, 1).await);
    let body =
        json!({ "userId": 1, "items": [{ "productId": plenty, "quantity": 1 }, { "productId": few, "quantity": 2 }] });
    let refused = app.post("/orders", body).await;
    assert_refused(&refused, 422, "STOCK_INSUFFICIENT");
    assert!(text(&refused, "detail").contains("has 1 in stock"), "{refused:?}");
    assert_eq!((stock(&app, plenty).await, stock(&app, few).await), (10, 1));
    let listed = app.get("/orders?userId=1&status=REJECTED").await;
    assert_eq!(
        (&listed.body["items"][0]["status"], &listed.body["items"][0]["code"]),
        (&json!("REJECTED"), &json!("STOCK_INSUFFICIENT"))
    );
    assert_eq!(app.environment.count("SELECT COUNT(*) FROM outbox_events WHERE aggregate_type = 'ORDER'").await, 0);
    end_consistent(app).await;
}

/// 000 section 4 draws the way back of stock and coupon: nothing has left when the points do not suffice.
#[tokio::test]
async fn seed_000_4_too_few_points_leave_stock_and_coupon() {
    let test = OrderTest::new(10_000, 10, 6_999).await;
    let (coupon, order) = test.order_with_coupon(1).await;
    let refused = test.post("/orders", paid(order)).await;
    assert_refused(&refused, 422, "POINTS_INSUFFICIENT");
    assert_eq!(test.stock_and_balance().await, (10, 6_999));
    assert_eq!(coupon_status(&test, 1, &coupon).await, "USABLE");
    test.end_consistent().await;
}

/// 001 section 1: product, quantity and an optional coupon; here without one.
#[tokio::test]
async fn seed_001_1_an_order_without_a_coupon_is_placed_and_paid() {
    let test = OrderTest::new(3_000, 5, 10_000).await;
    let placed = test.post("/orders", paid(test.order(1, 3))).await;
    assert_eq!((placed.status.as_u16(), &placed.body["payAmount"]), (201, &json!(9_000)));
    assert_eq!(test.stock_and_balance().await, (2, 1_000));
    test.end().await;
}

/// 002 section 4-1: the branches of stock, coupon and points, each of which fails the whole order.
#[tokio::test]
async fn seed_002_4_1_a_coupon_that_cannot_be_used_fails_the_order() {
    let test = OrderTest::new(4_999, 10, 0).await;
    let (mine, over) = (coupon(&test, 1, |_| ()).await, coupon(&test, 1, |terms| terms.name = "over".into()).await);
    test.environment.execute(&format!("UPDATE user_coupons SET valid_until = '2020-01-01' WHERE user_coupon_id = UNHEX(REPLACE('{over}', '-', ''))")).await;
    let order = async |user: u64, quantity: u32, coupon: &str| {
        test.post("/orders", order_with(coupon, test.order(user, quantity))).await
    };
    let of_another_user = order(2, 2, &mine).await;
    let unknown = order(1, 2, &new_uuid().to_string()).await;
    let too_small = order(1, 1, &mine).await;
    let no_longer_valid = order(1, 2, &over).await;
    for refused in [of_another_user, unknown, too_small, no_longer_valid] {
        assert_refused(&refused, 422, "COUPON_NOT_USABLE");
    }
    assert_eq!(test.stock().await, 10);
    assert_eq!(order(1, 2, &mine).await.status, 201);
    assert_eq!(order(1, 2, &mine).await.code(), "COUPON_NOT_USABLE");
    assert_eq!(test.stock().await, 8);
    test.end_consistent().await;
}

/// 003 section 4: a product that is not for sale, and one that does not exist.
#[tokio::test]
async fn seed_003_4_a_product_that_is_not_for_sale_fails_the_order() {
    let test = OrderTest::new(1_000, 10, 0).await;
    test.environment.execute("UPDATE products SET status = 'STOPPED'").await;
    let refused = test.post("/orders", test.order(1, 1)).await;
    assert_refused(&refused, 422, "PRODUCT_NOT_SELLING");
    let unknown = test.post("/orders", order_of(1, 999.try_into().expect("an id"), 1)).await;
    assert_refused(&unknown, 404, "PRODUCT_NOT_FOUND");
    test.end().await;
}

#[tokio::test]
async fn bad_orders_are_clear_4xx_and_change_nothing() {
    let test = OrderTest::new(9_007_199_254_740_991, 10_000_000, 0).await;
    let line = |quantity: Value| json!({ "productId": test.product, "quantity": quantity });
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
        (json!({ "userId": 1, "items": [[test.product, 1]] }), 400, "VALIDATION_FAILED"),
        (json!({ "userId": 0, "items": [line(json!(1))] }), 400, "VALIDATION_FAILED"),
        (json!({ "userId": 1, "items": [line(json!(1))], "userCouponId": "x" }), 400, "VALIDATION_FAILED"),
        (json!({ "userId": 1, "items": [line(json!(1))], "gift": true }), 400, "VALIDATION_FAILED"),
    ];
    for (body, status, code) in cases {
        let refused = test.post("/orders", body.clone()).await;
        assert_eq!((refused.status.as_u16(), refused.code()), (status, code), "{body}");
    }
    assert_eq!(test.post("/orders/x/cancel", json!({ "userId": 1 })).await.code(), "VALIDATION_FAILED");
    assert_eq!(test.get("/orders").await.code(), "VALIDATION_FAILED");
    assert_eq!(test.get("/orders?userId=1&limit=101").await.code(), "VALIDATION_FAILED");
    assert_eq!(test.stock().await, 10_000_000);
    test.end().await;
}

#[tokio::test]
async fn orders_are_listed_by_page_the_newest_first() {
    let test = OrderTest::new(1_000, 10, 0).await;
    let placed = test.place_many(3).await;
    let first = test.get("/orders?userId=1&limit=2").await;
    let second = test.get(&format!("/orders?userId=1&limit=2&cursor={}", text(&first, "nextCursor"))).await;
    let ids = [&first, &second].into_iter().flat_map(|page| page.body["items"].as_array().expect("items"));
    let ids: Vec<&str> = ids.filter_map(|order| order["orderId"].as_str()).collect();
    assert_eq!(ids, placed.iter().rev().collect::<Vec<_>>());
    assert_eq!(second.body["nextCursor"], Value::Null);
    assert_eq!(second.body["items"][0]["items"][0]["quantity"], 1);
    test.end().await;
}
