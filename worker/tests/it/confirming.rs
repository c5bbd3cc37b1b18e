use dibs_common::{
    clock,
    db::{self, owned_coupons::OwnedCouponsFilter},
    domain::{
        campaign::{CampaignTerms, Validity},
        claim::{ClaimOutcome, ClaimRejectReason},
    },
    redis::{campaign_state, scripts::claim},
    testing::{FIRST, TestEnvironment, open_terms},
};
use dibs_worker::issuance::confirm;
use sqlx::Executor as _;

use crate::support::{accept, consumer, request, user, work};

/// I1: issued never exceeds the total quantity, also when Redis accepted more than the database has.
#[tokio::test]
async fn i1_the_database_never_issues_more_than_the_total_and_the_slot_returns() {
    let place = TestEnvironment::new().await;
    let campaign = place.campaign(5).await;
    accept(&place, &campaign, 1..=5).await;
    let lowered = format!("UPDATE coupons SET total_quantity = 3 WHERE coupon_id = {}", campaign.id);
    place.database.pool().execute(sqlx::AssertSqlSafe(lowered)).await.expect("lowered");
    work(&place).await;
    assert_eq!(place.count("SELECT COUNT(*) FROM user_coupons").await, 3);
    assert_eq!(place.count("SELECT issued_quantity FROM coupons").await, 3);
    assert_eq!(place.count("SELECT rejected_quantity FROM coupons").await, 2);
    let counts = campaign_state::counts(&place.redis, FIRST, campaign.id).await.expect("redis").expect("known");
    assert_eq!(counts.claimed, 3, "two slots returned");
    let refused = db::issuances::list_of_user(&place.database.pool(), campaign.id, user(5)).await.expect("read");
    assert_eq!(refused[0].outcome, ClaimOutcome::Rejected(ClaimRejectReason::CouponExhausted));
    place.end().await;
}

/// I2: the table itself refuses a second coupon of one user.
#[tokio::test]
async fn i2_the_database_itself_refuses_more_than_the_limit() {
    let place = TestEnvironment::new().await;
    let campaign = place.campaign_of(CampaignTerms { per_user_limit: 2, ..open_terms() }).await;
    accept(&place, &campaign, [1, 1]).await;
    work(&place).await;
    let copy = |ordinal: &str| {
        sqlx::AssertSqlSafe(format!(
            "INSERT INTO user_coupons SELECT UNHEX(REPLACE(UUID(), '-', '')), coupon_id, user_id, {ordinal}, \
             per_user_limit, sequence, discount_type, discount_value, discount_max_amount, minimum_order_amount, \
             status, accepted_at, issued_at, valid_until, used_at FROM user_coupons LIMIT 1"
        ))
    };
    for ordinal in ["1", "2", "0", "3"] {
        assert!(&place.database.pool().execute(copy(ordinal)).await.is_err(), "ordinal {ordinal}");
    }
    assert_eq!(place.count("SELECT COUNT(*) FROM user_coupons").await, 2);
    place.end().await;
}

#[tokio::test]
async fn terms_are_copied_onto_the_issued_coupon() {
    let place = TestEnvironment::new().await;
    let campaign = place.campaign(5).await;
    let ids = accept(&place, &campaign, [1]).await;
    work(&place).await;
    let wanted = OwnedCouponsFilter { user: user(1), status: None, before: None, limit: 10 };
    let owned = db::owned_coupons::list(&place.database.pool(), wanted, clock::now()).await.expect("read");
    let [coupon] = &owned[..] else { panic!("{owned:?}") };
    assert_eq!((coupon.user_coupon_id, coupon.discount), (ids[0], campaign.terms.discount));
    assert_eq!(coupon.valid_until, Validity::Days(30).end(coupon.issued_at));
    place.end().await;
}

#[tokio::test]
async fn claims_of_several_campaigns_are_confirmed_in_one_transaction() {
    let place = TestEnvironment::new().await;
    let (one, other) = (place.campaign(300).await, place.campaign(300).await);
    for step in 0..4 {
        accept(&place, &one, step * 50 + 1..=step * 50 + 50).await;
        accept(&place, &other, step * 50 + 1..=step * 50 + 50).await;
    }
    assert_eq!(consumer(&place, "worker").await.run_once().await, 8, "in one reading");
    assert_eq!(place.count("SELECT COUNT(*) FROM user_coupons").await, 400);
    assert_eq!(place.count("SELECT MIN(issued_quantity) FROM coupons").await, 200);
    place.end().await;
}

#[tokio::test]
async fn a_claim_on_a_campaign_that_the_database_does_not_have_is_rejected_readably() {
    let place = TestEnvironment::new().await;
    let campaign = place.campaign(5).await;
    accept(&place, &campaign, [1]).await;
    place.database.pool().execute("DELETE FROM coupons").await.expect("deleted");
    work(&place).await;
    let refused = db::issuances::list_of_user(&place.database.pool(), campaign.id, user(1)).await.expect("read");
    assert_eq!(refused[0].outcome, ClaimOutcome::Rejected(ClaimRejectReason::CouponNotFound));
    place.end().await;
}

#[tokio::test]
async fn two_workers_may_confirm_the_same_claims_at_once() {
    let place = TestEnvironment::new().await;
    let campaign = place.campaign(500).await;
    accept(&place, &campaign, 1..=200).await;
    let stream = dibs_common::redis::streams::ClaimStream::unanswered(&place.redis, FIRST, campaign.id).await;
    let claims = stream.expect("redis");
    let now = clock::now();
    let (one, other) = tokio::join!(confirm(&place.database, &claims, now), confirm(&place.database, &claims, now));
    let (one, other) = (one.expect("confirmed"), other.expect("confirmed"));
    assert_eq!(one.outcomes, other.outcomes);
    assert_eq!(one.issuances.len() + other.issuances.len(), 200);
    work(&place).await;
    assert_eq!(place.count("SELECT COUNT(*) FROM user_coupons").await, 200);
    assert_eq!(place.count("SELECT issued_quantity FROM coupons").await, 200);
    place.end().await;
}

/// The rows of a batch go in with several statements: none may stay when a later one meets what is there.
#[tokio::test]
async fn a_batch_that_is_partly_there_is_counted_once() {
    let place = TestEnvironment::new().await;
    let campaign = place.campaign(500).await;
    accept(&place, &campaign, 1..=240).await;
    let claims =
        dibs_common::redis::streams::ClaimStream::unanswered(&place.redis, FIRST, campaign.id).await.expect("redis");
    confirm(&place.database, &claims[200..], clock::now()).await.expect("confirmed");
    work(&place).await;
    assert_eq!(place.count("SELECT COUNT(*) FROM user_coupons").await, 240);
    assert_eq!(place.count("SELECT issued_quantity FROM coupons").await, 240);
    place.end().await;
}

/// The campaign is full, so a decision that did not know of the issuance would refuse it.
#[tokio::test]
async fn a_redelivered_claim_of_a_full_campaign_is_still_issued() {
    let place = TestEnvironment::new().await;
    let campaign = place.campaign(2).await;
    accept(&place, &campaign, [1, 2]).await;
    let claims =
        dibs_common::redis::streams::ClaimStream::unanswered(&place.redis, FIRST, campaign.id).await.expect("redis");
    let first = confirm(&place.database, &claims, clock::now()).await.expect("confirmed");
    let again = confirm(&place.database, &claims, clock::now()).await.expect("confirmed");
    assert_eq!(first.outcomes, again.outcomes);
    work(&place).await;
    assert_eq!(place.count("SELECT issued_quantity FROM coupons").await, 2);
    assert_eq!(place.count("SELECT COUNT(*) FROM claim_rejections").await, 0);
    place.end().await;
}

/// A claim that was refused stays refused, though a slot has come free by the time it is delivered again.
#[tokio::test]
async fn a_redelivered_claim_keeps_its_outcome() {
    let place = TestEnvironment::new().await;
    let campaign = place.campaign(2).await;
    accept(&place, &campaign, [1, 2]).await;
    let claims =
        dibs_common::redis::streams::ClaimStream::unanswered(&place.redis, FIRST, campaign.id).await.expect("redis");
    place.database.pool().execute("UPDATE coupons SET total_quantity = 1").await.expect("lowered");
    let now = clock::now();
    let first = confirm(&place.database, &claims, now).await.expect("confirmed");
    place.database.pool().execute("UPDATE coupons SET total_quantity = 2").await.expect("raised");
    let again = confirm(&place.database, &claims, now).await.expect("confirmed");
    assert_eq!(first.outcomes, again.outcomes);
    assert_eq!((again.issuances.len(), again.rejections.len()), (0, 0));
    work(&place).await;
    let freed = claim(&place.redis, FIRST, campaign.id, "", &[request(2)]).await.expect("redis").expect("known");
    assert_eq!(freed.remaining, 0, "user 2 claims the returned slot");
    work(&place).await;
    assert_eq!(place.count("SELECT COUNT(*) FROM user_coupons").await, 2);
    assert_eq!(place.count("SELECT COUNT(*) FROM claim_rejections").await, 1);
    place.end().await;
}
