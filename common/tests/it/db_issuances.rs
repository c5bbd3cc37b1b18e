use std::collections::HashMap;

use dibs_common::{
    clock,
    db::{self, issuances::PlannedClaims, issued_claims::IssuedClaim},
    domain::claim::{Claim, ClaimOutcome, ClaimRejectReason, ExistingClaims, IssuancePlan},
    identifiers::ClaimId,
    testing::TestEnvironment,
};

use crate::support::{accepted, confirm, connection, issue, user, with_campaign};

/// Rejects claims after their acceptance.
async fn reject(environment: &TestEnvironment, claims: &[Claim], reason: ClaimRejectReason) {
    let rejections = (0..claims.len()).map(|index| (index, reason)).collect();
    let plan = IssuancePlan { rejections, ..IssuancePlan::default() };
    let batch = PlannedClaims { campaigns: &[], claims, plan: &plan };
    let mut connection = connection(environment).await;
    db::issuances::insert_batch(&mut connection, batch, clock::now(), 16_000).await.expect("inserted");
}

/// Ends with so many coupons that users hold and the campaign counts.
async fn end_with_issued(environment: TestEnvironment, count: i64) {
    let counted = [("SELECT COUNT(*) FROM user_coupons", count), ("SELECT issued_quantity FROM coupons", count)];
    environment.expect_counts(counted).await;
    environment.end().await;
}

#[tokio::test]
async fn a_batch_inserts_issuances_with_the_terms_of_their_campaign_and_counts_them() {
    let (environment, campaign) = with_campaign(|_| ()).await;
    issue(&environment, &campaign, &[1, 2]).await;
    reject(&environment, &[accepted(&campaign, 3, 3)], ClaimRejectReason::CouponExhausted).await;
    let rows = "SELECT CONCAT(user_id, ' ', ordinal, ' ', sequence, ' ', discount_type, ' ', discount_value, ' ', status) \
                FROM user_coupons ORDER BY sequence";
    assert_eq!(environment.texts(rows).await, ["1 1 1 FIXED 1000 ISSUED", "2 1 2 FIXED 1000 ISSUED"]);
    let found = db::campaigns::find(&environment.database.pool(), campaign.id).await.expect("read").expect("it exists");
    assert_eq!((found.issued, found.rejected), (2, 1));
    assert_eq!(
        environment.count("SELECT COUNT(*) FROM outbox_events WHERE type = 'coupon.issued'").await,
        1,
        "in one event"
    );
    environment.end().await;
}

#[tokio::test]
async fn a_claim_that_was_issued_before_fails_as_a_duplicate_and_leaves_nothing() {
    let (environment, campaign) = with_campaign(|_| ()).await;
    let claims = issue(&environment, &campaign, &[1]).await;
    let batch = [accepted(&campaign, 2, 2), claims[0].clone()];
    let failed = confirm(&environment, &campaign, &batch).await.expect_err("a duplicate");
    assert!(db::is_duplicate(&failed), "{failed}");
    end_with_issued(environment, 1).await;
}

#[tokio::test]
async fn a_batch_of_a_campaign_that_is_not_locked_is_rejected_before_anything_is_sent() {
    let (environment, campaign) = with_campaign(|_| ()).await;
    let claims = [accepted(&campaign, 1, 1)];
    let plan = dibs_common::domain::claim::confirm(
        std::slice::from_ref(&campaign),
        &ExistingClaims::default(),
        &claims,
        clock::now(),
    );
    let batch = PlannedClaims { campaigns: &[], claims: &claims, plan: &plan };
    let mut connection = connection(&environment).await;
    let failed = db::issuances::insert_batch(&mut connection, batch, clock::now(), 16_000).await;
    assert!(matches!(failed, Err(sqlx::Error::Encode(_))), "{failed:?}");
    drop(connection);
    assert_eq!(environment.count("SELECT COUNT(*) FROM user_coupons").await, 0);
    environment.end().await;
}

/// The text is sent in parts of 16 KiB over TLS.
#[tokio::test]
async fn a_large_batch_is_inserted_whole_in_several_parts() {
    let (environment, campaign) = with_campaign(|terms| terms.total_quantity = 1_000).await;
    let users: Vec<u64> = (1..=500).collect();
    issue(&environment, &campaign, &users).await;
    end_with_issued(environment, 500).await;
}

#[tokio::test]
async fn existing_coupons_and_outcomes_of_a_batch_are_found() {
    let (environment, campaign) = with_campaign(|_| ()).await;
    let issued = issue(&environment, &campaign, &[1]).await.remove(0);
    let rejected = accepted(&campaign, 2, 2);
    reject(&environment, std::slice::from_ref(&rejected), ClaimRejectReason::CouponExhausted).await;
    let (second, unknown) = (accepted(&campaign, 1, 3), accepted(&campaign, 4, 4));
    let mut connection = connection(&environment).await;
    let claims = [issued.clone(), rejected.clone(), second, unknown];
    let existing = db::issuances::find_existing(&mut connection, &claims).await.expect("read");
    assert_eq!(existing.held, HashMap::from([((campaign.id, user(1)), 1)]));
    assert_eq!(existing.decided.len(), 2);
    assert!(matches!(existing.decided[&issued.record.claim_id].outcome, ClaimOutcome::Issued { .. }));
    let outcome = existing.decided[&rejected.record.claim_id].outcome;
    assert_eq!(outcome, ClaimOutcome::Rejected(ClaimRejectReason::CouponExhausted));
    let found = db::issuances::find_rejected(&mut connection, &claims).await.expect("read");
    assert_eq!(found.keys().copied().collect::<Vec<ClaimId>>(), [rejected.record.claim_id]);
    assert!(db::issuances::find_rejected(&mut connection, &[]).await.expect("read").is_empty());
    drop(connection);
    environment.end().await;
}

#[tokio::test]
async fn the_claims_of_a_user_come_with_their_outcomes_latest_first() {
    let (environment, campaign) = with_campaign(|terms| terms.per_user_limit = 2).await;
    let mut claims = [accepted(&campaign, 1, 1), accepted(&campaign, 1, 2)];
    claims[0].record.accepted_at -= chrono::TimeDelta::seconds(5);
    confirm(&environment, &campaign, &claims[..1]).await.expect("issued");
    reject(&environment, &claims[1..], ClaimRejectReason::CouponExhausted).await;
    let listed = db::issuances::list_of_user(&environment.database.pool(), campaign.id, user(1)).await.expect("read");
    assert_eq!(listed.iter().map(|claim| claim.record).collect::<Vec<_>>(), [claims[1].record, claims[0].record]);
    assert_eq!(listed[0].outcome, ClaimOutcome::Rejected(ClaimRejectReason::CouponExhausted));
    assert!(matches!(listed[1].outcome, ClaimOutcome::Issued { .. }));
    let none = db::issuances::list_of_user(&environment.database.pool(), campaign.id, user(2)).await.expect("read");
    assert_eq!(none, []);
    environment.end().await;
}

#[tokio::test]
async fn issued_claims_are_listed_after_a_position_and_by_user() {
    let (environment, campaign) = with_campaign(|terms| terms.per_user_limit = 2).await;
    let pool = &environment.database.pool();
    for users in [[7, 3, 7].as_slice(), &[9]] {
        issue(&environment, &campaign, users).await;
    }
    let key = |claim: &IssuedClaim| (claim.user.get(), claim.ordinal);
    let mut listed: Vec<IssuedClaim> = Vec::new();
    loop {
        let after = listed.last().map(IssuedClaim::position);
        let page = db::issued_claims::list(pool, campaign.id, after, 2).await.expect("read");
        if page.is_empty() {
            break;
        }
        listed.extend(page);
    }
    assert_eq!(listed.iter().map(key).collect::<Vec<_>>(), [(7, 1), (3, 1), (7, 2), (9, 1)]);
    let users = [user(7), user(8)];
    let mut issued = db::issued_claims::list_of_users(pool, campaign.id, &users).await.expect("read");
    issued.sort_by_key(key);
    assert_eq!(issued, [listed[0], listed[2]]);
    environment.end().await;
}

#[tokio::test]
async fn the_last_rejected_sequence_is_zero_without_a_rejection() {
    let (environment, campaign) = with_campaign(|_| ()).await;
    let last =
        async || db::issuances::last_rejected_sequence(&environment.database.pool(), campaign.id).await.expect("read");
    assert_eq!(last().await, 0);
    let claims = [accepted(&campaign, 1, 8), accepted(&campaign, 2, 5)];
    reject(&environment, &claims, ClaimRejectReason::CouponExhausted).await;
    assert_eq!(last().await, 8);
    environment.end().await;
}
