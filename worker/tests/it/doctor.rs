//! `dibs-worker doctor` on real servers: what is right, and each thing that is wrong.

use std::{process::Stdio, time::Duration};

use dibs_common::{
    db::{self, processes::Presence},
    identifiers::new_uuid,
    testing::{RedisServer, TestEnvironment},
};
use secrecy::ExposeSecret as _;
use serde_json::Value;
use tokio::{process::Command, time::timeout};

use crate::receiver::TestReceiver;

const LIMIT: Duration = Duration::from_secs(30);
const DURABLE: [&str; 8] = [
    "--appendonly",
    "yes",
    "--appendfsync",
    "always",
    "--maxmemory-policy",
    "noeviction",
    "--lazyfree-lazy-expire",
    "yes",
];
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dibs-worker"));
    command.stdin(Stdio::null()).stderr(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
    command
}

async fn output(command: &mut Command) -> (Option<i32>, String) {
    let output = timeout(LIMIT, command.output()).await.expect("ended").expect("the program");
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(text).expect("text"))
}

fn doctor(environment: &TestEnvironment, variables: &[(&str, &str)]) -> Command {
    let settings = &environment.settings;
    let mut command = program();
    command
        .arg("doctor")
        .env("DATABASE_URL", settings.database_url.expose_secret())
        .env("REDIS_URL", settings.redis_url.expose_secret())
        .env("REDIS_KEY_PREFIX", &settings.redis_key_prefix)
        .envs(variables.iter().copied());
    command
}

/// The exit code, and the report.
pub async fn diagnose(environment: &TestEnvironment, variables: &[(&str, &str)]) -> (Option<i32>, Value) {
    let (code, printed) = output(doctor(environment, variables).arg("--json")).await;
    (code, serde_json::from_str(&printed).unwrap_or_else(|error| panic!("{error}: {printed}")))
}

pub fn finding<'r>(report: &'r Value, check: &str) -> &'r Value {
    let findings = report["findings"].as_array().expect("findings");
    let found = findings.iter().find(|finding| finding["check"].as_str().expect("text") == check);
    found.unwrap_or_else(|| panic!("{check} in {report}"))
}

fn presence(program: &'static str, partitions: &str) -> Presence {
    let settings = [("CLAIM_PARTITIONS".to_owned(), partitions.to_owned())].into();
    Presence { id: new_uuid(), program, address: "10.0.0.1:8080".into(), settings, database_connections: 24 }
}

async fn report(environment: &TestEnvironment, presence: &Presence) {
    db::within(db::processes::report(&environment.database.pool(), presence)).await.expect("reported");
}

async fn expect(environment: &TestEnvironment, variables: &[(&str, &str)], check: &str, status: &str, found: &str) {
    let (code, report) = diagnose(environment, variables).await;
    let finding = finding(&report, check);
    assert_eq!(finding["status"], status, "{finding}");
    assert!(finding["found"].as_str().expect("text").contains(found), "{finding}");
    if status == "OK" {
        assert!(finding.get("remedy").is_none(), "{finding}");
    } else {
        assert!(finding["remedy"].as_str().expect("text").len() > 10, "{finding}");
        assert!(code == Some(2) || status == "WARNING" && code == Some(1), "{code:?}");
    }
}

#[tokio::test]
async fn the_doctor_finds_nothing_wrong_with_what_is_right() {
    let environment = TestEnvironment::new().await;
    let redis = RedisServer::start(&DURABLE);
    let receiver = TestReceiver::new().await;
    for program in ["dibs-api", "dibs-worker"] {
        report(&environment, &presence(program, "16")).await;
    }
    let redis_url = redis.url();
    let variables = [("REDIS_URL", &*redis_url), ("DATA_PLATFORM_URL", &receiver.url), ("WEBHOOK_SECRET", SECRET)];
    let (code, found) = diagnose(&environment, &variables).await;
    let findings = found["findings"].as_array().expect("findings");
    // How durable the server of all tests is, and its version, are not this test's to decide.
    let given = ["database", "database durability", "database connections"];
    for finding in findings.iter().filter(|finding| !given.contains(&finding["check"].as_str().expect("text"))) {
        assert_eq!(finding["status"], "OK", "{finding}");
    }
    let worst = if findings.iter().any(|finding| finding["status"] == "WARNING") { Some(1) } else { Some(0) };
    assert_eq!(code, worst, "{found}");
    assert!(findings.len() >= 16, "{found}");
    let (_, printed) = output(&mut doctor(&environment, &variables)).await;
    assert!(printed.contains("ok       migrations") && printed.contains(" checks, "), "{printed}");
    assert!(!printed.contains(SECRET), "{printed}");
    environment.end().await;
}

#[tokio::test]
async fn the_doctor_names_what_is_wrong_with_redis() {
    let environment = TestEnvironment::new().await;
    let careless = ["--appendonly", "no", "--maxmemory-policy", "allkeys-lru", "--lazyfree-lazy-expire", "no"];
    let redis = RedisServer::start(&careless);
    let url = redis.url();
    let variables = [("REDIS_URL", &*url)];
    expect(&environment, &variables, "redis persistence", "ERROR", "appendonly no").await;
    expect(&environment, &variables, "redis eviction", "ERROR", "allkeys-lru").await;
    let often = RedisServer::start(&["--appendonly", "yes", "--appendfsync", "everysec"]);
    let often_url = often.url();
    expect(&environment, &[("REDIS_URL", &often_url)], "redis fsync", "WARNING", "everysec").await;
    let replica = RedisServer::start(&["--replicaof", "127.0.0.1", &often.port.to_string()]);
    expect(&environment, &[("REDIS_URL", &replica.url())], "redis", "ERROR", "slave").await;
    let managed = RedisServer::start(&[&DURABLE[..], &["--rename-command", "CONFIG", ""]].concat());
    let managed_url = managed.url();
    expect(&environment, &[("REDIS_URL", &managed_url)], "redis persistence", "OK", "appendonly 1").await;
    expect(&environment, &[("REDIS_URL", &managed_url)], "redis fsync", "WARNING", "not readable").await;
    environment.end().await;
}

#[tokio::test]
async fn the_doctor_names_what_is_wrong_with_the_database() {
    let environment = TestEnvironment::new().await;
    environment.execute("UPDATE _sqlx_migrations SET version = 9999 WHERE version = 2").await;
    expect(&environment, &[], "migrations", "ERROR", "missing: 0002; unknown: 9999").await;
    environment.execute("UPDATE _sqlx_migrations SET version = 2 WHERE version = 9999").await;
    environment.execute("UPDATE _sqlx_migrations SET success = 0 WHERE version = 27").await;
    expect(&environment, &[], "migrations", "ERROR", "failed: 0027").await;
    environment.execute("UPDATE _sqlx_migrations SET checksum = 'x' WHERE version = 1").await;
    expect(&environment, &[], "migrations", "ERROR", "changed: 0001").await;
    let unreachable = [("DATABASE_URL", "mysql://root@127.0.0.1:9/dibs")];
    expect(&environment, &unreachable, "database", "ERROR", "refused").await;
    expect(&environment, &[("DATABASE_URL", "postgres://db/dibs")], "settings", "ERROR", "DATABASE_URL").await;
    environment.end().await;
}

#[tokio::test]
async fn the_doctor_names_processes_that_contradict_each_other_and_clocks_that_differ() {
    let environment = TestEnvironment::new().await;
    expect(&environment, &[], "processes", "WARNING", "none").await;
    let worker = presence("dibs-worker", "16");
    report(&environment, &presence("dibs-api", "32")).await;
    report(&environment, &worker).await;
    let differing = r#"CLAIM_PARTITIONS: "16" of dibs-worker 10.0.0.1:8080, "32" of dibs-api 10.0.0.1:8080"#;
    expect(&environment, &[], "shared settings", "ERROR", differing).await;
    environment.execute("UPDATE processes SET clock_offset_ms = -60000 WHERE program = 'dibs-api'").await;
    expect(&environment, &[], "clock of dibs-api 10.0.0.1:8080", "ERROR", "-60000 ms ahead").await;
    environment.execute("UPDATE processes SET database_connections = 65000").await;
    expect(&environment, &[], "database connections", "WARNING", "130000 in the pools of 2 processes").await;
    environment.execute("UPDATE processes SET seen_at = seen_at - INTERVAL 1 MINUTE").await;
    expect(&environment, &[], "processes", "WARNING", "none").await;
    db::within(db::processes::forget(&environment.database.pool(), worker.id)).await.expect("removed");
    assert_eq!(environment.count("SELECT COUNT(*) FROM processes").await, 1);
    environment.end().await;
}

#[tokio::test]
async fn the_doctor_names_a_receiver_that_does_not_answer() {
    let environment = TestEnvironment::new().await;
    let variables = [("NOTIFICATION_URL", "http://shop:hidden@127.0.0.1:9/in"), ("WEBHOOK_SECRET", SECRET)];
    expect(&environment, &variables, "webhook notifications", "ERROR", "http://***@127.0.0.1:9/in: no answer").await;
    environment.end().await;
}
