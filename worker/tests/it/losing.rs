use dibs_common::{
    clock,
    domain::campaign::CampaignTerms,
    redis::{
        campaign_state,
        scripts::{CampaignCounts, Decision, campaign_put},
        streams::ClaimStream,
    },
    testing::{FIRST, open_terms},
};
use dibs_worker::{campaigns::rebuild, issuance::confirm};
use fred::interfaces::KeysInterface as _;

use crate::{
    campaign_test::CampaignTest,
    support::{Running, claims_of, consumer},
};

/// I11: after a total loss of Redis it is rebuilt from the database, and nothing is oversold or issued twice.
#[tokio::test]
async fn i11_after_a_total_loss_of_redis_nothing_is_oversold() {
    let test = CampaignTest::with_issued(5, 1..=3).await;
    test.lose_redis().await;
    assert!(test.decide([9]).await.is_none());
    test.reconcile().await;
    let held = test.held().await.expect("known");
    assert_eq!((held.claimed, held.sequence), (3, 3));
    let decided = test.decide([3, 4, 5, 6]).await.expect("known").decisions;
    assert!(matches!(
        decided[..],
        [Decision::AlreadyClaimed(_), Decision::Accepted(_), Decision::Accepted(_), Decision::Exhausted]
    ));
    test.end_with_issued(5).await;
}

#[tokio::test]
async fn a_rebuild_counts_what_is_still_on_the_stream() {
    let test = CampaignTest::with_issued(5, 1..=2).await;
    let waiting = test.accept(3..=4).await;
    let campaign_key = test.redis.keys.campaign(FIRST, test.campaign.id);
    let claims_key = test.redis.keys.claims(FIRST, test.campaign.id);
    test.redis.client().del::<(), _>(vec![campaign_key, claims_key]).await.expect("deleted");
    test.reconcile().await;
    let decided = test.decide([3, 5, 6]).await.expect("known").decisions;
    let [Decision::AlreadyClaimed(first), Decision::Accepted(_), Decision::Exhausted] = decided[..] else {
        panic!("{decided:?}");
    };
    assert_eq!(first.claim_id, waiting[0]);
    test.end_with_issued(5).await;
}

/// A claim that is refused while its campaign is being rebuilt returns its slot in the end.
#[tokio::test]
async fn a_rejection_during_a_rebuild_returns_its_slot_later() {
    let test = CampaignTest::with_accepted(5, 1..=2).await;
    test.set_total(1).await;
    campaign_state::delete(&test.redis, FIRST, test.campaign.id).await.expect("forgotten");
    consumer(&test, "worker").await.run_once().await;
    let stream = ClaimStream::open(&test.redis, FIRST, "look".into()).await.expect("opened");
    assert_eq!(stream.len().await.expect("redis"), 1, "the entry stays until the slot can return");
    test.rebuild().await;
    test.work().await;
    assert_eq!(test.claimed().await, 1);
    test.end().await;
}

#[tokio::test]
async fn rebuilding_again_and_at_once_says_the_same() {
    let test = CampaignTest::of(CampaignTerms { total_quantity: 9000, per_user_limit: 3, ..open_terms() }).await;
    for step in 0..12 {
        // Users of one, two and three claims, over more than one page of rows.
        test.accept(step * 500 + 1..=step * 500 + 500).await;
        test.accept((step * 500 + 1..=step * 500 + 500).filter(|user| user % 3 == 0)).await;
        test.accept((step * 500 + 1..=step * 500 + 500).filter(|user| user % 9 == 0)).await;
    }
    test.work().await;
    let before = test.held().await;
    test.lose_redis().await;
    let (one, other) = tokio::join!(
        rebuild(&test.database, &test.redis, &test.campaign),
        rebuild(&test.database, &test.redis, &test.campaign)
    );
    one.and(other).expect("rebuilt");
    assert_eq!(test.held().await, before);
    test.rebuild().await;
    assert_eq!(test.held().await, before);
    assert_eq!(campaign_state::holders(&test.redis, FIRST, test.campaign.id).await.expect("redis").len(), 6000);
    assert!(test.keys().await.iter().all(|key| !key.contains("staged")));
    test.end().await;
}

/// Redis came back with older data: it counts fewer claims than are issued. Until that is seen, claims that it
/// should have refused get an outcome that says why not.
#[tokio::test]
async fn a_redis_that_forgot_a_part_is_found_out_and_never_issues_twice() {
    let test = CampaignTest::with_issued(3, 1..=3).await;
    test.lose_redis().await;
    campaign_put(&test.redis, &test.campaign, CampaignCounts::default()).await.expect("put");
    test.accept([1, 9]).await;
    test.work().await;
    let codes = test.texts("SELECT code FROM claim_rejections ORDER BY user_id").await;
    assert_eq!(codes, ["COUPON_ALREADY_ISSUED", "COUPON_EXHAUSTED"]);
    test.reconcile().await;
    assert_eq!((i64::from(test.claimed().await), test.issued().await), (3, 3));
    test.end().await;
}

#[tokio::test]
async fn the_consumer_group_is_made_again_when_redis_has_lost_it() {
    let test = CampaignTest::new(5).await;
    let worker = Running::start(claims_of(&test));
    test.accept([1]).await;
    test.eventually_issued(1).await;
    test.lose_redis().await;
    test.reconcile().await;
    test.accept([2]).await;
    test.eventually_issued(2).await;
    worker.stop().await;
    test.end().await;
}

#[tokio::test]
async fn a_worker_that_was_late_by_a_loss_does_not_issue_beyond_the_limit() {
    let test = CampaignTest::with_accepted(5, [1]).await;
    let late = test.unanswered().await;
    test.lose_redis().await;
    test.reconcile().await;
    test.accept([1]).await;
    test.work().await;
    let plan = confirm(&test.database, &late, clock::now()).await.expect("confirmed");
    assert_eq!(plan.issuances.len(), 0);
    assert_eq!(test.outcomes(1).await.len(), 2, "one issued, one rejected: each has its outcome");
    test.end().await;
}
