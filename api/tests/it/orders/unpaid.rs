//! Unpaid orders hold stock. What one user can hold has bounds.

use dibs_common::domain::order::OrderRules;
use reqwest::Method;
use serde_json::{Value, json};

use super::{OrderTest, cancel, order_of, paid, pay, stock};
use crate::app::{ADMIN_TOKEN, Answer, RULES};

fn assert_rejected(answer: &Answer, code: &str) {
    assert_eq!((answer.status.as_u16(), answer.code()), (422, code), "{answer:?}");
}

#[tokio::test]
async fn a_user_has_at_most_five_unpaid_orders_at_once() {
    let test = OrderTest::new(1_000, 100, 10_000).await;
    let orders = test.place_many(5).await;
    let rejected = test.post("/orders", test.order(1, 1)).await;
    assert_rejected(&rejected, "UNPAID_ORDERS_LIMIT_EXCEEDED");
    assert!(rejected.body["detail"].as_str().is_some_and(|text| text.contains("5 unpaid orders")), "{rejected:?}");
    assert_eq!(test.stock().await, 95, "nothing of it was taken");
    test.place(test.order(2, 1)).await;
    test.place(paid(test.order(1, 1))).await;
    assert_eq!(pay(&test, 1, &orders[0]).await.status, 200);
    test.place(test.order(1, 1)).await;
    assert_rejected(&test.post("/orders", test.order(1, 1)).await, "UNPAID_ORDERS_LIMIT_EXCEEDED");
    assert_eq!(cancel(&test, 1, &orders[1]).await.status, 200);
    test.place(test.order(1, 1)).await;
    test.end_consistent().await;
}

/// One user without points orders all of a product, and again at each expiry. A user who pays comes too late.
#[tokio::test]
async fn a_user_who_does_not_pay_cannot_hold_all_units_of_a_product() {
    let test = OrderTest::new(1_000, 50, 1_000_000).await;
    let other = test.environment.product(1_000, 50).await;
    let all = test.post("/orders", test.order(2, 50)).await;
    assert_rejected(&all, "UNPAID_UNITS_LIMIT_EXCEEDED");
    for quantity in [6, 4] {
        test.place(test.order(2, quantity)).await;
    }
    assert_rejected(&test.post("/orders", test.order(2, 1)).await, "UNPAID_UNITS_LIMIT_EXCEEDED");
    test.place(order_of(2, other, 10)).await;
    test.place(paid(test.order(1, 25))).await;
    assert_eq!(test.stock().await, 15);
    test.end().await;
}

/// Requests at the same moment are decided in batches, and each counts those before it.
#[tokio::test]
async fn unpaid_orders_that_come_at_once_are_counted_one_after_the_other() {
    let test = OrderTest::new(1_000, 100, 0).await;
    let requests = (0..40).map(|_| test.post("/orders", test.order(1, 1)));
    let answers = futures::future::join_all(requests).await;
    let placed = answers.iter().filter(|answer| answer.status == 201).count();
    let rejected =
        answers.iter().filter(|answer| answer.status == 422 && answer.code() == "UNPAID_ORDERS_LIMIT_EXCEEDED");
    assert_eq!((placed, rejected.count(), test.stock().await), (5, 35, 95));
    test.end().await;
}

#[tokio::test]
async fn limits_of_0_are_no_limits() {
    let mut test = OrderTest::without_worker(1_000, 100, 0).await;
    test.start_worker(OrderRules { unpaid_orders_limit: 0, unpaid_units_limit: 0, ..RULES });
    for _ in 0..6 {
        test.place(test.order(1, 11)).await;
    }
    assert_eq!(test.stock().await, 34);
    test.end().await;
}

#[tokio::test]
async fn a_product_may_require_payment_with_the_order() {
    let test = OrderTest::new(1_000, 0, 10_000).await;
    let body = json!({ "name": "mug", "price": 1_000, "stock": 5, "paymentRequired": true });
    let created = test.administer("/admin/products", body).await;
    assert_eq!((created.status.as_u16(), &created.body["paymentRequired"]), (201, &json!(true)));
    let id = created.body["productId"].as_u64().expect("an id");
    let product = id.try_into().expect("an id");
    assert_eq!(test.get(&format!("/products/{id}")).await.body["paymentRequired"], true);
    assert_rejected(&test.post("/orders", order_of(1, product, 1)).await, "PAYMENT_REQUIRED");
    test.place(paid(order_of(1, product, 1))).await;
    let change = async |body: Value| {
        Answer::of(test.request(Method::PATCH, &format!("/admin/products/{id}")).bearer_auth(ADMIN_TOKEN).json(&body))
            .await
    };
    assert_eq!(change(json!({ "price": 2_000 })).await.body["paymentRequired"], true, "what is left out stays");
    assert_eq!(change(json!({ "paymentRequired": false })).await.body["paymentRequired"], false);
    test.place(order_of(1, product, 1)).await;
    assert_eq!(stock(&test, product).await, 3);
    test.end().await;
}
