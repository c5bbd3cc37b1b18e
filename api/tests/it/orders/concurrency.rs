//! Many calls at once have the effect of one, or of as many as may.

use futures::future::join_all;
use reqwest::Method;
use serde_json::json;

use super::{OrderTest, cancel, end_consistent, paid, stock};
use crate::app::{Answer, TestApp};

/// Fifty at once of each: one effect, and equal answers for all.
#[tokio::test]
async fn i7_and_i8_fifty_identical_requests_at_once_have_one_effect() {
    let test = OrderTest::new(7_000, 10, 20_000).await;
    let order = test.place(test.order(1, 1)).await;
    let paths = ["/payments/confirm".to_owned(), format!("/orders/{order}/confirm")];
    for path in &paths {
        let body = if path.ends_with("payments/confirm") {
            json!({ "userId": 1, "orderId": order })
        } else {
            json!({ "userId": 1 })
        };
        let answers = join_all((0..50).map(|_| test.post(path, body.clone()))).await;
        for answer in &answers {
            assert_eq!((answer.status.as_u16(), &answer.body), (200, &answers[0].body), "{path}");
        }
    }
    assert_eq!(test.balance().await, 13_000);
    let second = test.place(paid(test.order(1, 1))).await;
    let answers = join_all((0..50).map(|_| cancel(&test, 1, &second))).await;
    for answer in &answers {
        assert_eq!((answer.status.as_u16(), &answer.body), (200, &answers[0].body));
    }
    assert_eq!(test.stock_and_balance().await, (9, 13_000));
    assert_eq!(test.environment.count("SELECT COUNT(*) FROM point_histories WHERE type = 'REFUND'").await, 1);
    test.end_consistent().await;
}

#[tokio::test]
async fn i7_a_coupon_ordered_with_fifty_times_at_once_is_used_once() {
    let test = OrderTest::new(7_000, 100, 0).await;
    let (_, body) = test.order_with_coupon(1).await;
    let answers = join_all((0..50).map(|_| test.post("/orders", body.clone()))).await;
    assert_eq!(answers.iter().filter(|answer| answer.status == 201).count(), 1);
    for refused in answers.iter().filter(|answer| answer.status != 201) {
        assert_eq!(refused.code(), "COUPON_NOT_USABLE");
    }
    assert_eq!(test.stock().await, 99);
    test.end_consistent().await;
}

/// I5: a hundred users at once for ten units, in orders that touch the products in different order.
#[tokio::test]
async fn i5_a_burst_for_the_last_units_sells_each_once() {
    let app = TestApp::with_worker().await;
    let (first, second) = (app.environment.product(1_000, 10).await, app.environment.product(1_000, 10).await);
    let bodies = (1..=100_u64).map(|user| {
        let products = if user % 2 == 0 { [first, second] } else { [second, first] };
        json!({ "userId": user, "items": products.map(|product| json!({ "productId": product, "quantity": 1 })) })
    });
    let answers = join_all(bodies.map(|body| app.post("/orders", body))).await;
    assert_eq!(answers.iter().filter(|answer| answer.status == 201).count(), 10);
    assert_eq!(answers.iter().filter(|answer| answer.status == 422).count(), 90);
    assert_eq!((stock(&app, first).await, stock(&app, second).await), (0, 0));
    end_consistent(app).await;
}

/// I12: fifty at once with one key make one charge and one order; the others read that, or to retry.
#[tokio::test]
async fn i12_fifty_requests_with_one_key_make_one_charge_and_one_order() {
    let test = OrderTest::new(7_000, 100, 0).await;
    let calls = [("/points", json!({ "userId": 1, "amount": 10_000 }), 200), ("/orders", paid(test.order(1, 1)), 201)];
    for (path, body, status) in calls {
        let send = || Answer::of(test.request(Method::POST, path).header("idempotency-key", "once").json(&body));
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
    assert_eq!(test.stock_and_balance().await, (99, 3_000));
    test.end_consistent().await;
}
