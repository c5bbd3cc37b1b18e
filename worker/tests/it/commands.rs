//! The program's commands while another process holds the lease that they need.

use std::{process::Stdio, time::Duration};

use dibs_common::{
    redis::campaign_state,
    testing::{FIRST, TestEnvironment},
};
use secrecy::ExposeSecret as _;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
    time::timeout,
};

use crate::support::{accept, work};

const LIMIT: Duration = Duration::from_secs(30);

/// Starts `dibs-worker` with the servers of the environment.
pub fn start(environment: &TestEnvironment, arguments: &[&str]) -> Child {
    let settings = &environment.settings;
    Command::new(env!("CARGO_BIN_EXE_dibs-worker"))
        .args(arguments)
        .env("DATABASE_URL", settings.database_url.expose_secret())
        .env("REDIS_URL", settings.redis_url.expose_secret())
        .env("REDIS_KEY_PREFIX", &settings.redis_key_prefix)
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

#[tokio::test]
async fn a_rebuild_waits_for_the_process_that_holds_the_lease() {
    let environment = TestEnvironment::new().await;
    let campaign = environment.campaign(5).await;
    accept(&environment, &campaign, 1..=3).await;
    work(&environment).await;
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
