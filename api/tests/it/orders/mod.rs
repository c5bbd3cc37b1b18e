//! Orders and payments, flow by flow of the design documents.

mod asynchronous;
mod concurrency;
mod facts;
mod lifecycle;
mod placing;
mod unpaid;

use std::ops::{Deref, DerefMut};

use dibs_common::{
    domain::campaign::{CampaignTerms, Discount, DiscountType},
    identifiers::ProductId,
    testing::open_terms,
};
use reqwest::Method;
use serde_json::{Value, json};

use crate::app::{Answer, RULES, TestApp};

pub(super) fn order_of(user: u64, product: ProductId, quantity: u32) -> Value {
    json!({ "userId": user, "items": [{ "productId": product, "quantity": quantity }] })
}

pub(super) fn paid(mut order: Value) -> Value {
    order["pay"] = json!(true);
    order
}

pub(super) fn text<'a>(answer: &'a Answer, field: &str) -> &'a str {
    answer.body[field].as_str().unwrap_or_else(|| panic!("{field}: {answer:?}"))
}

pub(super) async fn stock(app: &TestApp, product: ProductId) -> i64 {
    app.environment.count(&format!("SELECT stock FROM products WHERE product_id = {product}")).await
}

/// An API with a product. User 1 may have points.
pub(super) struct OrderTest {
    pub app: TestApp,
    pub product: ProductId,
}

impl Deref for OrderTest {
    type Target = TestApp;

    fn deref(&self) -> &TestApp {
        &self.app
    }
}

impl DerefMut for OrderTest {
    fn deref_mut(&mut self) -> &mut TestApp {
        &mut self.app
    }
}

impl OrderTest {
    /// With a worker.
    pub async fn new(price: i64, stock: i64, points: i64) -> Self {
        let mut test = Self::without_worker(price, stock, points).await;
        test.app.start_worker(RULES);
        test
    }

    pub async fn without_worker(price: i64, stock: i64, points: i64) -> Self {
        let app = TestApp::new().await;
        let product = app.environment.product(price, stock).await;
        if points > 0 {
            app.environment.points(1, points).await;
        }
        Self { app, product }
    }

    pub fn order(&self, user: u64, quantity: u32) -> Value {
        order_of(user, self.product, quantity)
    }

    pub async fn place(&self, body: Value) -> String {
        let placed = self.post("/orders", body).await;
        assert_eq!(placed.status, 201, "{placed:?}");
        text(&placed, "orderId").to_owned()
    }

    /// So many orders of user 1 for one unit, one after the other; their ids.
    pub async fn place_many(&self, count: usize) -> Vec<String> {
        let mut placed = Vec::new();
        while placed.len() < count {
            placed.push(self.place(self.order(1, 1)).await);
        }
        placed
    }

    pub async fn stock(&self) -> i64 {
        stock(&self.app, self.product).await
    }

    /// A coupon of user 1, and an order of that user that uses it.
    pub async fn order_with_coupon(&self, quantity: u32) -> (String, Value) {
        let coupon = coupon(&self.app, 1, |_| ()).await;
        let order = order_with(&coupon, self.order(1, quantity));
        (coupon, order)
    }

    /// The points of user 1.
    pub async fn balance(&self) -> i64 {
        self.get("/points?userId=1").await.body["balance"].as_i64().expect("a balance")
    }

    pub async fn stock_and_balance(&self) -> (i64, i64) {
        (self.stock().await, self.balance().await)
    }

    pub async fn end(self) {
        self.app.end().await;
    }

    /// Ends a test whose rows must agree with each other.
    pub async fn end_consistent(self) {
        end_consistent(self.app).await;
    }
}

pub(super) async fn pay(app: &TestApp, user: u64, order: &str) -> Answer {
    app.post("/payments/confirm", json!({ "userId": user, "orderId": order })).await
}

pub(super) async fn confirm(app: &TestApp, user: u64, order: &str) -> Answer {
    app.post(&format!("/orders/{order}/confirm"), json!({ "userId": user })).await
}

pub(super) async fn cancel(app: &TestApp, user: u64, order: &str) -> Answer {
    app.post(&format!("/orders/{order}/cancel"), json!({ "userId": user })).await
}

/// A coupon in a user's hands: 3,000 won off orders from 5,000 won on, unless `change` says otherwise.
pub(super) async fn coupon(app: &TestApp, user: u64, change: impl FnOnce(&mut CampaignTerms)) -> String {
    let mut terms = CampaignTerms {
        discount: Discount { kind: DiscountType::Fixed, value: 3_000, max_amount: None },
        minimum_order_amount: 5_000,
        ..open_terms()
    };
    change(&mut terms);
    let campaign = app.environment.campaign_of(terms).await;
    let issued = app.claim_and_wait(campaign.id, user).await;
    assert_eq!(issued.status, 200, "{issued:?}");
    text(&issued, "userCouponId").to_owned()
}

pub(super) async fn coupon_status(app: &TestApp, user: u64, coupon: &str) -> String {
    let owned = app.get(&format!("/users/{user}/coupons")).await;
    let items = owned.body["items"].as_array().expect("items");
    let found = items.iter().find(|item| item["userCouponId"] == coupon).expect("the coupon");
    found["status"].as_str().expect("a status").to_owned()
}

pub(super) fn order_with(coupon: &str, mut order: Value) -> Value {
    order["userCouponId"] = json!(coupon);
    order
}

/// Sends a command without waiting for its outcome.
pub(super) async fn send_async(app: &TestApp, path: &str, body: Value) -> Answer {
    Answer::of(app.request(Method::POST, path).header("prefer", "respond-async").json(&body)).await
}

pub(super) fn location(answer: &Answer) -> String {
    answer.header("location").expect("a location").to_owned()
}

pub(super) fn assert_refused(answer: &Answer, status: u16, code: &str) {
    assert_eq!((answer.status.as_u16(), answer.code()), (status, code), "{answer:?}");
}

/// Ends a test whose rows must agree with each other.
pub(super) async fn end_consistent(app: TestApp) {
    app.environment.expect_consistent_rows().await;
    app.end().await;
}
