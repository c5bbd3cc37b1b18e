//! Keys of tokens and secrets change while the API runs.

use std::{
    ffi::OsString,
    fs,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{Router, routing::get};
use clap::CommandFactory as _;
use dibs_api::{access::AuthMode, settings::ApiSettings};
use dibs_common::{
    config::SecretFiles,
    identifiers::new_uuid,
    testing::{TestEnvironment, eventually, serve_router},
};
use futures::future::join_all;
use reqwest::Method;
use serde_json::json;

use super::{
    matrix::guarded,
    tokens::{AUDIENCE, ISSUER, SigningKey, claims, with_claim},
};
use crate::app::{Answer, TestApp};

async fn status(app: &TestApp, token: &str) -> u16 {
    Answer::of(app.request(Method::GET, "/points?userId=7").bearer_auth(token)).await.status.as_u16()
}

#[tokio::test]
async fn a_key_set_counts_for_its_algorithms_and_is_read_again() {
    let keys = [SigningKey::rsa(), SigningKey::ec(), SigningKey::ed()];
    let secret = SigningKey::Secret(vec![7; 32]);
    let ids = ["a", "b", "c"];
    let set = |count: usize| {
        let mut jwks: Vec<_> = keys.iter().zip(ids).take(count).map(|(key, id)| key.jwk(id)).collect();
        jwks.extend([secret.jwk("d"), json!({ "kty": "new", "kid": "e" })]);
        json!({ "keys": jwks })
    };
    let (app, file) = guarded(&set(3)).await;
    for (key, id) in keys.iter().zip(ids) {
        assert_eq!(status(&app, &key.of_user(7, id)).await, 200, "{id}");
        assert_eq!(status(&app, &key.token(&claims(7), &json!({}))).await, 200, "{id} is the only one of its kind");
    }
    assert_eq!(status(&app, &keys[0].of_user(7, "b")).await, 401, "an id of another algorithm");
    assert_eq!(status(&app, &secret.of_user(7, "d")).await, 401, "a symmetric key in a public set");
    let number = keys[2].token(&with_claim(7, "sub", json!(7)), &json!({ "kid": "c" }));
    assert_eq!(status(&app, &number).await, 200, "the user as a number");
    let several = keys[2].token(&with_claim(7, "aud", json!(["other", AUDIENCE])), &json!({ "kid": "c" }));
    assert_eq!(status(&app, &several).await, 200, "one of several audiences");
    fs::write(&file, "{}").expect("written");
    let third = keys[2].of_user(7, "c");
    assert_eq!(status(&app, &third).await, 200);
    fs::write(&file, set(2).to_string()).expect("written");
    eventually("a removed key does not count, remembered tokens included", Duration::from_secs(10), async || {
        status(&app, &third).await == 401
    })
    .await;
    assert_eq!(status(&app, &keys[0].of_user(7, "a")).await, 200);
    fs::remove_file(&file).expect("removed");
    app.end().await;
}

#[tokio::test]
async fn a_new_key_is_fetched_once_however_many_tokens_are_of_unknown_keys() {
    let (old, new) = (SigningKey::ed(), SigningKey::ec());
    let set = Arc::new(Mutex::new(json!({ "keys": [old.jwk("old")] }).to_string()));
    let fetches = Arc::new(AtomicUsize::new(0));
    let (served, counted) = (Arc::clone(&set), Arc::clone(&fetches));
    let issuer = Router::new().route(
        "/keys",
        get(async move || {
            counted.fetch_add(1, Ordering::Relaxed);
            served.lock().expect("a lock").clone()
        }),
    );
    let url = format!("{}/keys", serve_router(issuer).await);
    let environment = TestEnvironment::new().await;
    let shared = environment.settings.clone();
    let app = TestApp::with(environment, shared, |settings| {
        settings.auth.auth_mode = Some(AuthMode::Required);
        settings.auth.auth_jwks_url = Some(url);
        settings.auth.auth_jwt_issuer = Some(ISSUER.into());
        settings.auth.auth_jwt_audience = Some(AUDIENCE.into());
    })
    .await;
    assert_eq!(status(&app, &old.of_user(7, "old")).await, 200);
    *set.lock().expect("a lock") = json!({ "keys": [old.jwk("old"), new.jwk("new")] }).to_string();
    let token = new.of_user(7, "new");
    let invented: Vec<String> = (0..20).map(|number| new.of_user(7, &format!("invented-{number}"))).collect();
    eventually("the new key counts", Duration::from_secs(20), async || {
        join_all(invented.iter().map(async |token| assert_eq!(status(&app, token).await, 401))).await;
        status(&app, &token).await == 200
    })
    .await;
    assert_eq!(fetches.load(Ordering::Relaxed), 2, "at the start, and once within ten seconds");
    *set.lock().expect("a lock") = "no key set".into();
    assert_eq!(status(&app, &token).await, 200, "the last keys count");
    app.end().await;
}

#[tokio::test]
async fn secrets_in_files_are_replaced_while_the_api_runs() {
    let folder = std::env::temp_dir().join(format!("dibs-test-{}", new_uuid()));
    fs::create_dir(&folder).expect("a folder");
    let (admin, jwt) = (folder.join("admin"), folder.join("jwt"));
    let [one, two] = [[b'1'; 32], [b'2'; 32]].map(|bytes| String::from_utf8(bytes.to_vec()).expect("text"));
    fs::write(&admin, "the first admin token\n").expect("written");
    fs::write(&jwt, &one).expect("written");
    let environment = TestEnvironment::new().await;
    let shared = environment.settings.clone();
    let app = TestApp::with(environment, shared, |settings| {
        settings.auth.auth_mode = Some(AuthMode::Required);
        settings.auth.auth_jwt_secret = Some(one.clone().into());
        settings.admin_token = Some("the first admin token".into());
        let files = SecretFiles::read(&ApiSettings::command(), &[], |name| match name {
            "ADMIN_TOKEN_FILE" => Some(OsString::from(&admin)),
            "AUTH_JWT_SECRET_FILE" => Some(OsString::from(&jwt)),
            _ => None,
        });
        settings.secret_files = files.expect("files");
    })
    .await;
    let by_admin = async |token: &str| {
        Answer::of(app.request(Method::GET, "/admin/keys").bearer_auth(token)).await.status.as_u16()
    };
    let claims = json!({ "sub": "7", "exp": dibs_common::clock::now().timestamp() + 600 });
    let by_token = |secret: &str| SigningKey::Secret(secret.as_bytes().to_vec()).token(&claims, &json!({}));
    let with_audience = SigningKey::Secret(one.as_bytes().to_vec()).of_user(7, "any");
    assert_eq!((by_admin("the first admin token").await, status(&app, &by_token(&one)).await), (200, 200));
    assert_eq!(status(&app, &with_audience).await, 401, "a token for another audience");
    fs::write(&admin, "short").expect("written");
    fs::write(&jwt, format!("{one} {two}")).expect("written");
    eventually("both secrets count", Duration::from_secs(10), async || status(&app, &by_token(&two)).await == 200)
        .await;
    assert_eq!(by_admin("short").await, 401, "a bad token replaces nothing");
    assert_eq!((by_admin("the first admin token").await, status(&app, &by_token(&one)).await), (200, 200));
    fs::write(&admin, "the second admin token\n").expect("written");
    fs::write(&jwt, &two).expect("written");
    eventually("the new ones alone", Duration::from_secs(10), async || {
        by_admin("the second admin token").await == 200 && status(&app, &by_token(&one)).await == 401
    })
    .await;
    assert_eq!((by_admin("the first admin token").await, status(&app, &by_token(&two)).await), (401, 200));
    fs::remove_dir_all(&folder).expect("removed");
    app.end().await;
}
