//! Lists that a back end of a shop needs: by ids, names, prices, statuses and times, and across users.

use dibs_common::{clock, domain::campaign::CampaignTerms, testing::open_terms};
use reqwest::Method;
use serde_json::{Value, json};

use crate::app::{ADMIN_TOKEN, Answer, RULES, TestApp};

/// The ids of a page.
async fn ids(app: &TestApp, id: &str, path: &str) -> Vec<Value> {
    let page = Answer::of(app.request(Method::GET, path).bearer_auth(ADMIN_TOKEN)).await;
    assert_eq!(page.status, 200, "{path}: {page:?}");
    page.body["items"].as_array().expect("items").iter().map(|item| item[id].clone()).collect()
}

async fn wrong_field(app: &TestApp, path: &str) -> (String, String) {
    let refused = Answer::of(app.request(Method::GET, path).bearer_auth(ADMIN_TOKEN)).await;
    assert_eq!((refused.status.as_u16(), refused.code()), (400, "VALIDATION_FAILED"), "{path}");
    let text = |name: &str| refused.body["errors"][0][name].as_str().expect("text").to_owned();
    (text("field"), text("message"))
}

#[tokio::test]
async fn products_are_found_by_ids_name_and_price() {
    let app = TestApp::new().await;
    let mut made = Vec::new();
    for (name, price, status) in
        [("green tea", 3_000, "SELLING"), ("black tea 100%", 5_000, "STOPPED"), ("coffee_1", 7_000, "SELLING")]
    {
        let body = json!({ "name": name, "price": price, "stock": 1, "status": status });
        made.push(app.administer("/admin/products", body).await.body["productId"].clone());
    }
    let [green, black, coffee] = &made[..] else { panic!("three products") };
    for (query, expected) in [
        (format!("ids={coffee},{black},9999"), vec![black, coffee]),
        (format!("ids={coffee},{black}&status=SELLING"), vec![coffee]),
        ("name=tea".into(), vec![green]),
        ("name=tea&status=ALL".into(), vec![green, black]),
        ("name=100%25&status=ALL".into(), vec![black]),
        ("name=_&status=ALL".into(), vec![coffee]),
        ("minPrice=3001&status=ALL".into(), vec![black, coffee]),
        ("minPrice=3000&maxPrice=5000&status=ALL".into(), vec![green, black]),
        ("maxPrice=2999".into(), vec![]),
    ] {
        let found = ids(&app, "productId", &format!("/products?{query}")).await;
        assert_eq!(found.iter().collect::<Vec<_>>(), expected, "{query}");
    }
    let wrong = wrong_field(&app, "/products?ids=1,x").await;
    assert_eq!(wrong, ("ids[1]".into(), "expected an integer from 1 to 9007199254740991, got \"x\"".into()));
    let many = wrong_field(&app, &format!("/products?ids={}", vec!["1"; 101].join(","))).await;
    assert_eq!(many, ("ids".into(), "expected a list of 1 to 100 items, got 101".into()));
    assert_eq!(wrong_field(&app, "/products?minPrice=-1").await.0, "minPrice");
    assert_eq!(wrong_field(&app, "/products?ids=").await.0, "ids[0]");
    app.end().await;
}

#[tokio::test]
async fn orders_are_found_by_ids_status_and_time_and_across_users() {
    let mut app = TestApp::new().await;
    app.start_worker(RULES);
    let product = app.environment.product(1_000, 10).await;
    let begin = clock::text(clock::now());
    let mut orders = Vec::new();
    for (user, quantity) in [(1, 1), (1, 11), (2, 1)] {
        let body = json!({ "userId": user, "items": [{ "productId": product, "quantity": quantity }] });
        let request = app.request(Method::POST, "/orders").header("prefer", "wait=10");
        let placed = Answer::of(request.json(&body)).await;
        if placed.status == 201 {
            orders.push(placed.body["orderId"].clone());
        } else {
            let sql = "SELECT LOWER(INSERT(INSERT(INSERT(INSERT(HEX(order_id),9,0,'-'),14,0,'-'),19,0,'-'),24,0,'-')) \
                       FROM orders WHERE status = 'REJECTED'";
            orders.push(json!(app.environment.texts(sql).await[0]));
        }
    }
    let [first, rejected, other] = &orders[..] else { panic!("three orders") };
    let name = |id: &Value| id.as_str().expect("text").to_owned();
    let named = format!("ids={},{},{}", name(rejected), name(other), name(first));
    for (path, expected) in [
        ("/orders?userId=1".to_owned(), vec![first]),
        ("/orders?userId=1&status=REJECTED".into(), vec![rejected]),
        ("/orders?userId=1&status=REJECTED,DEPOSIT_WAIT".into(), vec![rejected, first]),
        ("/orders?userId=1&status=PAY_DONE".into(), vec![]),
        (format!("/orders?userId=1&{named}"), vec![rejected, first]),
        (format!("/orders?userId=1&from={begin}"), vec![first]),
        (format!("/orders?userId=1&until={begin}"), vec![]),
        ("/admin/orders".into(), vec![other, first]),
        ("/admin/orders?userId=2".into(), vec![other]),
        ("/admin/orders?status=REJECTED".into(), vec![rejected]),
        (format!("/admin/orders?{named}&limit=2"), vec![other, rejected]),
        (format!("/admin/orders?from={begin}&status=DEPOSIT_WAIT"), vec![other, first]),
        (format!("/admin/orders?until={begin}"), vec![]),
    ] {
        assert_eq!(ids(&app, "orderId", &path).await.iter().collect::<Vec<_>>(), expected, "{path}");
    }
    let missing = app.get("/admin/orders").await;
    assert_eq!((missing.status.as_u16(), missing.code()), (401, "UNAUTHENTICATED"));
    assert_eq!(wrong_field(&app, "/orders?userId=1&status=PAID").await.0, "status[0]");
    assert_eq!(wrong_field(&app, "/admin/orders?ids=x").await.0, "ids[0]");
    app.end().await;
}

/// Where a user may have several coupons of a campaign, each claim is found by its id.
#[tokio::test]
async fn each_claim_of_a_user_is_readable_by_its_id() {
    let app = TestApp::new().await;
    let terms = CampaignTerms { per_user_limit: 3, ..open_terms() };
    let coupon = app.environment.campaign_of(terms).await.id;
    let mut claims = Vec::new();
    for _ in 0..3 {
        claims.push(app.claim(coupon, 1).await.body["claimId"].as_str().expect("an id").to_owned());
    }
    let show =
        async |user: u64, claim: &str| app.get(&format!("/coupons/{coupon}/claims/{user}?claimId={claim}")).await;
    for claim in &claims {
        let shown = show(1, claim).await;
        assert_eq!((&shown.body["claimId"], &shown.body["status"]), (&json!(claim), &json!("PENDING")));
    }
    // The second check finds less than Redis has accepted.
    app.environment.execute("UPDATE coupons SET total_quantity = 2").await;
    app.work().await;
    for (claim, status) in claims.iter().zip(["ISSUED", "ISSUED", "REJECTED"]) {
        let shown = show(1, claim).await;
        assert_eq!((&shown.body["claimId"], &shown.body["status"]), (&json!(claim), &json!(status)));
    }
    assert_eq!(show(1, &claims[2]).await.code(), "COUPON_EXHAUSTED");
    let latest = app.get(&format!("/coupons/{coupon}/claims/1")).await;
    assert_eq!(latest.body["claimId"], json!(claims[1]), "the latest that Redis holds");
    assert_eq!(show(2, &claims[0]).await.code(), "CLAIM_NOT_FOUND");
    assert_eq!(show(1, "x").await.code(), "VALIDATION_FAILED");
    app.end().await;
}
