use std::time::Duration;

use dibs_common::{
    clock,
    domain::claim::{Claim, ClaimOutcome},
    redis::{
        keys::ISSUANCE_GROUP,
        streams::{ClaimEntry, ClaimStream, Delivery},
    },
    testing::{FIRST, TestEnvironment, eventually},
};
use dibs_worker::issuance::{Consumer, ReclaimPolicy, confirm, return_seats};
use fred::interfaces::StreamsInterface as _;
use sqlx::Executor as _;
use tokio_util::sync::CancellationToken;

use crate::support::{IMPATIENT, accept, consumer, user, work};

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
        return_seats(&place.database, &place.redis, FIRST, &claims, &outcomes).await.expect("returned");
    }
    if steps >= 3 {
        let ids: Vec<String> = deliveries.iter().map(|delivery| delivery.id.clone()).collect();
        stream.acknowledge(&ids).await.expect("acknowledged");
    }
}

/// I3 and I4 when a worker dies between any two steps: another takes over, and nothing happens twice.
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
        let told = "SELECT SUM(JSON_LENGTH(payload, '$.issuances')) FROM outbox_events WHERE type = 'coupon.issued'";
        assert_eq!(place.count(told).await, 4, "died after step {steps}");
        let held = dibs_common::redis::campaign_state::counts(&place.redis, FIRST, campaign.id)
            .await
            .expect("redis")
            .expect("known");
        assert_eq!(held.claimed, 4, "died after step {steps}");
        place.end().await;
    }
}

#[tokio::test]
async fn a_dead_workers_entries_are_taken_over_in_time() {
    let place = TestEnvironment::new().await;
    let campaign = place.campaign(5).await;
    accept(&place, &campaign, 1..=5).await;
    die_after(&place, 0).await;
    let quick = ReclaimPolicy { min_idle: Duration::from_millis(300), poll_interval: Duration::from_millis(100) };
    let other = Consumer::join(&place.database, &place.redis, FIRST, "other".into(), quick).await.expect("joined");
    let stopping = CancellationToken::new();
    let working = tokio::spawn(other.run(stopping.clone()));
    eventually("the claims are issued", Duration::from_secs(5), async || {
        place.count("SELECT COUNT(*) FROM user_coupons").await == 5
    })
    .await;
    stopping.cancel();
    working.await.expect("drained");
    let usual = ReclaimPolicy::default();
    assert!(usual.min_idle + usual.poll_interval + Duration::from_secs(1) <= Duration::from_secs(15));
    place.end().await;
}

#[tokio::test]
async fn an_entry_that_cannot_be_understood_is_buried_after_five_attempts_and_blocks_nobody() {
    let place = TestEnvironment::new().await;
    let campaign = place.campaign(5).await;
    let key = place.redis.keys.claim_stream(FIRST);
    let fields = vec![("type", "claims.v9"), ("coupon", "1")];
    place.redis.client().xadd::<(), _, _, _, _>(&key, false, None::<()>, "*", fields).await.expect("added");
    accept(&place, &campaign, [1]).await;
    let worker = consumer(&place, "worker").await;
    for attempt in 1..=5 {
        let stream = ClaimStream::open(&place.redis, FIRST, "look".into()).await.expect("opened");
        assert_eq!(stream.lengths().await.expect("redis").1, 0, "not buried before attempt {attempt}");
        worker.run_once().await.expect("worked");
        assert_eq!(place.count("SELECT COUNT(*) FROM user_coupons").await, 1, "the other is issued at once");
    }
    let dead = place.redis.keys.dead_claims(FIRST);
    let letters: Vec<fred::types::Value> = place.redis.client().xrange(&dead, "-", "+", None).await.expect("read");
    let letter = format!("{letters:?}");
    assert_eq!(letters.len(), 1);
    for part in ["claims.v9", "unknown type", "attempts", "\"5\""] {
        assert!(letter.contains(part), "{part} in {letter}");
    }
    let pending: fred::types::Value =
        place.redis.client().xpending(&key, ISSUANCE_GROUP, ("-", "+", 10)).await.expect("pending");
    assert_eq!(pending.into_array().len(), 0);
    place.lose_redis().await;
    place.end().await;
}

/// An entry whose claims the database refuses for good fails alone; the others of its batch are confirmed.
#[tokio::test]
async fn an_entry_that_breaks_its_transaction_fails_alone() {
    let place = TestEnvironment::new().await;
    let (sound, broken) = (place.campaign(5).await, place.campaign(5).await);
    let breaking = format!("ALTER TABLE user_coupons ADD CONSTRAINT broken CHECK (coupon_id <> {})", broken.id);
    place.database.pool().execute(sqlx::AssertSqlSafe(breaking)).await.expect("altered");
    accept(&place, &sound, [1]).await;
    accept(&place, &broken, [1]).await;
    accept(&place, &sound, [2]).await;
    let worker = consumer(&place, "worker").await;
    worker.run_once().await.expect("worked");
    assert_eq!(place.count("SELECT COUNT(*) FROM user_coupons").await, 2);
    for _ in 2..=5 {
        worker.run_once().await.expect("worked");
    }
    let stream = ClaimStream::open(&place.redis, FIRST, "look".into()).await.expect("opened");
    assert_eq!(stream.lengths().await.expect("redis"), (0, 1));
    place.lose_redis().await;
    place.end().await;
}

#[tokio::test]
async fn a_batch_waits_for_the_database_and_is_confirmed_when_it_is_back() {
    let place = TestEnvironment::new().await;
    let campaign = place.campaign(5).await;
    let (settings, gate, _redis) = place.gated().await;
    let database = settings.database(4).expect("a pool");
    let worker = Consumer::join(&database, &place.redis, FIRST, "worker".into(), IMPATIENT).await.expect("joined");
    gate.shut();
    accept(&place, &campaign, 1..=5).await;
    let stopping = CancellationToken::new();
    let working = tokio::spawn(worker.run(stopping.clone()));
    let stream = ClaimStream::open(&place.redis, FIRST, "look".into()).await.expect("opened");
    tokio::time::timeout(Duration::from_secs(3), async {
        while place
            .redis
            .client()
            .xpending::<fred::types::Value, _, _, _>(
                place.redis.keys.claim_stream(FIRST),
                ISSUANCE_GROUP,
                ("-", "+", 10),
            )
            .await
            .expect("pending")
            .into_array()
            .is_empty()
        {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the worker has the entries in hand");
    assert_eq!(stream.lengths().await.expect("redis"), (1, 0));
    gate.open();
    eventually("the claims are issued", Duration::from_secs(3), async || {
        place.count("SELECT COUNT(*) FROM user_coupons").await == 5
    })
    .await;
    stopping.cancel();
    working.await.expect("drained");
    place.end().await;
}

#[tokio::test]
async fn a_worker_that_is_told_to_stop_ends_what_it_has_in_hand() {
    let place = TestEnvironment::new().await;
    let campaign = place.campaign(2000).await;
    for step in 0..8 {
        accept(&place, &campaign, step * 250 + 1..=step * 250 + 250).await;
    }
    let stopping = CancellationToken::new();
    let working = tokio::spawn(consumer(&place, "worker").await.run(stopping.clone()));
    eventually("it has begun", Duration::from_secs(5), async || {
        place.count("SELECT COUNT(*) FROM user_coupons").await > 0
    })
    .await;
    stopping.cancel();
    working.await.expect("drained");
    assert_eq!(place.count("SELECT COUNT(*) FROM user_coupons").await, 2000);
    let outcome = dibs_common::db::issuances::list_of_user(place.database.pool(), campaign.id, user(2000)).await;
    assert!(matches!(outcome.expect("read")[0].outcome, ClaimOutcome::Issued { .. }));
    place.end().await;
}
