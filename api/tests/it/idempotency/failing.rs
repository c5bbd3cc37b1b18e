//! Keys of attempts that died, met a broken dependency, or lost their client.

use std::time::Duration;

use dibs_common::{identifiers::new_uuid, testing::eventually};
use reqwest::Method;
use serde_json::json;
use tokio::io::AsyncWriteExt as _;

use super::{
    REPLAYED, assert_one_answer, assert_replayed, claim, coffee, create, fifty_creations, rows, several_for_each,
    with_coupon, with_key,
};
use crate::app::{Answer, TestApp, claim_body};

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
    let (app, coupon) = with_coupon().await;
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
    let (app, coupon) = with_coupon().await;
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
    let (app, coupon) = with_coupon().await;
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
