//! The program's commands while another process holds the lease that they need.

use std::{process::Stdio, time::Duration};

use dibs_common::{
    domain::campaign::Campaign,
    redis::campaign_state,
    testing::{FIRST, TestEnvironment},
};
use fred::interfaces::HashesInterface as _;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
    time::timeout,
};

use crate::support::{accept, work};

const LIMIT: Duration = Duration::from_secs(30);

/// Starts `dibs-worker` with the servers of the environment.
pub fn start(environment: &TestEnvironment, arguments: &[&str]) -> Child {
    start_with(environment, arguments, &[])
}

/// The same with more settings.
pub fn start_with(environment: &TestEnvironment, arguments: &[&str], variables: &[(&str, &str)]) -> Child {
    let settings = &environment.settings;
    Command::new(env!("CARGO_BIN_EXE_dibs-worker"))
        .args(arguments)
        .env("DATABASE_URL", settings.database_url.expose_secret())
        .env("REDIS_URL", settings.redis_url.expose_secret())
        .env("REDIS_KEY_PREFIX", &settings.redis_key_prefix)
        .env("CLAIM_PARTITIONS", settings.claim_partitions.to_string())
        .envs(variables.iter().copied())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("the program")
}

/// Whether it succeeded, and what it printed: results and errors.
pub async fn ended(child: Child) -> (bool, String, String) {
    let output = timeout(LIMIT, child.wait_with_output()).await.expect("ended").expect("a child");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (output.status.success(), text(output.stdout), text(output.stderr))
}

#[tokio::test]
async fn a_command_that_gets_no_lease_fails_and_says_so() {
    let environment = TestEnvironment::new().await;
    let campaign = environment.campaign(5).await;
    let coupon = campaign.id.to_string();
    for (lease, command, undone) in [
        (format!("rebuild {coupon}"), ["rebuild", &coupon], format!("coupon {coupon} is not rebuilt")),
        ("job warm-ranking".into(), ["job", "warm-ranking"], "warm-ranking did not run".into()),
        ("sink ranking".into(), ["rebuild", "ranking"], "the ranking is not rebuilt".into()),
    ] {
        let held = environment.database.try_lease(&lease).await.expect("asked").expect("free");
        let (succeeded, out, errors) = ended(start(&environment, &[command[0], command[1], "--wait", "1"])).await;
        assert!(!succeeded && out.is_empty(), "{command:?} printed {out:?}");
        let expected = format!("error: {undone}: after 1 s another process still holds its lease\n");
        assert!(errors.contains("; waiting up to 1 s\n") && errors.ends_with(&expected), "{errors}");
        held.release().await.expect("released");
    }
    environment.end().await;
}

async fn with_three_issued() -> (TestEnvironment, Campaign) {
    let environment = TestEnvironment::new().await;
    let campaign = environment.campaign(5).await;
    accept(&environment, &campaign, 1..=3).await;
    work(&environment).await;
    (environment, campaign)
}

#[tokio::test]
async fn a_rebuild_waits_for_the_process_that_holds_the_lease() {
    let (environment, campaign) = with_three_issued().await;
    campaign_state::delete(&environment.redis, FIRST, campaign.id).await.expect("deleted");
    let held = environment.database.try_lease(&format!("rebuild {}", campaign.id)).await.expect("asked").expect("free");
    let mut child = start(&environment, &["rebuild", &campaign.id.to_string()]);
    let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines();
    let said = timeout(LIMIT, lines.next_line()).await.expect("in time").expect("text").expect("a line");
    assert_eq!(said, "another process is at it; waiting up to 60 s");
    held.release().await.expect("released");
    let (succeeded, out, _) = ended(child).await;
    assert!(succeeded);
    assert_eq!(out, format!("coupon {} rebuilt, 3 claimed\n", campaign.id));
    let counts = campaign_state::counts(&environment.redis, FIRST, campaign.id).await.expect("redis").expect("known");
    assert_eq!(counts.claimed, 3);
    environment.end().await;
}

/// The exit code, and what was printed.
async fn result_of(environment: &TestEnvironment, arguments: &[&str]) -> (Option<i32>, String) {
    let output =
        timeout(LIMIT, start(environment, arguments).wait_with_output()).await.expect("ended").expect("a child");
    (output.status.code(), String::from_utf8(output.stdout).expect("text"))
}

#[tokio::test]
async fn a_comparison_ends_with_3_when_something_differs() {
    let (environment, campaign) = with_three_issued().await;
    let coupon = campaign.id.to_string();
    let (code, out) = result_of(&environment, &["audit", &coupon]).await;
    assert_eq!(code, Some(0));
    assert_eq!(out, format!("coupon {coupon}: 6 claims compared, 0 on their way, 0 differences\n"));
    assert_eq!(result_of(&environment, &["drift"]).await, (Some(0), "0 campaigns differ\n".into()));
    let claims = environment.redis.keys.claims(FIRST, campaign.id);
    environment.redis.client().hdel::<(), _, _>(&claims, "2").await.expect("removed");
    let (code, out) = result_of(&environment, &["audit", &coupon]).await;
    assert_eq!(code, Some(3));
    assert!(out.contains("COUNT_DIFFERS\tholders\tfound 2\texpected 3\n"), "{out}");
    assert!(out.contains("MISSING_IN_REDIS\tuser 2\tclaim "), "{out}");
    let (code, out) = result_of(&environment, &["audit", &coupon, "--json"]).await;
    let audited: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((code, &audited["isComplete"]), (Some(3), &json!(true)));
    assert_eq!((&audited["items"][0]["kind"], &audited["items"][0]["userId"]), (&json!("MISSING_IN_REDIS"), &json!(2)));
    let (code, out) = result_of(&environment, &["drift", "--json"]).await;
    let drift: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((code, &drift["couponId"], &drift["claims"][0]["userId"]), (Some(3), &json!(campaign.id), &json!(2)));
    let (code, out) = result_of(&environment, &["rebuild", &coupon, "--json", "--reason", "drift"]).await;
    assert_eq!((code, out), (Some(0), format!("{{\"couponId\":{coupon},\"claimed\":3}}\n")));
    assert_eq!(result_of(&environment, &["drift"]).await.0, Some(0));
    let action =
        environment.texts("SELECT CONCAT(actor, ' ', action, ' ', target_id, ' ', reason) FROM admin_actions").await;
    assert_eq!(action, [format!("dibs-worker campaign.rebuild {coupon} drift")]);
    assert_eq!(result_of(&environment, &["audit", "4711"]).await.0, Some(1), "there is none");
    assert_eq!(result_of(&environment, &["audit", "x"]).await.0, Some(2), "no id");
    environment.end().await;
}

#[tokio::test]
async fn dead_letters_are_handled_as_json_and_with_a_reason() {
    let environment = TestEnvironment::new().await;
    let letters = "INSERT INTO dead_letters (source, source_key, kind, payload, payload_bytes, redrivable, reason, attempts, \
        dead_lettered_at) VALUES ('data-platform', '1', 'order.paid', '{}', 2, TRUE, 'no', 1, UTC_TIMESTAMP(3)), \
        ('data-platform', '2', 'order.paid', '{}', 2, TRUE, 'no', 1, UTC_TIMESTAMP(3)), \
        ('notifications', '3', 'coupon.issued', '{}', 2, TRUE, 'no', 1, UTC_TIMESTAMP(3))";
    environment.execute(letters).await;
    let (code, out) = result_of(&environment, &["dead-letters", "--json", "--source", "notifications"]).await;
    let letter: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((code, &letter["sourceKey"], &letter["payload"]), (Some(0), &json!("3"), &json!("{}")));
    let id = letter["deadLetterId"].to_string();
    let dropped = result_of(&environment, &["dead-letters", "drop", &id, "--json", "--reason", "old"]).await;
    assert_eq!(dropped, (Some(0), format!("{{\"deadLetterId\":{id},\"status\":\"DROPPED\",\"letters\":1}}\n")));
    let redriven = result_of(&environment, &["dead-letters", "redrive", "--source", "data-platform", "--json"]).await;
    assert_eq!(redriven, (Some(0), "{\"status\":\"REDRIVE\",\"letters\":2}\n".into()));
    let actions = "SELECT CONCAT(actor, ' ', action, ' ', target_id, ' ', COALESCE(reason, '-')) FROM admin_actions \
        ORDER BY admin_action_id";
    let expected =
        [format!("dibs-worker dead_letter.drop {id} old"), "dibs-worker dead_letter.redrive data-platform -".into()];
    assert_eq!(environment.texts(actions).await, expected);
    assert_eq!(result_of(&environment, &["dead-letters", "drop", &id, "--source", "x"]).await.0, Some(2));
    assert_eq!(result_of(&environment, &["dead-letters", "drop"]).await.0, Some(2));
    environment.end().await;
}

#[tokio::test]
async fn settings_stand_anywhere_and_health_needs_no_urls() {
    let run = async |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dibs-worker"));
        // A folder without a `.env`.
        command.args(arguments).current_dir("/").env_remove("DATABASE_URL").env_remove("REDIS_URL");
        let ended = command.output().await.expect("the program");
        (ended.status.success(), String::from_utf8([ended.stdout, ended.stderr].concat()).expect("text"))
    };
    for arguments in [["--worker-address=127.0.0.1:1", "health"], ["health", "--worker-address=127.0.0.1:1"]] {
        assert_eq!(run(&arguments).await, (false, "error: WORKER_ADDRESS: nothing is ready at 127.0.0.1:1\n".into()));
    }
    let (printed, script) = run(&["completions", "zsh"]).await;
    assert!(printed && script.contains("dead-letters") && script.contains("--kafka-brokers"), "{script}");
    let (done, refusal) = run(&["migrate", "--redis-url", "redis://127.0.0.1:1"]).await;
    assert!(!done && refusal.starts_with("error: DATABASE_URL: it is not set; expected mysql://"), "{refusal}");
    let environment = TestEnvironment::new().await;
    let url = environment.settings.database_url.expose_secret();
    let (done, output) = run(&["migrate", "--database-url", url, "--redis-url", "redis://127.0.0.1:1"]).await;
    assert!(done, "{output}");
    environment.end().await;
}
