//! Limits on claims, of a user and of an address, over all processes.

use std::time::Duration;

use dibs_common::testing::{TestEnvironment, eventually};
use reqwest::Method;
use serde_json::json;

use crate::{
    access::{SigningKey, guarded_with},
    app::{Answer, TestApp, claim_body},
};

const POLICY: &str = "ratelimit-policy";
const LIMIT: &str = "ratelimit";

async fn limited(per_user: u32, per_address: u32, hops: u32) -> TestApp {
    let environment = TestEnvironment::new().await;
    let shared = environment.settings.clone();
    TestApp::with(environment, shared, |settings| {
        (settings.claims_per_user, settings.claims_per_address) = (per_user, per_address);
        settings.trusted_proxy_hops = hops;
    })
    .await
}

fn assert_limited(answer: &Answer, limit: u32) {
    assert_eq!((answer.status.as_u16(), answer.code()), (429, "RATE_LIMITED"), "{answer:?}");
    assert_eq!(answer.body["limit"], limit);
    let wait: u32 = answer.header("retry-after").expect("when").parse().expect("seconds");
    assert!((1..=60).contains(&wait), "{wait}");
}

#[tokio::test]
async fn a_user_claims_so_often_in_a_minute_on_all_processes_together() {
    let app = limited(3, 0, 0).await;
    let coupon = app.environment.campaign(9).await.id;
    let second = app.second().await;
    let first = app.claim(coupon, 1).await;
    assert_eq!(first.status, 202);
    assert_eq!(first.header(POLICY), Some("\"user\";q=3;w=60"));
    assert_eq!(first.header(LIMIT), Some("\"user\";r=2;t=20"));
    let again = second.claim(coupon, 1).await;
    assert_eq!(again.code(), "COUPON_ALREADY_ISSUED");
    assert!(again.header(LIMIT).is_some_and(|limit| limit.starts_with("\"user\";r=1;t=")), "{again:?}");
    assert_eq!(app.claim(coupon, 1).await.code(), "COUPON_ALREADY_ISSUED");
    for refused in [app.claim(coupon, 1).await, app.claim(coupon, 1).await, second.claim(coupon, 1).await] {
        assert_limited(&refused, 3);
        assert_eq!(refused.header(POLICY), Some("\"user\";q=3;w=60"));
        assert!(refused.header(LIMIT).is_some_and(|limit| limit.starts_with("\"user\";r=0;t=")), "{refused:?}");
    }
    assert_eq!(app.claim(coupon, 2).await.status, 202, "another user");
    assert_eq!(app.get(&format!("/coupons/{coupon}/claims/1")).await.header(LIMIT), None, "only claims are limited");
    let refused = "SELECT COALESCE(SUM(attempts), 0) FROM claim_attempts WHERE user_id = 1 AND code = 'RATE_LIMITED'";
    eventually("the timeline of the user has the refusals", Duration::from_secs(5), async || {
        app.environment.count(refused).await == 3
    })
    .await;
    second.end().await;
    app.work().await;
    app.end().await;
}

#[tokio::test]
async fn an_address_is_that_which_the_trusted_proxy_has_seen() {
    let app = limited(0, 2, 1).await;
    let coupon = app.environment.campaign(9).await.id;
    let claim = async |user: u64, forwarded: &str| {
        let request = app.request(Method::POST, "/coupons/issue").header("x-forwarded-for", forwarded);
        Answer::of(request.json(&claim_body(coupon, user))).await
    };
    for user in [1, 2] {
        // What the client itself claims stands first.
        let accepted = claim(user, &format!("198.51.100.{user}, 192.0.2.1")).await;
        assert_eq!((accepted.status.as_u16(), accepted.header(POLICY)), (202, Some("\"address\";q=2;w=60")));
    }
    assert_limited(&claim(3, "192.0.2.1").await, 2);
    assert_eq!(claim(3, "192.0.2.2").await.status, 202);
    app.work().await;
    app.end().await;
}

#[tokio::test]
async fn a_refused_claim_has_no_effect_of_any_kind() {
    let app = limited(1, 0, 0).await;
    let coupon = app.environment.campaign(9).await.id;
    let keyed = async |key: &str| {
        let request = app.request(Method::POST, "/coupons/issue").header("idempotency-key", key);
        Answer::of(request.json(&claim_body(coupon, 1))).await
    };
    assert_eq!(keyed("one").await.status, 202);
    assert_limited(&keyed("one").await, 1);
    assert_limited(&keyed("two").await, 1);
    assert_eq!(app.environment.count("SELECT COUNT(*) FROM idempotency_keys").await, 1);
    let invalid = app.post("/coupons/issue", json!({ "userId": 0, "couponId": coupon })).await;
    assert_eq!((invalid.code(), invalid.header(LIMIT)), ("VALIDATION_FAILED", None));
    app.work().await;
    app.end().await;
}

#[tokio::test]
async fn a_user_with_a_token_cannot_use_up_the_limit_of_another() {
    let key = SigningKey::ed();
    let key_set = json!({ "keys": [key.jwk("ed")] });
    let (app, file) = guarded_with(&key_set, |settings| settings.claims_per_user = 1).await;
    let coupon = app.environment.campaign(9).await.id;
    let claim = async |caller: u64, user: u64| {
        let request = app.request(Method::POST, "/coupons/issue").bearer_auth(key.of_user(caller, "ed"));
        Answer::of(request.json(&claim_body(coupon, user))).await
    };
    assert_eq!(claim(1, 2).await.code(), "FORBIDDEN");
    assert_limited(&claim(1, 2).await, 1);
    assert_eq!(claim(2, 2).await.status, 202);
    app.work().await;
    app.end().await;
    std::fs::remove_file(file).expect("removed");
}
