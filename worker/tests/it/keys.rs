//! `dibs-worker keys`, and secrets that come from files.

use std::{fs, process::Stdio};

use dibs_common::{identifiers::new_uuid, secret::sha256, testing::TestEnvironment};
use secrecy::ExposeSecret as _;
use serde_json::Value;
use tokio::process::Command;

use crate::commands::{ended, start};

#[tokio::test]
async fn keys_are_created_listed_and_revoked() {
    let environment = TestEnvironment::new().await;
    let run = async |arguments: &[&str]| ended(start(&environment, &[&["keys"], arguments].concat())).await;
    let (created, key, _) = run(&["create", "shop", "--scopes", "claims,read"]).await;
    let key = key.trim_end();
    assert!(created && key.starts_with("dibs_") && !key.contains('\n'), "{key}");
    let stored: Vec<u8> = sqlx::query_scalar("SELECT key_hash FROM api_keys")
        .fetch_one(&environment.database.pool())
        .await
        .expect("a row");
    assert_eq!(stored, sha256(key.as_bytes()));
    let (again, _, error) = run(&["create", "shop", "--scopes", "claims"]).await;
    assert!(!again && error.contains("shop"), "{error}");
    for wrong in [&["create", "a b", "--scopes", "claims"][..], &["create", "a", "--scopes", "all"]] {
        assert!(!run(wrong).await.0, "{wrong:?}");
    }
    let (_, shown, _) =
        run(&["create", "office", "--scopes", "admin", "--expires-at", "2999-01-01T00:00:00Z", "--json"]).await;
    let office: Value = serde_json::from_str(&shown).expect("JSON");
    assert!(office["secret"].is_string() && office["expiresAt"] == "2999-01-01T00:00:00.000Z", "{office}");
    let (_, listed, _) = run(&["list", "--json"]).await;
    assert_eq!(listed.lines().count(), 2);
    assert!(!listed.contains("dibs_"), "no secret");
    let (revoked, line, _) = run(&["revoke", "shop"]).await;
    assert!(revoked && line.contains(" revoked "), "{line}");
    assert!(run(&["revoke", &office["apiKeyId"].to_string()]).await.0);
    assert!(run(&["revoke", "nothing"]).await.2.contains("'nothing'"));
    let actions = "SELECT COUNT(*) FROM admin_actions WHERE actor = 'dibs-worker' AND action LIKE 'api_key.%'";
    assert_eq!(environment.count(actions).await, 4);
    environment.end().await;
}

#[tokio::test]
async fn a_secret_setting_comes_from_its_file_or_from_itself() {
    let environment = TestEnvironment::new().await;
    let url = environment.settings.database_url.expose_secret();
    let file = std::env::temp_dir().join(format!("dibs-test-{}", new_uuid()));
    fs::write(&file, format!("{url}\n")).expect("written");
    let command = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dibs-worker"));
        command.args(["keys", "list"]).env("REDIS_URL", environment.settings.redis_url.expose_secret());
        command.env("DATABASE_URL_FILE", &file).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    };
    let (listed, _, error) = ended(command().env_remove("DATABASE_URL").spawn().expect("the program")).await;
    assert!(listed, "{error}");
    let (both, _, error) = ended(command().env("DATABASE_URL", url).spawn().expect("the program")).await;
    assert!(!both && error.contains("DATABASE_URL: expected either it or DATABASE_URL_FILE, got both"), "{error}");
    fs::remove_file(&file).expect("removed");
    environment.end().await;
}
