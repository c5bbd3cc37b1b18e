use std::time::Duration;

use dibs_common::{
    clock,
    db::{self, idempotency::RETENTION},
    domain::campaign::CampaignTerms,
    identifiers::{CouponId, new_uuid},
    testing::{eventually, open_terms},
};
use futures::future::join_all;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;

use crate::app::{ADMIN_TOKEN, Answer, TestApp, claim_body};

const REPLAYED: &str = "idempotent-replayed";

fn with_key(request: RequestBuilder, key: &str) -> RequestBuilder {
    request.header("idempotency-key", key)
}

/// Claims a coupon whose users may have several, so that a second claim would not be refused.
async fn claim(app: &TestApp, coupon: CouponId, key: &str) -> Answer {
    Answer::of(with_key(app.request(Method::POST, "/coupons/issue"), key).json(&claim_body(coupon, 7))).await
}

async fn several_for_each(app: &TestApp) -> CouponId {
    let terms = CampaignTerms { per_user_limit: 100, total_quantity: 100, ..open_terms() };
    app.environment.campaign_of(terms).await.id
}

async fn create(app: &TestApp, body: &Value, key: &str) -> Answer {
    let request = with_key(app.request(Method::POST, "/admin/products"), key);
    Answer::of(request.bearer_auth(ADMIN_TOKEN).json(body)).await
}

fn coffee() -> Value {
    json!({ "name": "coffee", "price": 5_000, "stock": 3 })
}

async fn rows(app: &TestApp, table: &str) -> i64 {
    app.environment.count(&format!("SELECT COUNT(*) FROM {table}")).await
}

fn assert_replayed(again: &Answer, first: &Answer) {
    assert_eq!(again.header(REPLAYED), Some("true"));
    assert_eq!(first.header(REPLAYED), None);
    assert_eq!(again.status, first.status);
    for name in ["content-type", "location"] {
        assert_eq!(again.header(name), first.header(name));
    }
    let without_id = |answer: &Answer| {
        let mut body = answer.body.clone();
        body.as_object_mut().expect("an object").remove("requestId");
        body
    };
    assert_eq!(without_id(again), without_id(first));
}

#[tokio::test]
async fn i12_the_same_key_gets_the_same_answer() {
    let app = TestApp::new().await;
    let coupon = several_for_each(&app).await;
    let first = claim(&app, coupon, "key").await;
    assert_eq!(first.status, 202);
    assert_replayed(&claim(&app, coupon, "key").await, &first);
    app.work().await;
    assert_replayed(&claim(&app, coupon, "key").await, &first);
    assert_eq!(rows(&app, "user_coupons").await, 1);

    let first = create(&app, &coffee(), "key").await;
    assert_eq!(first.status, 201);
    assert_replayed(&create(&app, &coffee(), "key").await, &first);
    assert_eq!(rows(&app, "products").await, 1);

    let other = create(&app, &coffee(), "other key").await;
    assert_eq!((other.status.as_u16(), other.body["errors"][0]["field"].as_str()), (400, Some("Idempotency-Key")));
    assert_eq!(create(&app, &coffee(), "other-key").await.status, 201);
    assert_eq!(rows(&app, "products").await, 2);
    app.end().await;
}

#[tokio::test]
async fn the_same_key_with_another_body_is_refused() {
    let app = TestApp::new().await;
    let first = create(&app, &coffee(), "key").await;
    let tea = json!({ "name": "tea", "price": 5_000, "stock": 3 });
    let refused = create(&app, &tea, "key").await;
    assert_eq!((refused.status.as_u16(), refused.code()), (422, "IDEMPOTENCY_KEY_REUSED"));
    assert_eq!(refused.header(REPLAYED), None);
    assert_replayed(&create(&app, &coffee(), "key").await, &first);
    assert_eq!(rows(&app, "products").await, 1);
    app.end().await;
}

/// All answers are the same, or report the first that is in progress.
fn assert_one_answer(answers: &[Answer], status: u16) {
    let of_first: Vec<&Answer> = answers.iter().filter(|answer| answer.status == status).collect();
    assert_eq!(of_first.iter().filter(|answer| answer.header(REPLAYED).is_none()).count(), 1);
    assert!(of_first.iter().all(|answer| answer.body == of_first[0].body));
    for refused in answers.iter().filter(|answer| answer.status != status) {
        assert_eq!((refused.status.as_u16(), refused.code()), (409, "IDEMPOTENCY_IN_PROGRESS"));
        assert_eq!(refused.header("retry-after"), Some("1"));
    }
}

async fn fifty_creations(app: &TestApp) -> Vec<Answer> {
    let body = coffee();
    join_all((0..50).map(|_| create(app, &body, "key"))).await
}

#[tokio::test]
async fn fifty_at_once_with_one_key_have_one_effect() {
    let app = TestApp::new().await;
    let coupon = several_for_each(&app).await;
    let answers = join_all((0..50).map(|_| claim(&app, coupon, "key"))).await;
    assert_one_answer(&answers, 202);
    app.work().await;
    assert_eq!(rows(&app, "user_coupons").await, 1);

    let answers = fifty_creations(&app).await;
    assert_one_answer(&answers, 201);
    assert_eq!(rows(&app, "products").await, 1);
    app.end().await;
}

#[tokio::test]
async fn fifty_at_once_with_one_expired_or_overdue_key_have_one_effect() {
    let app = TestApp::new().await;
    create(&app, &coffee(), "key").await;
    app.environment.execute("UPDATE idempotency_keys SET created_at = created_at - INTERVAL 25 HOUR").await;
    let answers = fifty_creations(&app).await;
    assert_one_answer(&answers, 201);
    assert_eq!(rows(&app, "products").await, 2);
    // The process that created it died after that, and before the answer was stored.
    overdue(&app).await;
    let answers = fifty_creations(&app).await;
    assert_one_answer(&answers, 201);
    assert_eq!(rows(&app, "products").await, 2);
    app.end().await;
}

/// As if every process had died before it stored the answer, more than a minute ago.
async fn overdue(app: &TestApp) {
    app.environment
        .execute(
            "UPDATE idempotency_keys SET status = NULL, content_type = NULL, location = NULL, body = NULL, \
             in_progress_until = created_at - INTERVAL 1 SECOND",
        )
        .await;
}

#[tokio::test]
async fn what_a_dead_process_had_begun_is_run_with_its_operation_id() {
    let app = TestApp::new().await;
    let coupon = several_for_each(&app).await;
    let operation = new_uuid();
    let body = claim_body(coupon, 7).to_string();
    let began = |until: &str| {
        format!(
            "INSERT INTO idempotency_keys (key_hash, body_hash, operation_id, in_progress_until, created_at) \
             VALUES (UNHEX(SHA2('POST\\n/coupons/issue\\nkey', 256)), UNHEX(SHA2('{body}', 256)), x'{}', {until}, \
             UTC_TIMESTAMP(3))",
            operation.simple()
        )
    };
    app.environment.execute(&began("UTC_TIMESTAMP(3) + INTERVAL 1 MINUTE")).await;
    let refused = claim(&app, coupon, "key").await;
    assert_eq!((refused.status.as_u16(), refused.code()), (409, "IDEMPOTENCY_IN_PROGRESS"));
    assert_eq!(refused.header("retry-after"), Some("1"));

    app.environment
        .execute("UPDATE idempotency_keys SET in_progress_until = UTC_TIMESTAMP(3) - INTERVAL 1 SECOND")
        .await;
    let first = claim(&app, coupon, "key").await;
    assert_eq!((first.status.as_u16(), &first.body["claimId"]), (202, &json!(operation)));
    assert_replayed(&claim(&app, coupon, "key").await, &first);
    app.work().await;
    app.end().await;
}

#[tokio::test]
async fn a_process_that_died_before_it_stored_the_answer_leaves_one_effect() {
    let app = TestApp::new().await;
    let coupon = several_for_each(&app).await;
    let first = claim(&app, coupon, "key").await;
    overdue(&app).await;
    let again = claim(&app, coupon, "key").await;
    assert_eq!((again.status.as_u16(), again.header(REPLAYED)), (202, None));
    assert_eq!(again.body, first.body);
    app.work().await;
    overdue(&app).await;
    assert_eq!(claim(&app, coupon, "key").await.body["claimId"], first.body["claimId"]);
    app.work().await;
    assert_eq!(rows(&app, "user_coupons").await, 1);
    app.end().await;
}

#[tokio::test]
async fn a_refusal_that_stands_is_stored_and_replayed_with_an_id_of_its_own() {
    let app = TestApp::new().await;
    let unknown = 1.try_into().expect("an id");
    let first = claim(&app, unknown, "unknown").await;
    assert_eq!((first.status.as_u16(), first.code()), (404, "COUPON_NOT_FOUND"));
    assert_eq!(app.environment.campaign(1).await.id, unknown);
    let again = claim(&app, unknown, "unknown").await;
    assert_replayed(&again, &first);
    assert_ne!(again.body["requestId"], first.body["requestId"], "and the edge has it, too");

    let taken = app.environment.campaign(1).await.id;
    assert_eq!(app.claim(taken, 1).await.status, 202);
    let first = claim(&app, taken, "exhausted").await;
    assert_eq!((first.status.as_u16(), first.code()), (422, "COUPON_EXHAUSTED"));
    assert_replayed(&claim(&app, taken, "exhausted").await, &first);
    app.work().await;
    app.end().await;
}

#[tokio::test]
async fn a_refusal_that_asks_to_come_again_is_not_stored() {
    let app = TestApp::new().await;
    let (opens_at, closes_at) =
        (clock::now() + chrono::TimeDelta::hours(1), clock::now() + chrono::TimeDelta::hours(2));
    let coupon = app.environment.campaign_of(CampaignTerms { opens_at, closes_at, ..open_terms() }).await.id;
    for _ in 0..2 {
        let early = claim(&app, coupon, "key").await;
        assert_eq!((early.code(), early.header(REPLAYED)), ("CAMPAIGN_NOT_OPEN", None));
    }
    app.end().await;
}

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
async fn what_a_dependency_refused_is_run_again() {
    let (app, database, redis) = TestApp::behind_proxies().await;
    let coupon = several_for_each(&app).await;
    assert_eq!(app.claim(coupon, 1).await.status, 202, "the batcher is open");

    redis.shut();
    let refused = claim(&app, coupon, "redis").await;
    assert_eq!((refused.status.as_u16(), refused.code()), (503, "DEPENDENCY_UNAVAILABLE"));
    redis.open();
    eventually("the claim is taken", Duration::from_secs(5), async || claim(&app, coupon, "redis").await.status == 202)
        .await;

    database.shut();
    let refused = claim(&app, coupon, "mysql").await;
    assert_eq!((refused.status.as_u16(), &refused.body["dependency"]), (503, &json!("mysql")));
    database.open();
    eventually("the claim is taken", Duration::from_secs(5), async || claim(&app, coupon, "mysql").await.status == 202)
        .await;
    app.work().await;
    assert_eq!(rows(&app, "user_coupons").await, 3, "one by each key, and one without");
    app.end().await;
}

#[tokio::test]
async fn an_answer_that_cannot_be_stored_still_goes_out() {
    let (app, database, _redis) = TestApp::behind_proxies().await;
    let coupon = several_for_each(&app).await;
    let batcher = app.app.claims.batcher(coupon).await.expect("a batcher");
    let request = with_key(app.request(Method::POST, "/coupons/issue"), "key").header("prefer", "wait=10");
    let waiting = Answer::of(request.json(&claim_body(coupon, 7)));
    let issuing = async {
        eventually("the claim is accepted", Duration::from_secs(5), async || {
            batcher.claimed(&app.environment.redis).await.expect("redis") == Some(1)
        })
        .await;
        database.shut();
        app.work().await;
    };
    let (issued, ()) = tokio::join!(waiting, issuing);
    assert_eq!(issued.status, 200);
    database.open();
    eventually("the key is in progress", Duration::from_secs(5), async || {
        claim(&app, coupon, "key").await.status == 409
    })
    .await;
    overdue(&app).await;
    assert_eq!(claim(&app, coupon, "key").await.body["claimId"], issued.body["claimId"]);
    app.work().await;
    app.end().await;
}

#[tokio::test]
async fn a_client_that_goes_away_leaves_a_stored_answer() {
    let app = TestApp::new().await;
    let coupon = several_for_each(&app).await;
    let batcher = app.app.claims.batcher(coupon).await.expect("a batcher");
    let body = claim_body(coupon, 7).to_string();
    let length = body.len();
    let request = format!(
        "POST /coupons/issue HTTP/1.1\r\nhost: dibs\r\ncontent-type: application/json\r\nprefer: wait=10\r\n\
         idempotency-key: key\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    let mut connection = tokio::net::TcpStream::connect(app.address).await.expect("connected");
    connection.write_all(request.as_bytes()).await.expect("sent");
    eventually("the claim is accepted", Duration::from_secs(5), async || {
        batcher.claimed(&app.environment.redis).await.expect("redis") == Some(1)
    })
    .await;
    drop(connection);
    // It counts for as long as it goes on, with or without its client.
    let in_progress = || app.app.in_progress.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!(in_progress(), 1);
    app.work().await;
    eventually("its answer is stored", Duration::from_secs(5), async || {
        app.environment.count("SELECT COUNT(*) FROM idempotency_keys WHERE status = 200").await == 1
    })
    .await;
    eventually("it is no longer in progress", Duration::from_secs(5), async || in_progress() == 0).await;
    let again = claim(&app, coupon, "key").await;
    assert_eq!((again.status.as_u16(), &again.body["status"]), (200, &json!("ISSUED")));
    app.end().await;
}

#[tokio::test]
async fn a_key_is_1_to_255_visible_characters_and_given_once() {
    let app = TestApp::new().await;
    let coupon = several_for_each(&app).await;
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
    let app = TestApp::new().await;
    let coupon = several_for_each(&app).await;
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
    let app = TestApp::new().await;
    let coupon = several_for_each(&app).await;
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
