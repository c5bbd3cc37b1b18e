//! Redis and MySQL are compared in both directions, and MySQL is right.

use std::time::Duration;

use chrono::TimeDelta;
use dibs_common::{
    clock, db,
    domain::{campaign::Campaign, claim::CLOCK_TOLERANCE},
    redis::{
        campaign_state,
        scripts::{Decision, assign, claim},
    },
    testing::{FIRST, TestEnvironment, eventually},
};
use dibs_worker::campaigns::{Reconciler, reconcile_all};
use fred::interfaces::{HashesInterface as _, KeysInterface as _};

use tokio::sync::Mutex;

use crate::support::{accept, request, work};

async fn set_in_redis(place: &TestEnvironment, campaign: &Campaign, field: &str, value: &str) {
    let key = place.redis.keys.campaign(FIRST, campaign.id);
    place.redis.client().hset::<(), _, _>(key, (field, value)).await.expect("set");
}

/// Whether Redis holds the terms that MySQL has, and counts the issued claims.
async fn agree(place: &TestEnvironment, campaign: &Campaign) -> bool {
    let campaign = db::campaigns::find(&place.database.pool(), campaign.id).await.expect("read").expect("there");
    let held = campaign_state::compare(&place.redis, &campaign).await.expect("redis");
    let counts = held.counts.is_some_and(|(claimed, sequence)| claimed == campaign.issued && sequence >= claimed);
    held.different.is_empty() && counts && campaign.enforced_since.is_some()
}

#[tokio::test]
async fn each_field_that_changes_in_redis_is_restored_within_5_s() {
    let place = TestEnvironment::new().await;
    let campaign = place.campaign(10).await;
    accept(&place, &campaign, 1..=3).await;
    work(&place).await;
    let reconciler = Mutex::new(Reconciler::new(place.database.clone(), place.redis.clone()));
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
        set_in_redis(&place, &campaign, field, value).await;
        assert!(!agree(&place, &campaign).await, "{field} {value}");
        eventually(field, Duration::from_secs(5), async || {
            reconciler.lock().await.round().await.expect("reconciled");
            agree(&place, &campaign).await
        })
        .await;
    }
    for field in ["state", "opens_at", "closes_at", "total", "limit", "claimed", "sequence"] {
        let key = place.redis.keys.campaign(FIRST, campaign.id);
        place.redis.client().hdel::<(), _, _>(key, field).await.expect("deleted");
        reconciler.lock().await.round().await.expect("reconciled");
        assert!(agree(&place, &campaign).await, "{field} was missing");
    }
    place.end().await;
}

#[tokio::test]
async fn terms_that_an_administrator_changes_in_mysql_reach_redis_in_the_next_round() {
    let place = TestEnvironment::new().await;
    let campaign = place.campaign(10).await;
    accept(&place, &campaign, 1..=3).await;
    work(&place).await;
    for change in [
        "state = 'PAUSED'",
        "state = 'ACTIVE'",
        "total_quantity = 3",
        "per_user_limit = 2",
        "opens_at = opens_at - INTERVAL 1 HOUR",
        "closes_at = closes_at + INTERVAL 1 HOUR",
        "state = 'CLOSED'",
    ] {
        place.execute(&format!("UPDATE coupons SET {change}")).await;
        assert!(!agree(&place, &campaign).await, "{change}");
        reconcile_all(&place.database, &place.redis).await.expect("reconciled");
        assert!(agree(&place, &campaign).await, "{change}");
    }
    place.end().await;
}

/// A count above the issued claims is right while claims have no outcome.
#[tokio::test]
async fn unconfirmed_claims_are_no_difference() {
    let place = TestEnvironment::new().await;
    let campaign = place.campaign(10).await;
    accept(&place, &campaign, 1..=4).await;
    let reconciler = Mutex::new(Reconciler::new(place.database.clone(), place.redis.clone()));
    let claims = place.redis.keys.claims(FIRST, campaign.id);
    // A rebuild would drop this: no claim of MySQL or the stream has it.
    place.redis.client().hset::<(), _, _>(&claims, ("999", "mark")).await.expect("set");
    let begun = tokio::time::Instant::now();
    eventually("the counts were compared", Duration::from_secs(6), async || {
        reconciler.lock().await.round().await.expect("reconciled");
        begun.elapsed() > Duration::from_secs(3)
    })
    .await;
    assert!(place.redis.client().hexists::<bool, _, _>(&claims, "999").await.expect("read"));
    // A claim whose entry is lost has no outcome and never gets one: its slot is free again.
    place.redis.client().del::<(), _>(place.redis.keys.claim_stream(FIRST)).await.expect("deleted");
    let reconciler = Mutex::new(Reconciler::new(place.database.clone(), place.redis.clone()));
    eventually("the slots are free", Duration::from_secs(5), async || {
        reconciler.lock().await.round().await.expect("reconciled");
        agree(&place, &campaign).await
    })
    .await;
    place.end().await;
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
        let place = TestEnvironment::new().await;
        let campaign = place.campaign(100).await;
        accept(&place, &campaign, 1..=2).await;
        place.execute(&format!("UPDATE coupons SET {change}")).await;
        reconcile_all(&place.database, &place.redis).await.expect("reconciled");
        assert!(agree_on_terms(&place, &campaign).await, "{change}");
        let changed = db::campaigns::find(&place.database.pool(), campaign.id).await.expect("read").expect("there");
        let since = changed.enforced_since.expect("enforced");
        // Redis returns to the older terms.
        dibs_common::redis::scripts::campaign_update(&place.redis, &campaign).await.expect("redis").expect("held");
        eventually("redis accepts claims beyond the tolerance", Duration::from_secs(5), async || {
            clock::now() > since + CLOCK_TOLERANCE * 2
        })
        .await;
        accept(&place, &campaign, 3..=5).await;
        let given = assign(&place.redis, FIRST, campaign.id, &[request(6)]).await.expect("redis").expect("held");
        assert!(matches!(given.decisions[..], [Decision::Accepted(_)]));
        work(&place).await;
        assert_eq!(place.count("SELECT COUNT(*) FROM user_coupons WHERE user_id < 3").await, 2, "{change}");
        assert_eq!(place.count("SELECT COUNT(*) FROM user_coupons WHERE user_id IN (3, 4, 5)").await, 0, "{change}");
        assert_eq!(place.count("SELECT COUNT(*) FROM user_coupons WHERE user_id = 6").await, assigned, "{change}");
        let codes = place.texts("SELECT DISTINCT code FROM claim_rejections").await;
        assert_eq!(codes, [code], "{change}");
        let counts = campaign_state::counts(&place.redis, FIRST, campaign.id).await.expect("redis").expect("held");
        assert_eq!(i64::from(counts.claimed), 2 + assigned, "the slots returned");
        reconcile_all(&place.database, &place.redis).await.expect("reconciled");
        let decided = claim(&place.redis, FIRST, campaign.id, "", &[request(7)]).await.expect("redis").expect("held");
        assert!(!matches!(decided.decisions[..], [Decision::Accepted(_)]), "{change}");
        place.end().await;
    }
}

async fn agree_on_terms(place: &TestEnvironment, campaign: &Campaign) -> bool {
    let campaign = db::campaigns::find(&place.database.pool(), campaign.id).await.expect("read").expect("there");
    campaign_state::compare(&place.redis, &campaign).await.expect("redis").different.is_empty()
}
