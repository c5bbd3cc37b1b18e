//! A shop with something on every page.

use chrono::TimeDelta;
use dibs_common::{
    clock, db,
    domain::{
        admin_action::ActionContext,
        campaign::{CampaignTerms, Discount, DiscountType},
        dead_letter::NewDeadLetter,
        product::{ProductStatus, ProductTerms},
    },
    identifiers::{CouponId, ProductId},
    testing::{action, open_terms},
};
use serde_json::json;

use super::pages::{insert, letter};
use crate::app::TestApp;

pub struct Shop {
    pub open: CouponId,
    pub paused: CouponId,
    pub product: ProductId,
    pub order: String,
}

async fn product(app: &TestApp, name: &str, price: i64, stock: i64) -> ProductId {
    let name = name.to_owned();
    let terms = ProductTerms { name, price, stock, status: ProductStatus::Selling, payment_required: false };
    let context: ActionContext = action();
    db::products::create(&app.environment.database, &terms, &context).await.expect("created").id
}

async fn campaign(app: &TestApp, name: &str, change: impl FnOnce(&mut CampaignTerms)) -> CouponId {
    let mut terms = CampaignTerms { name: name.into(), ..open_terms() };
    change(&mut terms);
    app.environment.campaign_of(terms).await.id
}

/// Fills the shop. A worker runs.
pub async fn fill(app: &TestApp) -> Shop {
    let open = campaign(app, "Noon coffee: 5,000 won off", |terms| {
        terms.total_quantity = 10_000;
        terms.discount = Discount { kind: DiscountType::Fixed, value: 5_000, max_amount: None };
        terms.minimum_order_amount = 20_000;
        terms.opens_at = clock::now() - TimeDelta::minutes(12);
    });
    let open = open.await;
    let paused = campaign(app, "App users: 10 % off", |terms| {
        terms.discount = Discount { kind: DiscountType::Percent, value: 10, max_amount: Some(3_000) };
        terms.total_quantity = 2_000;
    });
    let paused = paused.await;
    campaign(app, "첫 구매 감사 쿠폰", |terms| terms.total_quantity = 3).await;
    campaign(app, "Evening flash sale", |terms| {
        terms.total_quantity = 50_000;
        (terms.opens_at, terms.closes_at) =
            (clock::now() + TimeDelta::minutes(95), clock::now() + TimeDelta::hours(26));
    })
    .await;
    for user in 1..=40 {
        app.claim(open, user).await;
        app.claim(paused, user).await;
    }
    for user in 1..=6 {
        app.claim(CouponId::try_from(open.get() + 2).expect("an id"), user).await;
    }
    app.administer(&format!("/admin/coupons/{paused}/pause?reason=price%20tag%20was%20wrong"), json!({})).await;
    let order = orders(app).await;
    for key in 1..=3 {
        insert(app, letter("data-platform", &format!("0-{key}-0"))).await;
    }
    let reason = "connection refused: the broker at kafka-2:9092 gave no response within 20 s";
    insert(app, NewDeadLetter { reason: reason.into(), ..letter("kafka", "0-99-0") }).await;
    app.administer("/admin/keys", json!({ "name": "shop-front-1", "scopes": ["claims", "orders", "read"] })).await;
    app.administer("/admin/keys", json!({ "name": "on-duty", "scopes": ["admin:read"] })).await;
    let (product, id) = order;
    Shop { open, paused, product, order: id }
}

async fn orders(app: &TestApp) -> (ProductId, String) {
    let mut placed = (None, String::new());
    for (rank, name) in
        ["Guji natural 200 g", "Drip bag set", "V60 server", "Hand grinder", "Paper filters 100"].iter().enumerate()
    {
        let product = product(app, name, 12_000 + 1_500 * i64::try_from(rank).expect("small"), 60).await;
        for user in 0..5 - rank as u64 {
            let user = 100 * (rank as u64 + 1) + user;
            app.environment.points(user, 500_000).await;
            let order = json!({ "userId": user, "items": [{ "productId": product, "quantity": 2 }], "pay": true });
            let answer = app.post("/orders", order).await;
            answer.body["orderId"].as_str().expect("an order").clone_into(&mut placed.1);
        }
        placed.0 = placed.0.or(Some(product));
    }
    (placed.0.expect("a product"), placed.1)
}
