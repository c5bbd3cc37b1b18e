//! Who may call what.

mod keys;
mod matrix;
mod rotation;
mod tokens;

use dibs_api::{
    access::policy::{Listener, POLICIES, Place},
    routes,
};
use dibs_common::{domain::access::Scope, testing::serve_router};
use reqwest::Method;
use serde_json::json;

pub use self::{
    matrix::{api_key, guarded, guarded_with},
    tokens::SigningKey,
};
use crate::app::{ADMIN_TOKEN, Answer, TestApp, claim_body};

#[tokio::test]
async fn each_listener_serves_its_own_routes() {
    let app = TestApp::new().await;
    let shop = serve_router(routes::router(app.app.clone(), Listener::Shop)).await;
    let administration = serve_router(routes::router(app.app.clone(), Listener::Administration)).await;
    for policy in POLICIES {
        let path = policy.path.replace("{code}", "FORBIDDEN").replace("{*rest}", "index.html");
        let path = path.replace(['{', '}'], "");
        for (url, is_served) in
            [(&shop, policy.place != Place::Administration), (&administration, policy.place != Place::Shop)]
        {
            for method in [policy.method, "OPTIONS"] {
                let method = Method::from_bytes(method.as_bytes()).expect("a method");
                let answer = Answer::of(app.client.request(method, format!("{url}{path}"))).await;
                let is_unknown = answer.body["code"] == "ROUTE_NOT_FOUND";
                assert_eq!(is_unknown, !is_served, "{} {} at {url}: {answer:?}", policy.method, policy.path);
            }
        }
    }
    app.end().await;
}

#[tokio::test]
async fn idempotency_keys_of_a_user_are_the_users_own() {
    let rsa = SigningKey::rsa();
    let (app, file) = guarded(&json!({ "keys": [rsa.jwk("rsa")] })).await;
    let claims = api_key(&app, &[Scope::Claims]).await;
    let coupon = app.environment.campaign(10).await.id;
    let claim = async |credential: &str, user: u64| {
        let request = app.request(Method::POST, "/coupons/issue").bearer_auth(credential);
        Answer::of(request.header("idempotency-key", "one").json(&claim_body(coupon, user))).await
    };
    let (seven, eight) = (rsa.of_user(7, "rsa"), rsa.of_user(8, "rsa"));
    let first = claim(&seven, 7).await;
    assert_eq!(first.status, 202);
    assert_eq!(claim(&seven, 7).await.body, first.body, "a repeat");
    assert_eq!(claim(&eight, 7).await.code(), "FORBIDDEN", "the response of another user is not shown");
    let other = claim(&eight, 8).await;
    assert_eq!((other.status.as_u16(), &other.body["userId"]), (202, &json!(8)), "the key is free for another user");
    assert_eq!(claim(&claims, 9).await.status, 202, "and for servers");
    app.work().await;
    app.end().await;
    std::fs::remove_file(file).expect("removed");
}

#[tokio::test]
async fn a_user_cannot_leave_out_whom_a_call_is_about() {
    let rsa = SigningKey::rsa();
    let (app, file) = guarded(&json!({ "keys": [rsa.jwk("rsa")] })).await;
    let token = rsa.of_user(7, "rsa");
    let get = async |path: &str| Answer::of(app.request(Method::GET, path).bearer_auth(&token)).await;
    for path in ["/orders", "/points", "/points/history", "/orders?limit=5"] {
        assert_eq!(get(path).await.body["errors"][0]["field"], "userId", "{path}");
    }
    for path in ["/orders?userId=8", "/points?userId=07", "/points?userId=7&userId=8", "/users/%37/coupons"] {
        assert_eq!(get(path).await.code(), "FORBIDDEN", "{path}");
    }
    assert_eq!(get("/points?user%49d=7").await.status, 200);
    let twice = app.request(Method::GET, "/points?userId=7").bearer_auth(&token);
    assert_eq!(Answer::of(twice.bearer_auth(ADMIN_TOKEN)).await.code(), "UNAUTHENTICATED", "one credential");
    app.end().await;
    std::fs::remove_file(file).expect("removed");
}
