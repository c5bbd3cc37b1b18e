use std::time::Duration;

use dibs_common::{
    db,
    domain::campaign::CampaignTerms,
    redis::{
        campaign_state,
        scripts::{Decision, claim},
        streams::ClaimStream,
    },
    testing::{FIRST, TestEnvironment, eventually, open_terms},
};
use dibs_worker::{
    campaigns::{rebuild, reconcile_all},
    issuance::confirm,
};
use fred::interfaces::KeysInterface as _;
use sqlx::Executor as _;

use crate::support::{Running, accept, claims_of, consumer, request, user, work};

async fn decisions(
    place: &TestEnvironment,
    campaign: &dibs_common::domain::campaign::Campaign,
    users: &[u64],
) -> Vec<Decision> {
    let requests: Vec<_> = users.iter().copied().map(request).collect();
    let decided = claim(&place.redis, campaign.partition, campaign.id, "", &requests).await.expect("redis");
    decided.expect("a known campaign").decisions
}

/// I11: after a total loss of Redis it is rebuilt from the database, and nothing is oversold or issued twice.
#[tokio::test]
async fn i11_after_a_total_loss_of_redis_nothing_is_oversold() {
    let place = TestEnvironment::new().await;
    let campaign = place.campaign(5).await;
    accept(&place, &campaign, 1..=3).await;
    work(&place).await;
    place.lose_redis().await;
    assert!(claim(&place.redis, FIRST, campaign.id, "", &[request(9)]).await.expect("redis").is_none());
    reconcile_all(&place.database, &place.redis).await.expect("kept");
    let counts = campaign_state::counts(&place.redis, FIRST, campaign.id).await.expect("redis").expect("known");
    assert_eq!((counts.claimed, counts.sequence), (3, 3));
    let decided = decisions(&place, &campaign, &[3, 4, 5, 6]).await;
    assert!(matches!(
        decided[..],
        [Decision::AlreadyClaimed(_), Decision::Accepted(_), Decision::Accepted(_), Decision::Exhausted]
    ));
    work(&place).await;
    assert_eq!(place.count("SELECT COUNT(*) FROM user_coupons").await, 5);
    place.end().await;
}

#[tokio::test]
async fn a_rebuild_counts_what_is_still_on_the_stream() {
    let place = TestEnvironment::new().await;
    let campaign = place.campaign(5).await;
    accept(&place, &campaign, 1..=2).await;
    work(&place).await;
    let waiting = accept(&place, &campaign, 3..=4).await;
    let campaign_key = place.redis.keys.campaign(FIRST, campaign.id);
    let claims_key = place.redis.keys.claims(FIRST, campaign.id);
    place.redis.client().del::<(), _>(vec![campaign_key, claims_key]).await.expect("deleted");
    reconcile_all(&place.database, &place.redis).await.expect("kept");
    let decided = decisions(&place, &campaign, &[3, 5, 6]).await;
    let [Decision::AlreadyClaimed(first), Decision::Accepted(_), Decision::Exhausted] = decided[..] else {
        panic!("{decided:?}");
    };
    assert_eq!(first.claim_id, waiting[0]);
    work(&place).await;
    assert_eq!(place.count("SELECT COUNT(*) FROM user_coupons").await, 5);
    place.end().await;
}

/// A claim that is refused while its campaign is being rebuilt returns its slot in the end.
#[tokio::test]
async fn a_rejection_during_a_rebuild_returns_its_slot_later() {
    let place = TestEnvironment::new().await;
    let campaign = place.campaign(5).await;
    accept(&place, &campaign, 1..=2).await;
    place.database.pool().execute("UPDATE coupons SET total_quantity = 1").await.expect("lowered");
    campaign_state::delete(&place.redis, FIRST, campaign.id).await.expect("forgotten");
    consumer(&place, "worker").await.run_once().await;
    let stream = ClaimStream::open(&place.redis, FIRST, "look".into()).await.expect("opened");
    assert_eq!(stream.len().await.expect("redis"), 1, "the entry stays until the slot can return");
    rebuild(&place.database, &place.redis, &campaign).await.expect("rebuilt");
    work(&place).await;
    let counts = campaign_state::counts(&place.redis, FIRST, campaign.id).await.expect("redis").expect("known");
    assert_eq!(counts.claimed, 1);
    place.end().await;
}

#[tokio::test]
async fn rebuilding_again_and_at_once_says_the_same() {
    let place = TestEnvironment::new().await;
    let campaign = place.campaign_of(CampaignTerms { total_quantity: 9000, per_user_limit: 3, ..open_terms() }).await;
    for step in 0..12 {
        // Users of one, two and three claims, over more than one page of rows.
        accept(&place, &campaign, step * 500 + 1..=step * 500 + 500).await;
        accept(&place, &campaign, (step * 500 + 1..=step * 500 + 500).filter(|user| user % 3 == 0)).await;
        accept(&place, &campaign, (step * 500 + 1..=step * 500 + 500).filter(|user| user % 9 == 0)).await;
    }
    work(&place).await;
    let before = campaign_state::counts(&place.redis, FIRST, campaign.id).await.expect("redis");
    place.lose_redis().await;
    let (one, other) = tokio::join!(
        rebuild(&place.database, &place.redis, &campaign),
        rebuild(&place.database, &place.redis, &campaign)
    );
    one.and(other).expect("rebuilt");
    assert_eq!(campaign_state::counts(&place.redis, FIRST, campaign.id).await.expect("redis"), before);
    rebuild(&place.database, &place.redis, &campaign).await.expect("rebuilt");
    assert_eq!(campaign_state::counts(&place.redis, FIRST, campaign.id).await.expect("redis"), before);
    assert_eq!(campaign_state::holders(&place.redis, FIRST, campaign.id).await.expect("redis").len(), 6000);
    assert!(place.keys().await.iter().all(|key| !key.contains("staged")));
    place.end().await;
}

/// Redis came back with older data: it counts fewer claims than are issued. Until that is seen, claims that it
/// should have refused get an outcome that says why not.
#[tokio::test]
async fn a_redis_that_forgot_a_part_is_found_out_and_never_issues_twice() {
    let place = TestEnvironment::new().await;
    let campaign = place.campaign(3).await;
    accept(&place, &campaign, 1..=3).await;
    work(&place).await;
    place.lose_redis().await;
    dibs_common::redis::scripts::campaign_put(
        &place.redis,
        &campaign,
        dibs_common::redis::scripts::CampaignCounts::default(),
    )
    .await
    .expect("put");
    accept(&place, &campaign, [1, 9]).await;
    work(&place).await;
    let codes: Vec<String> = sqlx::query_scalar("SELECT code FROM claim_rejections ORDER BY user_id")
        .fetch_all(&place.database.pool())
        .await
        .expect("read");
    assert_eq!(codes, ["COUPON_ALREADY_ISSUED", "COUPON_EXHAUSTED"]);
    reconcile_all(&place.database, &place.redis).await.expect("kept");
    let counts = campaign_state::counts(&place.redis, FIRST, campaign.id).await.expect("redis").expect("known");
    assert_eq!(counts.claimed, 3);
    assert_eq!(place.count("SELECT COUNT(*) FROM user_coupons").await, 3);
    place.end().await;
}

#[tokio::test]
async fn the_consumer_group_is_made_again_when_redis_has_lost_it() {
    let place = TestEnvironment::new().await;
    let campaign = place.campaign(5).await;
    let worker = Running::start(claims_of(&place));
    accept(&place, &campaign, [1]).await;
    eventually("the first is issued", Duration::from_secs(5), async || {
        place.count("SELECT COUNT(*) FROM user_coupons").await == 1
    })
    .await;
    place.lose_redis().await;
    reconcile_all(&place.database, &place.redis).await.expect("kept");
    accept(&place, &campaign, [2]).await;
    eventually("the second is issued", Duration::from_secs(5), async || {
        place.count("SELECT COUNT(*) FROM user_coupons").await == 2
    })
    .await;
    worker.stop().await;
    place.end().await;
}

#[tokio::test]
async fn a_worker_that_was_late_by_a_loss_does_not_issue_beyond_the_limit() {
    let place = TestEnvironment::new().await;
    let campaign = place.campaign(5).await;
    accept(&place, &campaign, [1]).await;
    let late = ClaimStream::unanswered(&place.redis, FIRST, campaign.id).await.expect("redis");
    place.lose_redis().await;
    reconcile_all(&place.database, &place.redis).await.expect("kept");
    accept(&place, &campaign, [1]).await;
    work(&place).await;
    let plan = confirm(&place.database, &late, dibs_common::clock::now()).await.expect("confirmed");
    assert_eq!(plan.issuances.len(), 0);
    let claims = db::issuances::list_of_user(&place.database.pool(), campaign.id, user(1)).await.expect("read");
    assert_eq!(claims.len(), 2, "one issued, one rejected: each has its outcome");
    place.end().await;
}
