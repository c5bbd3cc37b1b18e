//! API keys: shown once, used, listed and revoked.

use std::time::Duration;

use dibs_common::{
    db::api_keys,
    domain::{access::Scope, api_key::NewApiKey},
    secret::ApiKeySecret,
    testing::{action, eventually},
};
use reqwest::Method;
use serde_json::{Value, json};

use super::matrix::{api_key, guarded};
use crate::app::{ADMIN_TOKEN, Answer, TestApp};

async fn admin(app: &TestApp, method: Method, path: &str) -> Answer {
    Answer::of(app.request(method, path).bearer_auth(ADMIN_TOKEN)).await
}

#[tokio::test]
async fn a_key_is_shown_once_and_its_secret_is_stored_nowhere() {
    let app = TestApp::new().await;
    let body = json!({ "name": "shop", "scopes": ["claims", "read"] });
    let create = || {
        let request = app.request(Method::POST, "/admin/keys?reason=launch").bearer_auth(ADMIN_TOKEN);
        Answer::of(request.header("idempotency-key", "one").json(&body))
    };
    let created = create().await;
    assert_eq!((created.status.as_u16(), created.header("cache-control")), (201, Some("no-store")));
    let secret = created.body["secret"].as_str().expect("a secret").to_owned();
    assert_eq!(create().await.code(), "API_KEY_NAME_TAKEN", "a repeat does not show it again");
    let listed = admin(&app, Method::GET, "/admin/keys").await.body;
    assert_eq!(listed["items"][0]["name"], "shop");
    let actions = admin(&app, Method::GET, "/admin/actions?action=api_key.create").await.body;
    assert_eq!(
        (&actions["items"][0]["reason"], &actions["items"][0]["after"]["name"]),
        (&json!("launch"), &json!("shop"))
    );
    assert!(!format!("{listed}{actions}").contains(&secret[5..]));
    let holding = format!("SELECT COUNT(*) FROM idempotency_keys WHERE INSTR(body, '{}') > 0", &secret[5..]);
    assert_eq!(app.environment.count(&holding).await, 0);
    app.end().await;
}

#[tokio::test]
async fn a_revoked_key_is_refused_by_every_process_within_seconds() {
    let (app, file) = guarded(&json!({ "keys": [super::SigningKey::ed().jwk("ed")] })).await;
    let database = &app.environment.database;
    let secret = ApiKeySecret::generate().expect("a key");
    let new = NewApiKey { name: "other-process".into(), scopes: vec![Scope::Read], expires_at: None };
    // As another process does it.
    let key = api_keys::create(database, &new, &secret, &action()).await.expect("created");
    let status = async || {
        let request = app.request(Method::GET, "/points?userId=7").bearer_auth(secret.expose());
        Answer::of(request).await.status.as_u16()
    };
    eventually("the key is known", Duration::from_secs(10), async || status().await == 200).await;
    api_keys::revoke(database, key.api_key_id, &action()).await.expect("revoked");
    eventually("the key is refused", Duration::from_secs(10), async || status().await == 401).await;
    app.end().await;
    std::fs::remove_file(file).expect("removed");
}

#[tokio::test]
async fn a_key_acts_for_any_user_and_under_its_name() {
    let (app, file) = guarded(&json!({ "keys": [super::SigningKey::ed().jwk("ed")] })).await;
    let body = json!({ "name": "back-office", "scopes": ["admin", "read"], "expiresAt": "2999-01-01T00:00:00Z" });
    let created = app.administer("/admin/keys", body).await.body;
    let secret = created["secret"].as_str().expect("a secret");
    let with_key = async |method: Method, path: &str, body: Value| {
        Answer::of(app.request(method, path).bearer_auth(secret).json(&body)).await
    };
    for user in [1, 2] {
        assert_eq!(with_key(Method::GET, &format!("/points?userId={user}"), json!({})).await.status, 200);
    }
    let points = json!({ "userId": 1, "amount": 5, "reason": "late" });
    assert_eq!(with_key(Method::POST, "/admin/points", points).await.status, 200);
    let actions = admin(&app, Method::GET, "/admin/actions?action=points.grant").await.body;
    assert_eq!(actions["items"][0]["actor"], "back-office");
    let path = format!("/admin/keys/{}", created["apiKeyId"]);
    for _ in 0..2 {
        let revoked = admin(&app, Method::DELETE, &path).await;
        assert!(revoked.status == 200 && revoked.body["revokedAt"].is_string(), "{revoked:?}");
    }
    assert_eq!(with_key(Method::GET, "/points?userId=1", json!({})).await.code(), "UNAUTHENTICATED", "at once here");
    assert_eq!(admin(&app, Method::DELETE, "/admin/keys/999").await.code(), "API_KEY_NOT_FOUND");
    app.end().await;
    std::fs::remove_file(file).expect("removed");
}

#[tokio::test]
async fn wrong_keys_are_refused_with_every_field_and_the_use_of_one_is_noted() {
    let app = TestApp::new().await;
    let wrong = json!({ "name": "ADMIN_TOKEN", "scopes": [], "expiresAt": "2000-01-01T00:00:00Z" });
    let refused = app.administer("/admin/keys", wrong).await;
    let fields = refused.body["errors"].as_array().expect("fields").iter().map(|error| error["field"].clone());
    assert_eq!(fields.collect::<Vec<_>>(), ["name", "scopes", "expiresAt"]);
    let unknown = app.administer("/admin/keys", json!({ "name": "a", "scopes": ["everything"] })).await;
    assert_eq!(unknown.code(), "VALIDATION_FAILED");
    let key = api_key(&app, &[Scope::AdminRead]).await;
    let used = Answer::of(app.request(Method::GET, "/admin/actions").bearer_auth(&key)).await;
    assert_eq!(used.status, 200);
    let noted = "SELECT COUNT(*) FROM api_keys WHERE last_used_at IS NOT NULL";
    assert_eq!(app.environment.count(noted).await, 0, "not by the call");
    app.app.stopping.cancel();
    eventually("at the end, the use is noted", Duration::from_secs(10), async || {
        app.environment.count(noted).await == 1
    })
    .await;
    app.end().await;
}
