//! Which keys count, for whom, and for how long.

use dibs_common::{
    clock,
    db::{self, idempotency::RETENTION},
};
use reqwest::Method;
use serde_json::json;

use super::{REPLAYED, assert_replayed, claim, coffee, create, rows, with_coupon, with_key};
use crate::app::{ADMIN_TOKEN, Answer, TestApp, claim_body};

#[tokio::test]
async fn a_bad_request_leaves_its_key_unused() {
    let app = TestApp::new().await;
    let bad = json!({ "name": "", "price": 5_000, "stock": 3 });
    for _ in 0..2 {
        let refused = create(&app, &bad, "key").await;
        assert_eq!((refused.code(), refused.header(REPLAYED)), ("VALIDATION_FAILED", None));
    }
    assert_eq!(rows(&app, "idempotency_keys").await, 0);
    assert_eq!(create(&app, &coffee(), "key").await.status, 201, "the body can be corrected");
    let long = with_key(app.request(Method::POST, "/coupons/issue"), "key").header("content-type", "application/json");
    let refused = Answer::of(long.body(vec![b' '; 65 * 1024])).await;
    assert_eq!((refused.status.as_u16(), refused.code()), (413, "PAYLOAD_TOO_LARGE"));
    app.end().await;
}

#[tokio::test]
async fn an_administrators_answer_is_for_administrators() {
    let app = TestApp::new().await;
    assert_eq!(create(&app, &coffee(), "key").await.status, 201);
    for key in ["key", "new"] {
        let request = with_key(app.request(Method::POST, "/admin/products"), key);
        let refused = Answer::of(request.json(&coffee())).await;
        assert_eq!((refused.status.as_u16(), refused.code()), (401, "UNAUTHENTICATED"));
    }
    assert_eq!(rows(&app, "idempotency_keys").await, 1);
    app.end().await;
}

#[tokio::test]
async fn a_key_is_1_to_255_visible_characters_and_given_once() {
    let (app, coupon) = with_coupon().await;
    for key in ["", "a key", "\u{e9}", "a\tkey", "x".repeat(256).as_str()] {
        let refused = claim(&app, coupon, key).await;
        assert_eq!((refused.status.as_u16(), refused.code()), (400, "VALIDATION_FAILED"), "{key}");
        assert_eq!(refused.body["errors"][0]["field"], "Idempotency-Key");
    }
    let twice = with_key(with_key(app.request(Method::POST, "/coupons/issue"), "one"), "two");
    assert_eq!(Answer::of(twice.json(&claim_body(coupon, 7))).await.code(), "VALIDATION_FAILED");
    assert_eq!(claim(&app, coupon, &"~".repeat(255)).await.status, 202);
    app.work().await;
    app.end().await;
}

#[tokio::test]
async fn only_calls_that_change_something_have_keys() {
    let (app, coupon) = with_coupon().await;
    for path in [format!("/coupons/{coupon}"), "/products".into(), "/health/live".into()] {
        for _ in 0..2 {
            let answer = Answer::of(with_key(app.request(Method::GET, &path), "key")).await;
            assert_eq!((answer.status.as_u16(), answer.header(REPLAYED)), (200, None));
        }
    }
    let invalid = Answer::of(with_key(app.request(Method::GET, "/products"), &"x".repeat(300))).await;
    assert_eq!(invalid.status, 200);
    let nowhere = Answer::of(with_key(app.request(Method::POST, "/nothing"), "key")).await;
    assert_eq!(nowhere.code(), "ROUTE_NOT_FOUND");
    assert_eq!(rows(&app, "idempotency_keys").await, 0);
    app.end().await;
}

#[tokio::test]
async fn after_24_hours_a_key_is_new() {
    let (app, coupon) = with_coupon().await;
    let first = claim(&app, coupon, "key").await;
    app.environment.execute("UPDATE idempotency_keys SET created_at = created_at - INTERVAL '23:59' HOUR_MINUTE").await;
    assert_replayed(&claim(&app, coupon, "key").await, &first);
    app.environment.execute("UPDATE idempotency_keys SET created_at = created_at - INTERVAL 1 MINUTE").await;
    let again = claim(&app, coupon, "key").await;
    assert_eq!((again.status.as_u16(), again.header(REPLAYED)), (202, None));
    assert_ne!(again.body["claimId"], first.body["claimId"]);
    app.work().await;
    assert_eq!(rows(&app, "user_coupons").await, 2);
    app.end().await;
}

#[tokio::test]
async fn old_idempotency_keys_are_purged_and_young_ones_stay() {
    let app = TestApp::new().await;
    let many = "INSERT INTO idempotency_keys (key_hash, body_hash, operation_id, created_at) \
        WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n WHERE i < 50) \
        SELECT UNHEX(SHA2(CONCAT(a.i, ',', b.i), 256)), UNHEX(SHA2('', 256)), UNHEX(REPEAT('00', 16)), \
        UTC_TIMESTAMP(3) - INTERVAL 25 HOUR FROM n a JOIN n b";
    app.environment.execute(many).await;
    let first = create(&app, &coffee(), "key").await;
    let expired = clock::now() - RETENTION;
    assert_eq!(db::idempotency::purge(&app.environment.database.pool(), expired).await.expect("purged"), 2_500);
    assert_eq!(db::idempotency::purge(&app.environment.database.pool(), expired).await.expect("purged"), 0);
    assert_replayed(&create(&app, &coffee(), "key").await, &first);
    app.end().await;
}

async fn create_from(app: &TestApp, body: &'static str, key: &str) -> Answer {
    let request = with_key(app.request(Method::POST, "/admin/products"), key).bearer_auth(ADMIN_TOKEN);
    Answer::of(request.header("content-type", "application/json").body(body)).await
}

const COFFEE: &str = r#"{"name": "coffee", "price": 5000, "stock": 3}"#;

#[tokio::test]
async fn a_repeat_has_the_same_value_and_not_the_same_bytes() {
    let app = TestApp::new().await;
    let first = create_from(&app, COFFEE, "key").await;
    assert_eq!(first.status, 201);
    for same in [COFFEE, r#"{"stock":3,"price":5000,"name":"coff\u0065e"}"#] {
        assert_replayed(&create_from(&app, same, "key").await, &first);
    }
    for other in [r#"{"name":"coffee","price":5000,"stock":3.0}"#, r#"{"name":"coffee","price":5000}"#, "{", ""] {
        let refused = create_from(&app, other, "key").await;
        assert_eq!((refused.status.as_u16(), refused.code()), (422, "IDEMPOTENCY_KEY_REUSED"), "{other}");
    }
    assert_eq!(rows(&app, "products").await, 1);
    app.end().await;
}

#[tokio::test]
async fn a_quoted_key_is_the_bare_one() {
    let app = TestApp::new().await;
    for (first, again) in [("one", "\"one\""), ("\"two\"", "two"), ("\"three\"", "\"three\"")] {
        let created = create_from(&app, COFFEE, first).await;
        assert_eq!(created.status, 201);
        assert_replayed(&create_from(&app, COFFEE, again).await, &created);
    }
    for invalid in ["\"one", "\"a b\"", "\"\"", "\"one\";a=1"] {
        assert_eq!(create_from(&app, COFFEE, invalid).await.code(), "VALIDATION_FAILED", "{invalid}");
    }
    assert_eq!(rows(&app, "products").await, 3);
    app.end().await;
}

/// The version before compared bytes, and took a quoted key for another one.
#[tokio::test]
async fn keys_of_the_version_before_stay_valid() {
    let app = TestApp::new().await;
    let created = create_from(&app, COFFEE, "key").await;
    app.environment.execute("UPDATE idempotency_keys SET value_hash = NULL").await;
    assert_replayed(&create_from(&app, COFFEE, "key").await, &created);
    let quoted = "UPDATE idempotency_keys SET key_hash = UNHEX(SHA2('POST\n/admin/products\n\"key\"', 256))";
    app.environment.execute(quoted).await;
    assert_replayed(&create_from(&app, COFFEE, "\"key\"").await, &created);
    assert_eq!(rows(&app, "products").await, 1);
    app.environment.execute("UPDATE idempotency_keys SET created_at = created_at - INTERVAL 25 HOUR").await;
    assert_eq!(create_from(&app, COFFEE, "\"key\"").await.status, 201, "no longer promised");
    app.end().await;
}
