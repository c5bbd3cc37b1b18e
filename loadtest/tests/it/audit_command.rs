//! The command `audit`: its status, and how long it waits for a stack that is not drained.

use std::{fs, time::Duration};

use clap::Parser as _;
use dibs_common::testing::{FIRST, TestEnvironment};
use dibs_loadtest::{
    RunStatus,
    audit::{AuditArguments, Evidence, audit_drained, audit_shop_drained},
    cli::{Cli, Command},
};
use fred::interfaces::{KeysInterface as _, StreamsInterface as _};
use secrecy::ExposeSecret as _;
use tokio::time::Instant;

use crate::{
    audit_campaign::{broken, confirmed_campaign, stores},
    audit_shop::{SETTINGS, apply_sales},
};

/// Longer than a poll, short for a test.
const TIMEOUT: Duration = Duration::from_millis(300);

/// The arguments of an audit of the environment.
fn arguments(environment: &TestEnvironment, more: &[&str]) -> AuditArguments {
    let settings = &environment.settings;
    let stack = [
        "dibs-loadtest",
        "audit",
        "--wait-seconds=0",
        "--database-url",
        settings.database_url.expose_secret(),
        "--redis-url",
        settings.redis_url.expose_secret(),
        "--redis-key-prefix",
        &settings.redis_key_prefix,
    ];
    match Cli::try_parse_from(stack.iter().chain(more)).expect("valid").command {
        Command::Audit(arguments) => arguments,
        other => panic!("{other:?}"),
    }
}

async fn status(environment: &TestEnvironment, more: &[&str]) -> RunStatus {
    dibs_loadtest::audit::run(arguments(environment, more)).await.expect("an audit")
}

#[tokio::test]
async fn a_campaign_passes_until_a_coupon_is_missing() {
    let environment = TestEnvironment::new().await;
    let (campaign, _) = confirmed_campaign(&environment).await;
    let (other, _) = confirmed_campaign(&environment).await;
    let option = |coupon: dibs_common::identifiers::CouponId| format!("--coupon={coupon}");
    assert_eq!(status(&environment, &[&option(campaign.id)]).await, RunStatus::Passed);
    environment.execute(&format!("DELETE FROM user_coupons WHERE user_id = 1 AND coupon_id = {}", campaign.id)).await;
    assert_eq!(status(&environment, &[&option(campaign.id)]).await, RunStatus::Failed);
    assert_eq!(status(&environment, &[&option(other.id)]).await, RunStatus::Passed, "the other campaign is valid");
    environment.end().await;
}

#[tokio::test]
async fn without_a_campaign_the_shop_and_all_campaigns_are_audited() {
    let environment = TestEnvironment::new().await;
    confirmed_campaign(&environment).await;
    let (campaign, _) = confirmed_campaign(&environment).await;
    let stores = stores(&environment);
    // No worker runs here, so no ranking has registered its progress: that is I9's only difference.
    let shop = audit_shop_drained(&stores, TIMEOUT, SETTINGS, Evidence::default()).await.expect("an audit");
    assert_eq!(broken(&shop), ["I9"]);
    apply_sales(&environment).await;
    assert_eq!(status(&environment, &[]).await, RunStatus::Passed);
    environment.execute(&format!("UPDATE coupons SET issued_quantity = 2 WHERE coupon_id = {}", campaign.id)).await;
    assert_eq!(status(&environment, &[]).await, RunStatus::Failed, "the second campaign");
    environment.end().await;
}

#[tokio::test]
async fn an_unknown_campaign_and_an_invalid_record_are_errors() {
    let environment = TestEnvironment::new().await;
    let error = dibs_loadtest::audit::run(arguments(&environment, &["--coupon=999"])).await.expect_err("unknown");
    assert_eq!(error.to_string(), "the database has no coupon 999");
    let path = std::env::temp_dir().join(format!("dibs-record-{}", dibs_common::identifiers::new_uuid()));
    fs::write(&path, "{}\n{}\n").expect("written");
    let option = format!("--deliveries={}", path.display());
    let error = dibs_loadtest::audit::run(arguments(&environment, &[&option])).await.expect_err("invalid");
    assert!(format!("{error:#}").ends_with("line 1 is not a line of a receiver's record"), "{error:#}");
    fs::remove_file(path).expect("removed");
    environment.end().await;
}

#[tokio::test]
async fn i11_a_claim_that_stays_on_the_stream_is_a_difference_after_the_timeout() {
    let environment = TestEnvironment::new().await;
    let (campaign, _) = confirmed_campaign(&environment).await;
    let (stores, stream) = (stores(&environment), environment.redis.keys.claim_stream(FIRST));
    let audited = async || broken(&audit_drained(&stores, campaign.id, TIMEOUT, None).await.expect("an audit"));
    assert_eq!(audited().await, Vec::<&str>::new());
    let entry = ("type", "claims.v1");
    let _id: String = environment.redis.client().xadd(&stream, false, None::<()>, "*", entry).await.expect("added");
    let began = Instant::now();
    assert_eq!(audited().await, ["I11"]);
    assert!(began.elapsed() >= TIMEOUT, "the worker has the time to confirm");
    environment.redis.client().del::<(), _>(&stream).await.expect("deleted");
    environment.end().await;
}

#[tokio::test]
async fn a_command_that_stays_on_the_stream_is_a_difference_after_the_timeout() {
    let environment = TestEnvironment::new().await;
    let (stores, stream) = (stores(&environment), environment.redis.keys.order_stream(FIRST));
    let entry = ("type", "orders.v1");
    let _id: String = environment.redis.client().xadd(&stream, false, None::<()>, "*", entry).await.expect("added");
    let began = Instant::now();
    let report = audit_shop_drained(&stores, TIMEOUT, SETTINGS, Evidence::default()).await.expect("an audit");
    assert!(broken(&report).contains(&"drained"), "{}", report.render());
    assert!(began.elapsed() >= TIMEOUT);
    environment.redis.client().del::<(), _>(&stream).await.expect("deleted");
    environment.end().await;
}
