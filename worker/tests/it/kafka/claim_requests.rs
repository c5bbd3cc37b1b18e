//! Claim requests from Kafka.

use chrono::TimeDelta;
use dibs_common::{
    clock, db,
    domain::{
        campaign::CampaignTerms,
        claim::{ClaimOutcome, ClaimRejectReason},
    },
    error::Error,
    identifiers::{CouponId, new_uuid},
    redis::{
        campaign_state,
        scripts::{CampaignCounts, campaign_put},
    },
    testing::{TestEnvironment, open_terms},
};
use dibs_worker::kafka::{CLAIM_REQUESTS, ClaimRequestConsumer, ClaimRequestHandler};

use super::{Brokers, LIMIT, handle, letters, live_and_die, request_consumer, wanted};
use crate::support::{user, work};

/// I1 and I2: a thousand requests of four hundred users for a hundred coupons, some twice with the same id, some
/// without one. The consumer dies when it has claimed, so all come again, which changes nothing.
#[tokio::test]
async fn i1_and_i2_a_burst_by_kafka_issues_each_coupon_once_however_often_requests_come() {
    let (brokers, environment) = (Brokers::new().await, TestEnvironment::new().await);
    let campaign = environment.campaign(100).await;
    let named: Vec<String> = (0..400).map(|_| new_uuid().to_string()).collect();
    let requests = (0..1_000_u64).map(|number| {
        let user = number % 400 + 1;
        let name = (number % 3 > 0).then(|| named[usize::try_from(number % 400).expect("few")].as_str());
        wanted(user, campaign.id, name)
    });
    brokers.produce(CLAIM_REQUESTS, requests.collect::<Vec<_>>()).await;
    Box::pin(live_and_die(
        &brokers,
        &[CLAIM_REQUESTS],
        ClaimRequestHandler::new(&environment.database, &environment.redis),
    ))
    .await;
    work(&environment).await;
    let mut consumer = request_consumer(&brokers, &environment);
    handle(&mut consumer, 1_000).await;
    work(&environment).await;
    environment
        .expect_counts([
            ("SELECT COUNT(*) FROM user_coupons", 100),
            ("SELECT COUNT(DISTINCT user_id) FROM user_coupons", 100),
            ("SELECT COUNT(*) FROM claim_rejections", 0),
        ])
        .await;
    let counts = campaign_state::counts(&environment.redis, campaign.partition, campaign.id)
        .await
        .expect("redis")
        .expect("held");
    assert_eq!(counts.claimed, 100);
    let both = "SELECT COUNT(*) FROM claim_refusals r JOIN user_coupons u ON u.user_coupon_id = r.claim_id";
    assert_eq!(environment.count(both).await, 0, "a claim has one outcome");
    let without = "SELECT 400 - COUNT(DISTINCT user_id) FROM (SELECT user_id FROM claim_refusals \
                   UNION SELECT user_id FROM user_coupons) AS decided";
    assert_eq!(environment.count(without).await, 0, "every user can read an outcome");
    assert_eq!(environment.count("SELECT COUNT(*) FROM claim_refusals WHERE code <> 'COUPON_EXHAUSTED'").await, 0);
    consumer.leave().await;
    environment.end().await;
}

/// A refused user can read why; a request that can never be a claim is a dead letter; those behind both are served.
#[tokio::test]
async fn i3_every_request_by_kafka_has_an_outcome_or_is_a_dead_letter() {
    let (brokers, environment) = (Brokers::new().await, TestEnvironment::new().await);
    let open = environment.campaign(10).await;
    let (hour, now) = (TimeDelta::hours(1), clock::now());
    let early = CampaignTerms { opens_at: now + hour, closes_at: now + hour * 2, ..open_terms() };
    let late = CampaignTerms { opens_at: now - hour * 2, closes_at: now - hour, ..open_terms() };
    let (early, late) = (environment.campaign_of(early).await, environment.campaign_of(late).await);
    let unknown = CouponId::try_from(4_711).expect("an id");
    let other = new_uuid().to_string();
    let malformed = ["oops", r#"{"userId": 1}"#, "[1, 2]", r#"{"userId": 1, "couponId": 1, "color": "red"}"#];
    let mut requests: Vec<_> = malformed.map(|value| ("1".to_owned(), value.as_bytes().to_vec())).into();
    requests.extend([
        wanted(1, unknown, None),
        wanted(1, early.id, Some("too-early")),
        wanted(2, late.id, Some(&other)),
        wanted(3, open.id, Some(&other)),
        (String::from("3"), vec![b' '; 300_000]),
    ]);
    brokers.produce(CLAIM_REQUESTS, requests).await;
    let mut consumer = request_consumer(&brokers, &environment);
    handle(&mut consumer, 9).await;
    work(&environment).await;
    assert_eq!(environment.count("SELECT COUNT(*) FROM user_coupons WHERE user_id = 3").await, 1);
    let long = "SELECT payload_bytes FROM dead_letters WHERE reason LIKE '%longer than%'";
    assert_eq!(environment.count(long).await, 300_000, "as long as it was, not as what was kept of it");
    let code = async |coupon, user| {
        let found = db::claim_refusals::find_latest(&environment.database.pool(), coupon, user).await.expect("looked");
        found.map(|claim| claim.outcome)
    };
    assert_eq!(code(early.id, user(1)).await, Some(ClaimOutcome::Rejected(ClaimRejectReason::CampaignNotOpen)));
    assert_eq!(code(late.id, user(2)).await, Some(ClaimOutcome::Rejected(ClaimRejectReason::CampaignClosed)));
    assert_eq!(code(open.id, user(3)).await, None);
    let pool = &environment.database.pool();
    let soon = clock::now() + hour;
    assert_eq!(db::claim_refusals::purge(pool, now - hour, 10).await.expect("purged"), 0, "they are kept for a while");
    assert_eq!(db::claim_refusals::purge(pool, soon, 1).await.expect("purged"), 1);
    assert_eq!(db::claim_refusals::purge(pool, soon, 10).await.expect("purged"), 1);
    let letters = letters(&environment).await;
    assert_eq!(letters.len(), 6, "{letters:?}");
    let topic = brokers.cluster().topic(CLAIM_REQUESTS);
    assert!(letters.iter().all(|(source, key, _)| source == CLAIM_REQUESTS && key.starts_with(&topic)), "{letters:?}");
    for part in ["couponId", "color", "an object", "no coupon 4711", "longer than"] {
        assert!(letters.iter().any(|(_, _, reason)| reason.contains(part)), "{part}: {letters:?}");
    }
    consumer.leave().await;
    environment.end().await;
}

/// I1 and I3: one id for requests of two users for two coupons, among others: each is a claim of its own, none takes
/// another's outcome, and none is lost with them; again, they are the same claims.
#[tokio::test]
async fn i1_and_i3_an_id_that_several_requests_share_takes_nothing_from_any() {
    let (brokers, environment) = (Brokers::new().await, TestEnvironment::new().await);
    let (one, other) = (environment.campaign(100).await, environment.campaign(100).await);
    let shared = new_uuid().to_string();
    for (round, requests) in [(1..31, 34), (31..36, 9)] {
        let mut requests_of_all: Vec<_> = round.map(|user| wanted(user, one.id, None)).collect();
        let sharing = [(40, one.id), (41, one.id), (40, other.id), (41, other.id)];
        requests_of_all.splice(3..3, sharing.map(|(user, coupon)| wanted(user, coupon, Some(&shared))));
        brokers.produce(CLAIM_REQUESTS, requests_of_all).await;
        let mut consumer = request_consumer(&brokers, &environment);
        handle(&mut consumer, requests).await;
        work(&environment).await;
        consumer.leave().await;
    }
    environment
        .expect_counts([
            ("SELECT COUNT(*) FROM user_coupons", 39),
            ("SELECT COUNT(DISTINCT coupon_id, user_id) FROM user_coupons", 39),
            ("SELECT COUNT(*) FROM user_coupons WHERE user_id IN (40, 41)", 4),
        ])
        .await;
    assert_eq!(environment.count("SELECT COUNT(*) FROM claim_rejections").await, 0);
    assert_eq!(letters(&environment).await, []);
    let counts = campaign_state::counts(&environment.redis, one.partition, one.id).await.expect("redis").expect("held");
    assert_eq!(counts.claimed, 37);
    environment.end().await;
}

/// I3: Redis is unreachable, or does not hold the campaign yet: requests wait, other campaigns go on, nothing is lost.
#[tokio::test]
async fn i3_requests_by_kafka_wait_for_redis_and_for_their_campaign() {
    let (brokers, environment) = (Brokers::new().await, TestEnvironment::new().await);
    let (settings, _database, proxy) = environment.behind_proxies().await;
    let redis = settings.redis(1).await.expect("redis");
    let held = environment.campaign(10).await;
    let absent = environment.campaign_in_database(open_terms()).await;
    // Of one key, so in one partition and in one read: a request that waits holds up what is read after it.
    let together = [wanted(1, absent.id, None), wanted(2, held.id, None)].map(|(_, value)| ("1".to_owned(), value));
    brokers.produce(CLAIM_REQUESTS, together).await;
    let mut consumer =
        ClaimRequestConsumer::join_claim_requests(&brokers.cluster(), &environment.database, &redis).expect("joined");
    let issued = "SELECT COUNT(*) FROM user_coupons";
    let deadline = tokio::time::Instant::now() + LIMIT;
    while environment.count(issued).await == 0 {
        assert!(tokio::time::Instant::now() < deadline, "the other campaign does not go on");
        let _waits = consumer.step().await;
        work(&environment).await;
    }
    let waits = consumer.step().await.expect_err("redis does not hold the campaign");
    assert!(matches!(waits, Error::CampaignUnavailable(coupon) if coupon == absent.id), "{waits}");
    proxy.shut();
    consumer.step().await.expect_err("redis is unreachable");
    proxy.open();
    campaign_put(&environment.redis, &absent, CampaignCounts::default()).await.expect("held now");
    while consumer.step().await.is_err() {
        assert!(tokio::time::Instant::now() < deadline, "requests are not taken when Redis is back");
    }
    work(&environment).await;
    assert_eq!(environment.count(issued).await, 2);
    assert_eq!(environment.count("SELECT COUNT(*) FROM claim_refusals").await, 0);
    consumer.leave().await;
    redis.close().await;
    environment.end().await;
}
