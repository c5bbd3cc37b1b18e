use futures::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};

use crate::app::{ADMIN_TOKEN, Answer, TestApp};

/// Makes a product and answers its id.
async fn product(app: &TestApp, name: &str, stock: i64, status: &str) -> u64 {
    let body = json!({ "name": name, "price": 5_000, "stock": stock, "status": status });
    let made = app.administer("/admin/products", body).await;
    assert_eq!(made.status, 201);
    made.body["productId"].as_u64().expect("an id")
}

async fn names(app: &TestApp, query: &str) -> (Vec<String>, Value) {
    let page = app.get(&format!("/products?{query}")).await;
    assert_eq!(page.status, 200);
    let items = page.body["items"].as_array().expect("items");
    let names = items.iter().filter_map(|item| item["name"].as_str()).map(ToOwned::to_owned).collect();
    (names, page.body["nextCursor"].clone())
}

/// Stock and the columns that explain it, of the only product.
async fn stock_and_sum(app: &TestApp) -> (i64, i64) {
    let stock = app.environment.count("SELECT stock FROM products").await;
    (stock, app.environment.count("SELECT initial_stock + restocked - sold + restored FROM products").await)
}

/// `000` section 2: id, name, price and stock of every product.
#[tokio::test]
async fn seed_000_2_products_are_listed_with_id_name_price_and_stock() {
    let app = TestApp::new().await;
    let id = product(&app, "커피 '진한'", 3, "SELLING").await;
    let page = app.get("/products").await;
    let item = json!({ "productId": id, "name": "커피 '진한'", "price": 5_000, "stock": 3, "status": "SELLING", "paymentRequired": false });
    assert_eq!(page.body, json!({ "items": [item], "nextCursor": null }));
    app.end().await;
}

/// `002` section 3-1: the look-up of a product.
#[tokio::test]
async fn seed_002_3_1_a_product_is_made_and_shown_and_changed() {
    let app = TestApp::new().await;
    let body = json!({ "name": " coffee ", "price": 5_000, "stock": 3 });
    let made = app.administer("/admin/products", body).await;
    assert_eq!(made.status, 201);
    let path = made.header("location").expect("where").to_owned();
    assert_eq!(app.get(&path).await.body, made.body);
    assert_eq!((&made.body["name"], &made.body["status"]), (&json!("coffee"), &json!("SELLING")));

    let change = json!({ "name": "tea", "price": 0, "stockChange": -3, "status": "STOPPED" });
    let changed = app.patch(&format!("/admin{path}"), change).await;
    assert_eq!(changed.status, 200);
    let id = made.body["productId"].clone();
    let expected = json!({ "productId": id, "name": "tea", "price": 0, "stock": 0, "status": "STOPPED", "paymentRequired": false });
    assert_eq!(changed.body, expected);
    assert_eq!(app.get(&path).await.body, expected);
    assert_eq!(stock_and_sum(&app).await, (0, 0));
    let events = "SELECT COUNT(*) FROM outbox_events WHERE aggregate_type = 'PRODUCT'";
    assert_eq!(
        app.environment.count(&format!("{events} AND type = 'product.created' AND payload LIKE '%coffee%'")).await,
        1
    );
    assert_eq!(
        app.environment.count(&format!("{events} AND type = 'product.changed' AND payload LIKE '%tea%'")).await,
        1
    );
    app.end().await;
}

/// An API with one product, and the path of its changes.
async fn with_coffee(stock: i64) -> (TestApp, String) {
    let app = TestApp::new().await;
    let id = product(&app, "coffee", stock, "SELLING").await;
    (app, format!("/admin/products/{id}"))
}

/// `003` section 2: products whose status is SELLING.
#[tokio::test]
async fn seed_003_2_only_selling_products_are_listed() {
    let app = TestApp::new().await;
    product(&app, "one", 1, "SELLING").await;
    product(&app, "two", 0, "STOPPED").await;
    product(&app, "three", 0, "SELLING").await;
    assert_eq!(names(&app, "").await.0, ["one", "three"]);
    assert_eq!(names(&app, "status=SELLING").await.0, ["one", "three"]);
    assert_eq!(names(&app, "status=STOPPED").await.0, ["two"]);
    assert_eq!(names(&app, "status=ALL").await.0, ["one", "two", "three"]);
    app.end().await;
}

/// `004`, the product's look-up.
#[tokio::test]
async fn seed_004_an_unknown_product_is_404() {
    let app = TestApp::new().await;
    let unknown = app.get("/products/7").await;
    assert_eq!((unknown.status.as_u16(), unknown.code()), (404, "PRODUCT_NOT_FOUND"));
    let unknown = app.patch("/admin/products/7", json!({ "price": 1 })).await;
    assert_eq!((unknown.status.as_u16(), unknown.code()), (404, "PRODUCT_NOT_FOUND"));
    app.end().await;
}

#[tokio::test]
async fn products_are_listed_page_by_page() {
    let app = TestApp::new().await;
    for (number, status) in ["SELLING", "STOPPED", "SELLING", "SELLING"].into_iter().enumerate() {
        product(&app, &number.to_string(), 1, status).await;
    }
    let (first, cursor) = names(&app, "limit=2").await;
    let (second, end) = names(&app, &format!("limit=2&cursor={cursor}")).await;
    assert_eq!([first, second], [vec!["0", "2"], vec!["3"]]);
    assert_eq!(end, Value::Null);
    assert_eq!(names(&app, "limit=4&status=ALL").await.1, Value::Null, "a full last page has no next one");
    app.end().await;
}

#[tokio::test]
async fn twenty_changes_of_a_product_at_once_add_up() {
    let (app, path) = with_coffee(0).await;
    let changes = join_all((0..20).map(|_| app.patch(&path, json!({ "stockChange": 1 })))).await;
    let mut stocks: Vec<i64> = changes.iter().filter_map(|answer| answer.body["stock"].as_i64()).collect();
    stocks.sort_unstable();
    assert_eq!(stocks, (1..=20).collect::<Vec<i64>>(), "each saw the one before");
    assert_eq!(stock_and_sum(&app).await, (20, 20));
    let events = "SELECT COUNT(*) FROM outbox_events WHERE type = 'product.changed'";
    assert_eq!(app.environment.count(events).await, 20);
    app.end().await;
}

#[tokio::test]
async fn stock_never_goes_below_nothing() {
    let (app, path) = with_coffee(5).await;
    let changes = join_all((0..10).map(|_| app.patch(&path, json!({ "stockChange": -1, "price": 1 })))).await;
    let refused: Vec<&Answer> = changes.iter().filter(|answer| answer.status != 200).collect();
    assert_eq!(refused.len(), 5);
    for answer in refused {
        assert_eq!((answer.status.as_u16(), answer.code()), (422, "STOCK_INSUFFICIENT"));
    }
    assert_eq!(stock_and_sum(&app).await, (0, 0));
    let largest = app.patch(&path, json!({ "stockChange": 9_007_199_254_740_991_i64 })).await;
    assert_eq!(largest.status, 200);
    let too_many = app.patch(&path, json!({ "stockChange": 1 })).await;
    assert_eq!((too_many.status.as_u16(), too_many.code()), (400, "VALIDATION_FAILED"));
    assert_eq!(too_many.body["errors"][0]["field"], "stockChange");
    app.end().await;
}

#[tokio::test]
async fn what_is_wrong_with_a_product_is_named() {
    let (app, path) = with_coffee(5).await;
    let created = async |body: Value| app.administer("/admin/products", body).await;
    let changed = async |body: Value| app.patch(&path, body).await;
    for (answer, field) in [
        (created(json!({ "name": "", "price": 1, "stock": 1 })).await, "name"),
        (created(json!({ "name": "x".repeat(201), "price": 1, "stock": 1 })).await, "name"),
        (created(json!({ "name": "x", "price": 1_000_000_000_001_i64, "stock": 1 })).await, "price"),
        (created(json!({ "name": "x", "price": 1.5, "stock": 1 })).await, "price"),
        (created(json!({ "name": "x", "price": 1, "stock": -1 })).await, "stock"),
        (created(json!({ "name": "x", "price": 1, "stock": 1, "status": "ALL" })).await, "status"),
        (created(json!({ "name": "x", "price": 1 })).await, "stock"),
        (changed(json!({})).await, "."),
        (changed(json!({ "stock": 1 })).await, "stock"),
        (changed(json!({ "name": " " })).await, "name"),
        (changed(json!({ "stockChange": i64::MAX })).await, "stockChange"),
        (changed(json!({ "price": -1 })).await, "price"),
    ] {
        assert_eq!((answer.status.as_u16(), answer.code()), (400, "VALIDATION_FAILED"), "{field}");
        assert_eq!(answer.body["errors"][0]["field"], field);
    }
    for path in ["/products/0", "/products/x", "/products?status=NEW", "/products?limit=101", "/products?cursor=x"] {
        let answer = app.get(path).await;
        assert_eq!((answer.status.as_u16(), answer.code()), (400, "VALIDATION_FAILED"), "{path}");
    }
    assert_eq!(app.environment.count("SELECT COUNT(*) FROM products").await, 1);
    app.end().await;
}

#[tokio::test]
async fn products_are_the_administrators_to_change() {
    let app = TestApp::new().await;
    let id = product(&app, "coffee", 5, "SELLING").await;
    for (method, path) in [
        (reqwest::Method::POST, "/admin/products".to_owned()),
        (reqwest::Method::PATCH, format!("/admin/products/{id}")),
    ] {
        let request = app.request(method, &path).bearer_auth(&ADMIN_TOKEN[1..]);
        let answer = Answer::of(request.json(&json!({ "price": 1 }))).await;
        assert_eq!((answer.status.as_u16(), answer.code()), (401, "UNAUTHENTICATED"));
    }
    app.end().await;
}

#[tokio::test]
async fn changes_of_products_are_kept_with_their_reason() {
    let app = TestApp::new().await;
    let created = app.administer("/admin/products", json!({ "name": "Mug", "price": 9_000, "stock": 1 })).await;
    let product = &created.body["productId"];
    let path = format!("/admin/products/{product}?reason=restock");
    assert_eq!(app.patch(&path, json!({ "stockChange": 4 })).await.body["stock"], 5);
    assert_eq!(app.patch(&path, json!({ "stockChange": -6 })).await.code(), "STOCK_INSUFFICIENT");
    let actions = app.request(Method::GET, &format!("/admin/actions?targetId={product}")).bearer_auth(ADMIN_TOKEN);
    let actions = Answer::of(actions).await.body["items"].clone();
    assert_eq!(actions.as_array().map(Vec::len), Some(2), "{actions}");
    assert_eq!((&actions[0]["action"], &actions[0]["reason"]), (&json!("product.change"), &json!("restock")));
    assert_eq!((&actions[0]["before"], &actions[0]["after"]), (&json!({ "stock": 1 }), &json!({ "stock": 5 })));
    assert_eq!((&actions[1]["action"], &actions[1]["after"]["name"]), (&json!("product.create"), &json!("Mug")));
    app.end().await;
}
