//! Keys on calls that change what exists: PATCH and DELETE, and changes that are relative.

use std::time::Duration;

use dibs_common::testing::eventually;
use reqwest::Method;
use serde_json::{Value, json};

use crate::app::{ADMIN_TOKEN, Answer, TestApp};

const REPLAYED: &str = "idempotent-replayed";
/// The message that commits a transaction. With its first byte, as new sessions set READ COMMITTED.
const COMMIT: &str = "\u{3}COMMIT";

async fn change(app: &TestApp, path: &str, body: Value, key: &str) -> Answer {
    let request = app.request(Method::PATCH, path).bearer_auth(ADMIN_TOKEN).header("idempotency-key", key);
    Answer::of(request.json(&body)).await
}

/// A product with three units, and the path of its changes.
async fn mug(app: &TestApp) -> String {
    format!("/admin/products/{}", app.environment.product(9_000, 3).await)
}

async fn stock(app: &TestApp) -> i64 {
    app.environment.count("SELECT stock FROM products").await
}

#[tokio::test]
async fn i12_a_stock_change_with_one_key_is_added_once() {
    let app = TestApp::new().await;
    let path = mug(&app).await;
    let first = change(&app, &path, json!({ "stockChange": 5 }), "key").await;
    assert_eq!((first.status.as_u16(), &first.body["stock"]), (200, &json!(8)));
    let again = change(&app, &path, json!({ "stockChange": 5 }), "key").await;
    assert_eq!((again.status.as_u16(), again.header(REPLAYED)), (200, Some("true")));
    assert_eq!((again.body, stock(&app).await), (first.body, 8));
    let other = change(&app, &path, json!({ "stockChange": 6 }), "key").await;
    assert_eq!(other.code(), "IDEMPOTENCY_KEY_REUSED");
    assert_eq!(change(&app, &path, json!({ "stockChange": 5 }), "another").await.body["stock"], 13);
    assert_eq!(app.environment.count("SELECT restocked FROM products").await, 10);
    app.end().await;
}

/// The change is committed, and its caller gets a 503 with Retry-After.
#[tokio::test]
async fn i12_a_stock_change_whose_commit_got_no_answer_is_added_once() {
    let (app, database, _redis) = TestApp::behind_proxies().await;
    let path = mug(&app).await;
    database.lose_answer_to(COMMIT);
    let lost = change(&app, &path, json!({ "stockChange": 5, "price": 8_000 }), "key").await;
    assert_eq!((lost.status.as_u16(), lost.code()), (503, "DEPENDENCY_UNAVAILABLE"));
    assert_eq!(stock(&app).await, 8, "it was committed");
    // Another administrator changes the product before the repeat.
    let later = change(&app, &path, json!({ "stockChange": 1, "price": 7_000 }), "later").await;
    assert_eq!((later.status.as_u16(), &later.body["stock"]), (200, &json!(9)));
    let again = change(&app, &path, json!({ "stockChange": 5, "price": 8_000 }), "key").await;
    assert_eq!((again.status.as_u16(), again.header(REPLAYED)), (200, None));
    assert_eq!((&again.body["stock"], &again.body["price"]), (&json!(8), &json!(8_000)), "as it was after the change");
    assert_eq!(change(&app, &path, json!({ "stockChange": 5, "price": 8_000 }), "key").await.body, again.body);
    assert_eq!(stock(&app).await, 9);
    assert_eq!(app.environment.count("SELECT price FROM products").await, 7_000, "the later change stands");
    let events = "SELECT COUNT(*) FROM outbox_events WHERE type = 'product.changed'";
    assert_eq!(app.environment.count(events).await, 2);
    app.end().await;
}

/// As above for what a call creates: its table refuses the second.
#[tokio::test]
async fn i12_what_was_created_by_a_commit_without_an_answer_is_created_once() {
    let (app, database, _redis) = TestApp::behind_proxies().await;
    let create = async |path: &str, body: Value| {
        let request = app.request(Method::POST, path).bearer_auth(ADMIN_TOKEN).header("idempotency-key", "key");
        Answer::of(request.json(&body)).await
    };
    for (path, body, rows) in [
        ("/admin/products", json!({ "name": "mug", "price": 1, "stock": 1 }), "SELECT COUNT(*) FROM products"),
        ("/points", json!({ "userId": 7, "amount": 10_000 }), "SELECT SUM(balance) DIV 10000 FROM point_accounts"),
    ] {
        database.lose_answer_to(COMMIT);
        assert_eq!(create(path, body.clone()).await.status, 503, "{path}");
        eventually("the repeat succeeds", Duration::from_secs(5), async || {
            create(path, body.clone()).await.status.is_success()
        })
        .await;
        assert_eq!(app.environment.count(rows).await, 1, "{path}");
    }
    app.end().await;
}

#[tokio::test]
async fn i12_a_delete_with_one_key_gets_one_answer() {
    let app = TestApp::new().await;
    let letter = "INSERT INTO dead_letters (source, source_key, kind, payload, payload_bytes, redrivable, reason, attempts, \
        dead_lettered_at) VALUES ('data-platform', '1', 'order.paid', '{}', 2, TRUE, 'no', 1, UTC_TIMESTAMP(3))";
    app.environment.execute(letter).await;
    let id = app.environment.count("SELECT dead_letter_id FROM dead_letters").await;
    let drop = async || {
        let request = app.request(Method::DELETE, &format!("/admin/dead-letters/{id}")).bearer_auth(ADMIN_TOKEN);
        Answer::of(request.header("idempotency-key", "key")).await
    };
    let first = drop().await;
    assert_eq!((first.status.as_u16(), first.header(REPLAYED)), (204, None));
    // It is gone: only the key knows of the first answer.
    app.environment.execute("DELETE FROM dead_letters").await;
    let again = drop().await;
    assert_eq!((again.status.as_u16(), again.header(REPLAYED)), (204, Some("true")));
    app.end().await;
}

#[tokio::test]
async fn a_key_belongs_to_one_method() {
    let app = TestApp::new().await;
    let path = mug(&app).await;
    assert_eq!(change(&app, &path, json!({ "price": 1 }), "key").await.status, 200);
    let request = app.request(Method::POST, "/admin/products").bearer_auth(ADMIN_TOKEN);
    let body = json!({ "name": "tea", "price": 1, "stock": 1 });
    let created = Answer::of(request.header("idempotency-key", "key").json(&body)).await;
    assert_eq!((created.status.as_u16(), created.header(REPLAYED)), (201, None));
    let wrong =
        Answer::of(app.request(Method::DELETE, &path).bearer_auth(ADMIN_TOKEN).header("idempotency-key", "key"));
    assert_eq!(wrong.await.code(), "METHOD_NOT_ALLOWED");
    assert_eq!(app.environment.count("SELECT COUNT(*) FROM idempotency_keys").await, 2);
    app.end().await;
}

/// A stored dry run must not pass for the change.
#[tokio::test]
async fn i12_a_dry_run_and_the_change_need_keys_of_their_own() {
    let app = TestApp::new().await;
    let path = format!("/admin/coupons/{}", app.environment.campaign(5).await.id);
    let send = async |query: &str, key: &str| {
        let request = app.request(Method::PATCH, &format!("{path}{query}")).bearer_auth(ADMIN_TOKEN);
        let request = request.header("idempotency-key", key).header("if-match", "*");
        Answer::of(request.json(&json!({ "totalQuantity": 7 }))).await
    };
    assert_eq!(send("?dryRun=true", "dry").await.body["dryRun"], true);
    assert_eq!(send("", "dry").await.code(), "IDEMPOTENCY_KEY_REUSED");
    assert_eq!(send("", "real").await.body["dryRun"], false);
    assert_eq!(send("", "real").await.header(REPLAYED), Some("true"));
    assert_eq!(send("?dryRun=true", "dry").await.header(REPLAYED), Some("true"));
    assert_eq!(app.environment.count("SELECT total_quantity FROM coupons").await, 7);
    app.end().await;
}

/// Every call that changes something takes a key, and no other does, but for a list whose path is its key.
#[tokio::test]
async fn every_call_that_changes_something_takes_a_key() {
    let app = TestApp::new().await;
    let document = app.get("/openapi.json").await.body;
    let mut calls = 0;
    for (path, methods) in document["paths"].as_object().expect("paths") {
        for (method, call) in methods.as_object().expect("methods").iter().filter(|(_, call)| call.is_object()) {
            let named = |parameter: &Value| parameter["name"] == "Idempotency-Key";
            let takes_key = call["parameters"].as_array().is_some_and(|parameters| parameters.iter().any(named));
            let is_upload = method == "put" && path == "/admin/coupons/{couponId}/assignments/{key}";
            assert_eq!(takes_key, method != "get" && !is_upload, "{method} {path}");
            calls += usize::from(takes_key);
        }
    }
    assert!(calls >= 12, "{calls}");
    app.end().await;
}
