use std::time::Duration;

use dibs_common::{
    clock,
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

use crate::{
    campaign_test::CampaignTest,
    dead_letters::{dropped, letters, only_letter},
    support::{IMPATIENT, Running, claims_of, consumer, expect_reclaimed_in_time},
};

/// Entries that were delivered and are not acknowledged.
async fn pending(environment: &TestEnvironment) -> usize {
    let (key, page) = (environment.redis.keys.claim_stream(FIRST), ("-", "+", 10));
    let pending: fred::types::Value =
        environment.redis.client().xpending(key, ISSUANCE_GROUP, page).await.expect("pending");
    pending.into_array().len()
}

fn claims(deliveries: &[Delivery<ClaimEntry>]) -> Vec<Claim> {
    let entries = deliveries.iter().map(|delivery| delivery.entry.as_ref().expect("decode"));
    entries.flat_map(|entry| entry.claims.iter().cloned()).collect()
}

/// The steps of a worker, in their order; a worker dies after so many of them.
async fn die_after(environment: &TestEnvironment, steps: usize) {
    let stream = ClaimStream::open(&environment.redis, FIRST, "mortal".into()).await.expect("opened");
    let deliveries = stream.read(500).await.expect("read");
    let claims = claims(&deliveries);
    let mut outcomes = Vec::new();
    if steps >= 1 {
        outcomes = confirm(&environment.database, &claims, clock::now()).await.expect("confirmed").outcomes;
    }
    if steps >= 2 {
        return_slots(&environment.database, &environment.redis, FIRST, &claims, &outcomes).await.expect("returned");
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
        let test = CampaignTest::with_accepted(5, 1..=5).await;
        test.set_total(4).await;
        die_after(&test, steps).await;
        test.work().await;
        let counted = (test.issued().await, test.issued_quantity().await, test.rejected().await);
        assert_eq!(counted, (4, 4, 1), "died after step {steps}");
        let events = "SELECT SUM(JSON_LENGTH(payload, '$.issuances')) FROM outbox_events WHERE type = 'coupon.issued'";
        assert_eq!(test.count(events).await, 4, "died after step {steps}");
        assert_eq!(test.claimed().await, 4, "died after step {steps}");
        test.end().await;
    }
}

#[tokio::test]
async fn a_dead_workers_entries_are_reclaimed_in_time() {
    let test = CampaignTest::with_accepted(5, 1..=5).await;
    let worker = |policy| claim_worker(&test.database, &test.redis, FIRST, policy);
    expect_reclaimed_in_time(Box::pin(die_after(&test, 0)), worker, async || test.issued().await == 5).await;
    let usual = ReclaimPolicy::default();
    assert!(usual.min_idle + usual.poll_interval + BLOCK <= Duration::from_secs(15));
    test.end().await;
}

#[tokio::test]
async fn an_entry_that_cannot_be_decoded_is_dead_lettered_after_five_attempts_and_blocks_no_other() {
    let test = CampaignTest::new(5).await;
    let key = test.redis.keys.claim_stream(FIRST);
    let fields = vec![("type", "claims.v9"), ("coupon", "1")];
    test.redis.client().xadd::<(), _, _, _, _>(&key, false, None::<()>, "*", fields).await.expect("added");
    test.accept([1]).await;
    let mut worker = consumer(&test, "worker").await;
    for attempt in 1..=5 {
        assert_eq!(letters(&test, CLAIMS).await, [], "before attempt {attempt}");
        worker.run_once().await;
        assert_eq!(test.issued().await, 1, "the other is issued at once");
    }
    let letter = only_letter(&test, CLAIMS).await;
    assert_eq!((letter.attempts, letter.kind.as_str()), (5, "unknown"));
    assert!(letter.payload.contains("claims.v9") && letter.reason.contains("unknown type"), "{letter:?}");
    assert_eq!(pending(&test).await, 0);
    dropped(&test, CLAIMS).await;
    test.end().await;
}

#[tokio::test]
async fn a_batch_waits_for_the_database_and_is_confirmed_when_it_is_back() {
    let test = CampaignTest::new(5).await;
    let (settings, proxy, _redis) = test.behind_proxies().await;
    let database = settings.database(4).expect("a pool");
    proxy.shut();
    test.accept(1..=5).await;
    let worker = Running::start(claim_worker(&database, &test.redis, FIRST, IMPATIENT));
    eventually("an attempt failed", Duration::from_secs(3), async || proxy.refused() > 0).await;
    assert_eq!((pending(&test).await, test.issued().await), (1, 0));
    proxy.open();
    test.eventually_issued(5).await;
    worker.stop().await;
    test.end().await;
}

#[tokio::test]
async fn a_worker_that_is_stopped_finishes_what_is_in_flight() {
    let test = CampaignTest::new(2000).await;
    for step in 0..8 {
        test.accept(step * 250 + 1..=step * 250 + 250).await;
    }
    let worker = Running::start(claims_of(&test));
    eventually("it has begun", Duration::from_secs(5), async || test.issued().await > 0).await;
    worker.stop().await;
    assert_eq!(test.issued().await, 2000);
    assert!(matches!(test.outcomes(2000).await[..], [ClaimOutcome::Issued { .. }]));
    test.end().await;
}
