//! Refusals carry their facts as fields: in the problem, and in what is stored of them.

use serde_json::{Value, json};

use super::{OrderTest, assert_refused, cancel, coupon, location, order_with, paid, pay, send_async, text};

fn assert_facts(body: &Value, facts: &Value) {
    for (name, value) in facts.as_object().expect("an object") {
        assert_eq!(&body[name], value, "{name}: {body}");
    }
}

#[tokio::test]
async fn a_rejected_order_has_its_facts_in_the_problem_and_where_it_is_stored() {
    let test = OrderTest::new(1_000, 5, 0).await;
    let facts = json!({ "productId": test.product, "requested": 6, "available": 5 });
    let refused = test.post("/orders", test.order(1, 6)).await;
    assert_refused(&refused, 422, "STOCK_INSUFFICIENT");
    assert_facts(&refused.body, &facts);
    let path = location(&send_async(&test, "/orders", test.order(1, 6)).await);
    test.eventually_shows(&path, "REJECTED").await;
    let stored = test.get(&path).await;
    assert_eq!((stored.code(), &stored.body["facts"]), ("STOCK_INSUFFICIENT", &facts));
    // A row of the version before.
    test.environment.execute("UPDATE orders SET facts = NULL").await;
    let stored = test.get(&path).await;
    assert_eq!((stored.code(), &stored.body["facts"]), ("STOCK_INSUFFICIENT", &Value::Null));
    test.end().await;
}

#[tokio::test]
async fn a_failed_payment_and_a_refused_command_have_their_facts() {
    let test = OrderTest::new(1_000, 5, 900).await;
    let order = test.place(test.order(1, 1)).await;
    let refused = pay(&test, 1, &order).await;
    let facts = json!({ "balance": 900, "required": 1_000 });
    assert_refused(&refused, 422, "POINTS_INSUFFICIENT");
    assert_facts(&refused.body, &facts);
    let payment = test.get(&format!("/payments/{}", text(&refused, "paymentId"))).await;
    assert_eq!((text(&payment, "status"), &payment.body["facts"]), ("FAIL", &facts));
    let together = test.post("/orders", paid(test.order(1, 1))).await;
    assert_facts(&together.body, &facts);
    assert_eq!(cancel(&test, 1, &order).await.status, 200);
    let path = location(&send_async(&test, &format!("/orders/{order}/confirm"), json!({ "userId": 1 })).await);
    test.eventually_shows(&path, "REFUSED").await;
    let command = test.get(&path).await;
    assert_eq!(command.body["facts"], json!({ "orderId": order, "orderStatus": "CANCELLED" }));
    test.end().await;
}

#[tokio::test]
async fn a_coupon_that_is_not_usable_says_why() {
    let test = OrderTest::new(1_000, 50, 0).await;
    let id = coupon(&test, 1, |terms| terms.minimum_order_amount = 4_000).await;
    let refused = test.post("/orders", order_with(&id, test.order(1, 3))).await;
    let minimum = json!({ "reason": "MINIMUM_NOT_REACHED", "minimumOrderAmount": 4_000, "totalAmount": 3_000 });
    assert_refused(&refused, 422, "COUPON_NOT_USABLE");
    assert_facts(&refused.body, &minimum);
    let refused = test.post("/orders", order_with(&id, test.order(2, 4))).await;
    assert_facts(&refused.body, &json!({ "reason": "NOT_OWNED", "userCouponId": id }));
    test.place(order_with(&id, test.order(1, 4))).await;
    for (status, reason) in [("USED", "USED"), ("EXPIRED", "EXPIRED"), ("REVOKED", "REVOKED")] {
        test.environment.execute(&format!("UPDATE user_coupons SET status = '{status}'")).await;
        let refused = test.post("/orders", order_with(&id, test.order(1, 4))).await;
        assert_facts(&refused.body, &json!({ "reason": reason, "userCouponId": id }));
    }
    test.end().await;
}
