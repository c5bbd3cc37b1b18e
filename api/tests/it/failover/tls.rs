use std::{path::Path, process::Stdio};

use dibs_common::testing::RedisServer;
use secrecy::ExposeSecret as _;
use tokio::process::Command;

use super::*;

/// A certificate authority of the test's own, and a certificate of it for `localhost`, created with openssl.
async fn make_certificates(folder: &Path) {
    let script = "openssl req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -days 2 -subj /CN=test-ca && \
                  openssl req -newkey rsa:2048 -nodes -keyout key.pem -out request.pem -subj /CN=localhost && \
                  printf 'subjectAltName=DNS:localhost,IP:127.0.0.1' >names && \
                  openssl x509 -req -in request.pem -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile names \
                  -out cert.pem";
    let made = Command::new("sh").args(["-ec", script]).current_dir(folder).stderr(Stdio::null()).status().await;
    assert!(made.expect("openssl").success(), "certificates");
}

#[tokio::test]
async fn redis_is_reached_by_tls_and_only_with_a_certificate_of_a_known_authority() {
    let environment = TestEnvironment::new().await;
    let folder = std::env::temp_dir().join(format!("dibs-tls-{}", dibs_common::identifiers::new_uuid()));
    std::fs::create_dir_all(&folder).expect("a folder");
    make_certificates(&folder).await;
    let file = |name: &str| folder.join(name).to_string_lossy().into_owned();
    let [certificate, key, authority] = ["cert.pem", "key.pem", "ca.pem"].map(file);
    let server = RedisServer::start_tls(&certificate, &key, &authority);
    let url = format!("rediss://localhost:{}", server.port);
    let program = env!("CARGO_BIN_EXE_dibs-api").replace("dibs-api", "dibs-worker");
    let job = |trusted: Option<&str>| {
        let mut command = Command::new(&program);
        command
            .args(["job", "warm-ranking"])
            .env("DATABASE_URL", environment.settings.database_url.expose_secret())
            .env("REDIS_URL", &url)
            .env("REDIS_KEY_PREFIX", &environment.settings.redis_key_prefix)
            .envs(trusted.map(|file| ("SSL_CERT_FILE", file)));
        command
    };
    let trusting = job(Some(&authority)).output().await.expect("the program");
    assert!(trusting.status.success(), "{}", String::from_utf8_lossy(&trusting.stderr));
    let suspicious = job(None).output().await.expect("the program");
    let said = String::from_utf8_lossy(&suspicious.stderr).into_owned();
    assert!(!suspicious.status.success() && said.contains("REDIS_URL"), "{said}");
    std::fs::remove_dir_all(&folder).expect("removed");
    environment.end().await;
}
