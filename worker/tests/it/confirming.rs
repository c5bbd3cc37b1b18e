use dibs_common::{
    clock,
    db::{self, owned_coupons::OwnedCouponsFilter},
    domain::{
        campaign::{CampaignTerms, Validity},
        claim::{Claim, ClaimOutcome, ClaimRejectReason, IssuancePlan},
    },
    testing::{TestEnvironment, open_terms},
};
use dibs_worker::issuance::confirm;
use sqlx::Executor as _;

use crate::{
    campaign_test::CampaignTest,
    support::{accept, consumer, user},
};

/// The plan of a transaction that confirms these claims.
async fn confirmed(test: &CampaignTest, claims: &[Claim]) -> IssuancePlan {
    confirm(&test.database, claims, clock::now()).await.expect("confirmed")
}

/// I1: issued never exceeds the total quantity, also when Redis accepted more than the database has.
#[tokio::test]
async fn i1_the_database_never_issues_more_than_the_total_and_the_slot_returns() {
    let test = CampaignTest::with_accepted(5, 1..=5).await;
    test.set_total(3).await;
    test.work().await;
    assert_eq!((test.issued().await, test.issued_quantity().await), (3, 3));
    assert_eq!(test.count("SELECT rejected_quantity FROM coupons").await, 2);
    assert_eq!(test.claimed().await, 3, "two slots returned");
    assert_eq!(test.outcomes(5).await, [ClaimOutcome::Rejected(ClaimRejectReason::CouponExhausted)]);
    test.end().await;
}

/// I2: the table itself refuses a second coupon of one user.
#[tokio::test]
async fn i2_the_database_itself_refuses_more_than_the_limit() {
    let test = CampaignTest::of(CampaignTerms { per_user_limit: 2, ..open_terms() }).await;
    test.accept([1, 1]).await;
    test.work().await;
    let copy = |ordinal: &str| {
        sqlx::AssertSqlSafe(format!(
            "INSERT INTO user_coupons SELECT UNHEX(REPLACE(UUID(), '-', '')), coupon_id, user_id, {ordinal}, \
             per_user_limit, sequence, discount_type, discount_value, discount_max_amount, minimum_order_amount, \
             status, accepted_at, issued_at, valid_until, used_at FROM user_coupons LIMIT 1"
        ))
    };
    for ordinal in ["1", "2", "0", "3"] {
        assert!(&test.database.pool().execute(copy(ordinal)).await.is_err(), "ordinal {ordinal}");
    }
    assert_eq!(test.issued().await, 2);
    test.end().await;
}

#[tokio::test]
async fn terms_are_copied_onto_the_issued_coupon() {
    let test = CampaignTest::new(5).await;
    let ids = test.accept([1]).await;
    test.work().await;
    let wanted = OwnedCouponsFilter { user: user(1), status: None, before: None, limit: 10 };
    let owned = db::owned_coupons::list(&test.database.pool(), wanted, clock::now()).await.expect("read");
    let [coupon] = &owned[..] else { panic!("{owned:?}") };
    assert_eq!((coupon.user_coupon_id, coupon.discount), (ids[0], test.campaign.terms.discount));
    assert_eq!(coupon.valid_until, Validity::Days(30).end(coupon.issued_at));
    test.end().await;
}

#[tokio::test]
async fn claims_of_several_campaigns_are_confirmed_in_one_transaction() {
    let environment = TestEnvironment::new().await;
    let (one, other) = (environment.campaign(300).await, environment.campaign(300).await);
    for step in 0..4 {
        accept(&environment, &one, step * 50 + 1..=step * 50 + 50).await;
        accept(&environment, &other, step * 50 + 1..=step * 50 + 50).await;
    }
    assert_eq!(consumer(&environment, "worker").await.run_once().await, 8, "in one reading");
    environment
        .expect_counts([("SELECT COUNT(*) FROM user_coupons", 400), ("SELECT MIN(issued_quantity) FROM coupons", 200)])
        .await;
    environment.end().await;
}

#[tokio::test]
async fn a_claim_on_a_campaign_that_the_database_does_not_have_is_rejected_readably() {
    let test = CampaignTest::with_accepted(5, [1]).await;
    test.execute("DELETE FROM coupons").await;
    test.work().await;
    assert_eq!(test.outcomes(1).await, [ClaimOutcome::Rejected(ClaimRejectReason::CouponNotFound)]);
    test.end().await;
}

#[tokio::test]
async fn two_workers_may_confirm_the_same_claims_at_once() {
    let test = CampaignTest::with_accepted(500, 1..=200).await;
    let claims = test.unanswered().await;
    let (one, other) = tokio::join!(confirmed(&test, &claims), confirmed(&test, &claims));
    assert_eq!(one.outcomes, other.outcomes);
    assert_eq!(one.issuances.len() + other.issuances.len(), 200);
    test.end_with_issued(200).await;
}

/// The rows of a batch go in with several statements: none may stay when a later one meets what is there.
#[tokio::test]
async fn a_batch_that_is_partly_there_is_counted_once() {
    let test = CampaignTest::with_accepted(500, 1..=240).await;
    let claims = test.unanswered().await;
    confirmed(&test, &claims[200..]).await;
    test.end_with_issued(240).await;
}

/// The campaign is full, so a decision that did not know of the issuance would refuse it.
#[tokio::test]
async fn a_redelivered_claim_of_a_full_campaign_is_still_issued() {
    let test = CampaignTest::with_accepted(2, [1, 2]).await;
    let claims = test.unanswered().await;
    let first = confirmed(&test, &claims).await;
    let again = confirmed(&test, &claims).await;
    assert_eq!(first.outcomes, again.outcomes);
    test.work().await;
    assert_eq!((test.issued_quantity().await, test.rejected().await), (2, 0));
    test.end().await;
}

/// A claim that was refused stays refused, though a slot has come free by the time it is delivered again.
#[tokio::test]
async fn a_redelivered_claim_keeps_its_outcome() {
    let test = CampaignTest::with_accepted(2, [1, 2]).await;
    let claims = test.unanswered().await;
    test.set_total(1).await;
    let first = confirmed(&test, &claims).await;
    test.set_total(2).await;
    let again = confirmed(&test, &claims).await;
    assert_eq!(first.outcomes, again.outcomes);
    assert_eq!((again.issuances.len(), again.rejections.len()), (0, 0));
    test.work().await;
    let freed = test.decide([2]).await.expect("known");
    assert_eq!(freed.remaining, 0, "user 2 claims the returned slot");
    test.work().await;
    assert_eq!((test.issued().await, test.rejected().await), (2, 1));
    test.end().await;
}
