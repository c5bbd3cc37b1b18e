use std::time::Duration;

use dibs_common::{
    clock,
    dead_letters::drop_source,
    domain::{
        claim::{Claim, ClaimOutcome},
        dead_letter::CLAIMS,
    },
    redis::{
        BLOCK,
        keys::ISSUANCE_GROUP,
        streams::{ClaimEntry, ClaimStream, Delivery},
    },
    rejections::return_slots,
    testing::{FIRST, TestEnvironment, eventually},
};
use dibs_worker::{
    issuance::{claim_worker, confirm},
    streams::ReclaimPolicy,
};
use fred::interfaces::StreamsInterface as _;
use sqlx::Executor as _;

use crate::{
    dead_letters::{letters, only_letter},
    support::{IMPATIENT, Running, accept, claims_of, consumer, expect_reclaimed_in_time, user, work},
};

/// Entries that were delivered and are not acknowledged.
async fn pending(place: &TestEnvironment) -> usize {
    let (key, page) = (place.redis.keys.claim_stream(FIRST), ("-", "+", 10));
    let pending: fred::types::Value = place.redis.client().xpending(key, ISSUANCE_GROUP, page).await.expect("pending");
    pending.into_array().len()
}

fn claims(deliveries: &[Delivery<ClaimEntry>]) -> Vec<Claim> {
    let entries = deliveries.iter().map(|delivery| delivery.entry.as_ref().expect("decode"));
    entries.flat_map(|entry| entry.claims.iter().cloned()).collect()
}

/// The steps of a worker, in their order; a worker dies after so many of them.
async fn die_after(place: &TestEnvironment, steps: usize) {
    let stream = ClaimStream::open(&place.redis, FIRST, "mortal".into()).await.expect("opened");
    let deliveries = stream.read(500).await.expect("read");
    let claims = claims(&deliveries);
    let mut outcomes = Vec::new();
    if steps >= 1 {
        outcomes = confirm(&place.database, &claims, clock::now()).await.expect("confirmed").outcomes;
    }
    if steps >= 2 {
        return_slots(&place.database, &place.redis, FIRST, &claims, &outcomes).await.expect("returned");
    }
    if steps >= 3 {
        let ids: Vec<String> = deliveries.iter().map(|delivery| delivery.id.clone()).collect();
        stream.acknowledge(&ids).await.expect("acknowledged");
    }
}

/// I3 and I4 when a worker dies between any two steps: another reclaims its entries, and nothing happens twice.
#[tokio::test]
async fn i4_a_death_between_any_two_steps_changes_nothing() {
    for steps in 0..=3 {
        let place = TestEnvironment::new().await;
        let campaign = place.campaign(5).await;
        accept(&place, &campaign, 1..=5).await;
        place.database.pool().execute("UPDATE coupons SET total_quantity = 4").await.expect("lowered");
        die_after(&place, steps).await;
        work(&place).await;
        assert_eq!(place.count("SELECT COUNT(*) FROM user_coupons").await, 4, "died after step {steps}");
        assert_eq!(place.count("SELECT COUNT(*) FROM claim_rejections").await, 1, "died after step {steps}");
        assert_eq!(place.count("SELECT issued_quantity FROM coupons").await, 4, "died after step {steps}");
        let events = "SELECT SUM(JSON_LENGTH(payload, '$.issuances')) FROM outbox_events WHERE type = 'coupon.issued'";
        assert_eq!(place.count(events).await, 4, "died after step {steps}");
        let held = dibs_common::redis::campaign_state::counts(&place.redis, FIRST, campaign.id)
            .await
            .expect("redis")
            .expect("known");
        assert_eq!(held.claimed, 4, "died after step {steps}");
        place.end().await;
    }
}

#[tokio::test]
async fn a_dead_workers_entries_are_reclaimed_in_time() {
    let place = TestEnvironment::new().await;
    let campaign = place.campaign(5).await;
    accept(&place, &campaign, 1..=5).await;
    let worker = |policy| claim_worker(&place.database, &place.redis, FIRST, policy);
    expect_reclaimed_in_time(Box::pin(die_after(&place, 0)), worker, async || {
        place.count("SELECT COUNT(*) FROM user_coupons").await == 5
    })
    .await;
    let usual = ReclaimPolicy::default();
    assert!(usual.min_idle + usual.poll_interval + BLOCK <= Duration::from_secs(15));
    place.end().await;
}

#[tokio::test]
async fn an_entry_that_cannot_be_decoded_is_dead_lettered_after_five_attempts_and_blocks_no_other() {
    let place = TestEnvironment::new().await;
    let campaign = place.campaign(5).await;
    let key = place.redis.keys.claim_stream(FIRST);
    let fields = vec![("type", "claims.v9"), ("coupon", "1")];
    place.redis.client().xadd::<(), _, _, _, _>(&key, false, None::<()>, "*", fields).await.expect("added");
    accept(&place, &campaign, [1]).await;
    let mut worker = consumer(&place, "worker").await;
    for attempt in 1..=5 {
        assert_eq!(letters(&place, CLAIMS).await, [], "before attempt {attempt}");
        worker.run_once().await;
        assert_eq!(place.count("SELECT COUNT(*) FROM user_coupons").await, 1, "the other is issued at once");
    }
    let letter = only_letter(&place, CLAIMS).await;
    assert_eq!((letter.attempts, letter.kind.as_str()), (5, "unknown"));
    assert!(letter.payload.contains("claims.v9") && letter.reason.contains("unknown type"), "{letter:?}");
    assert_eq!(pending(&place).await, 0);
    drop_source(&place.database, &place.redis, CLAIMS, clock::now()).await.expect("dropped");
    place.end().await;
}

#[tokio::test]
async fn a_batch_waits_for_the_database_and_is_confirmed_when_it_is_back() {
    let place = TestEnvironment::new().await;
    let campaign = place.campaign(5).await;
    let (settings, gate, _redis) = place.behind_proxies().await;
    let database = settings.database(4).expect("a pool");
    gate.shut();
    accept(&place, &campaign, 1..=5).await;
    let worker = Running::start(claim_worker(&database, &place.redis, FIRST, IMPATIENT));
    eventually("an attempt failed", Duration::from_secs(3), async || gate.refused() > 0).await;
    assert_eq!((pending(&place).await, place.count("SELECT COUNT(*) FROM user_coupons").await), (1, 0));
    gate.open();
    eventually("the claims are issued", Duration::from_secs(3), async || {
        place.count("SELECT COUNT(*) FROM user_coupons").await == 5
    })
    .await;
    worker.stop().await;
    place.end().await;
}

#[tokio::test]
async fn a_worker_that_is_stopped_finishes_what_is_in_flight() {
    let place = TestEnvironment::new().await;
    let campaign = place.campaign(2000).await;
    for step in 0..8 {
        accept(&place, &campaign, step * 250 + 1..=step * 250 + 250).await;
    }
    let worker = Running::start(claims_of(&place));
    eventually("it has begun", Duration::from_secs(5), async || {
        place.count("SELECT COUNT(*) FROM user_coupons").await > 0
    })
    .await;
    worker.stop().await;
    assert_eq!(place.count("SELECT COUNT(*) FROM user_coupons").await, 2000);
    let outcome = dibs_common::db::issuances::list_of_user(&place.database.pool(), campaign.id, user(2000)).await;
    assert!(matches!(outcome.expect("read")[0].outcome, ClaimOutcome::Issued { .. }));
    place.end().await;
}
