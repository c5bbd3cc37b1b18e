//! Redis and MySQL are compared in both directions, and MySQL is right.

use std::time::Duration;

use chrono::TimeDelta;
use dibs_common::{
    clock, db,
    domain::{campaign::Campaign, claim::CLOCK_TOLERANCE},
    redis::{
        campaign_state::{self, HeldCampaign},
        scripts::{Decision, assign, campaign_update},
    },
    testing::{FIRST, LogCapture, LogLine, eventually},
};
use dibs_worker::{
    campaigns::{Reconciler, rebuild},
    settings::Retention,
};
use fred::interfaces::{HashesInterface as _, KeysInterface as _};
use tokio::sync::Mutex;

use crate::{campaign_test::CampaignTest, support::request};

async fn set_in_redis(test: &CampaignTest, field: &str, value: &str) {
    let key = test.redis.keys.campaign(FIRST, test.campaign.id);
    test.redis.client().hset::<(), _, _>(key, (field, value)).await.expect("set");
}

/// The campaign as MySQL has it, and how it differs from what Redis holds.
async fn compare(test: &CampaignTest) -> (Campaign, HeldCampaign) {
    let campaign = db::campaigns::find(&test.database.pool(), test.campaign.id).await.expect("read").expect("there");
    let compared = campaign_state::compare(&test.redis, &campaign).await.expect("redis");
    (campaign, compared)
}

/// Whether Redis holds the terms that MySQL has, and counts the issued claims.
async fn agree(test: &CampaignTest) -> bool {
    let (campaign, held) = compare(test).await;
    let counts = held.counts.is_some_and(|(claimed, sequence)| claimed == campaign.issued && sequence >= claimed);
    held.different.is_empty() && counts && campaign.enforced_since.is_some()
}

struct Rounds(Mutex<Reconciler>);

impl Rounds {
    fn new(test: &CampaignTest) -> Self {
        Self(Mutex::new(Reconciler::new(test.database.clone(), test.redis.clone(), Retention::DEFAULT)))
    }

    async fn run_one(&self) {
        self.0.lock().await.round().await.expect("reconciled");
    }
}

#[tokio::test]
async fn each_field_that_changes_in_redis_is_restored_within_5_s() {
    let test = CampaignTest::with_issued(10, 1..=3).await;
    let rounds = Rounds::new(&test);
    let later = (clock::now() + TimeDelta::days(9)).timestamp_millis().to_string();
    let changes = [
        ("state", "PAUSED"),
        ("opens_at", later.as_str()),
        ("closes_at", later.as_str()),
        ("total", "9999"),
        ("total", "1"),
        ("limit", "7"),
        ("claimed", "0"),
        ("claimed", "9"),
        ("sequence", "1"),
        ("claimed", "not a number"),
    ];
    for (field, value) in changes {
        set_in_redis(&test, field, value).await;
        assert!(!agree(&test).await, "{field} {value}");
        eventually(field, Duration::from_secs(5), async || {
            rounds.run_one().await;
            agree(&test).await
        })
        .await;
    }
    let key = test.redis.keys.campaign(FIRST, test.campaign.id);
    for field in ["state", "opens_at", "closes_at", "total", "limit", "claimed", "sequence"] {
        test.redis.client().hdel::<(), _, _>(&key, field).await.expect("deleted");
        rounds.run_one().await;
        assert!(agree(&test).await, "{field} was missing");
    }
    test.end().await;
}

#[tokio::test]
async fn terms_that_an_administrator_changes_in_mysql_reach_redis_in_the_next_round() {
    let changes = [
        "state = 'PAUSED'",
        "state = 'ACTIVE'",
        "total_quantity = 3",
        "per_user_limit = 2",
        "opens_at = opens_at - INTERVAL 1 HOUR",
        "closes_at = closes_at + INTERVAL 1 HOUR",
        "state = 'CLOSED'",
    ];
    let test = CampaignTest::with_issued(10, 1..=3).await;
    for change in changes {
        test.execute(&format!("UPDATE coupons SET {change}")).await;
        assert!(!agree(&test).await, "{change}");
        test.reconcile().await;
        assert!(agree(&test).await, "{change}");
    }
    test.end().await;
}

/// A count above the issued claims is right while claims have no outcome.
#[tokio::test]
async fn unconfirmed_claims_are_no_difference() {
    let test = CampaignTest::with_accepted(10, 1..=4).await;
    let rounds = Rounds::new(&test);
    let claims = test.redis.keys.claims(FIRST, test.campaign.id);
    // A rebuild would drop this: no claim of MySQL or the stream has it.
    test.redis.client().hset::<(), _, _>(&claims, ("999", "mark")).await.expect("set");
    let begun = tokio::time::Instant::now();
    eventually("the counts were compared", Duration::from_secs(6), async || {
        rounds.run_one().await;
        begun.elapsed() > Duration::from_secs(3)
    })
    .await;
    assert!(test.redis.client().hexists::<bool, _, _>(&claims, "999").await.expect("read"));
    // A claim whose entry is lost has no outcome and never gets one: its slot is free again.
    test.redis.client().del::<(), _>(test.redis.keys.claim_stream(FIRST)).await.expect("deleted");
    let rounds = Rounds::new(&test);
    eventually("the slots are free", Duration::from_secs(5), async || {
        rounds.run_one().await;
        agree(&test).await
    })
    .await;
    test.end().await;
}

/// Redis returns to an older state, in which the campaign takes claims. MySQL does not issue them. What Redis had
/// accepted before the change is issued, and so is what an administrator assigns.
#[tokio::test]
async fn claims_accepted_on_older_terms_are_rejected_and_those_before_the_change_are_issued() {
    let past = clock::now() - TimeDelta::seconds(1);
    let closed_before = format!("closes_at = '{}'", past.format("%Y-%m-%d %H:%M:%S%.3f"));
    let cases = [
        ("state = 'PAUSED'", "CAMPAIGN_PAUSED", 1),
        ("state = 'CLOSED'", "CAMPAIGN_CLOSED", 0),
        (closed_before.as_str(), "CAMPAIGN_CLOSED", 1),
        ("opens_at = closes_at - INTERVAL 1 MINUTE", "CAMPAIGN_NOT_OPEN", 1),
    ];
    for (change, code, assigned) in cases {
        let test = CampaignTest::with_accepted(100, 1..=2).await;
        test.execute(&format!("UPDATE coupons SET {change}")).await;
        test.reconcile().await;
        let (changed, held) = compare(&test).await;
        assert!(held.different.is_empty(), "{change}");
        let since = changed.enforced_since.expect("enforced");
        // Redis returns to the older terms.
        campaign_update(&test.redis, &test.campaign).await.expect("redis").expect("held");
        eventually("redis accepts claims beyond the tolerance", Duration::from_secs(5), async || {
            clock::now() > since + CLOCK_TOLERANCE * 2
        })
        .await;
        test.accept(3..=5).await;
        let given = assign(&test.redis, FIRST, test.campaign.id, &[request(6)]).await.expect("redis").expect("held");
        assert!(matches!(given.decisions[..], [Decision::Accepted(_)]));
        test.work().await;
        assert_eq!(test.count("SELECT COUNT(*) FROM user_coupons WHERE user_id < 3").await, 2, "{change}");
        assert_eq!(test.count("SELECT COUNT(*) FROM user_coupons WHERE user_id IN (3, 4, 5)").await, 0, "{change}");
        assert_eq!(test.count("SELECT COUNT(*) FROM user_coupons WHERE user_id = 6").await, assigned, "{change}");
        let codes = test.texts("SELECT DISTINCT code FROM claim_rejections").await;
        assert_eq!(codes, [code], "{change}");
        assert_eq!(i64::from(test.claimed().await), 2 + assigned, "the slots returned");
        test.reconcile().await;
        let decided = test.decide([7]).await.expect("held");
        assert!(!matches!(decided.decisions[..], [Decision::Accepted(_)]), "{change}");
        test.end().await;
    }
}

/// Which count was wrong, and how many claims are revoked coupons, is in the log.
#[tokio::test]
async fn a_rebuild_logs_the_counts_that_it_corrects_with_the_revoked_coupons() {
    let capture = LogCapture::start();
    let test = CampaignTest::with_issued(10, 1..=3).await;
    test.execute("UPDATE user_coupons SET status = 'REVOKED' WHERE user_id = 2").await;
    let (campaign, _) = compare(&test).await;
    rebuild(&test.database, &test.redis, &campaign).await.expect("a rebuild").expect("no other one");
    // Tests of one process share the capture, and campaigns of different databases have the same ids.
    let is_logged = |message: &str, fields: &[(&str, &str)]| {
        let lines = capture.lines_with("coupon", &campaign.id.to_string());
        let has = |line: &LogLine, name: &str, value: &str| line.fields.get(name).is_some_and(|found| found == value);
        let mut lines = lines.iter().filter(|line| line.message == message);
        lines.any(|line| fields.iter().all(|(name, value)| has(line, name, value)))
    };
    assert!(is_logged("campaign counts corrected", &[("revoked_quantity", "0"), ("revocations", "1")]));
    assert!(is_logged("campaign rebuilt", &[("claimed", "3"), ("revoked", "1")]));
    test.end().await;
}
