use chrono::TimeDelta;
use dibs_common::{
    clock::{self, Timestamp},
    db::{
        self, coupon_expiry,
        owned_coupons::{self, OwnedCouponsFilter},
    },
    domain::{
        campaign::{CampaignTerms, Validity},
        owned_coupon::OwnedStatus,
    },
    identifiers::ClaimId,
    testing::{TestEnvironment, open_terms},
};

use crate::support::{connection, issue, user};

async fn list(
    environment: &TestEnvironment,
    status: Option<OwnedStatus>,
    before: Option<ClaimId>,
    limit: u32,
) -> Vec<(ClaimId, OwnedStatus)> {
    let filter = OwnedCouponsFilter { user: user(1), status, before, limit };
    let coupons = owned_coupons::list(&environment.database.pool(), filter, clock::now()).await.expect("read");
    coupons.iter().map(|coupon| (coupon.user_coupon_id, coupon.status)).collect()
}

/// Four coupons of user 1, the oldest first: used, revoked, ended, usable.
async fn with_coupons() -> (TestEnvironment, Vec<ClaimId>) {
    let environment = TestEnvironment::new().await;
    let mut ids = Vec::new();
    for change in
        ["status = 'USED', used_at = NOW(3)", "status = 'REVOKED'", "valid_until = '2020-01-01'", "status = 'ISSUED'"]
    {
        let campaign = environment.campaign_in_database(open_terms()).await;
        let id = issue(&environment, &campaign, &[1]).await[0].record.claim_id;
        environment.execute(&format!("UPDATE user_coupons SET {change} WHERE coupon_id = {}", campaign.id)).await;
        ids.push(id);
    }
    let counted = "UPDATE coupons c SET revoked_quantity = (SELECT COUNT(*) FROM user_coupons u \
        WHERE u.coupon_id = c.coupon_id AND u.status = 'REVOKED')";
    environment.execute(counted).await;
    (environment, ids)
}

#[tokio::test]
async fn coupons_are_listed_newest_first_by_status_and_page() {
    let (environment, ids) = with_coupons().await;
    let expected = [
        (ids[3], OwnedStatus::Usable),
        (ids[2], OwnedStatus::Expired),
        (ids[1], OwnedStatus::Revoked),
        (ids[0], OwnedStatus::Used),
    ];
    assert_eq!(list(&environment, None, None, 9).await, expected);
    assert_eq!(list(&environment, None, None, 2).await, expected[..2]);
    assert_eq!(list(&environment, None, Some(ids[2]), 9).await, expected[2..]);
    for one in expected {
        assert_eq!(list(&environment, Some(one.1), None, 9).await, [one]);
    }
    environment.end().await;
}

#[tokio::test]
async fn coupons_whose_validity_ended_are_marked_with_an_event_each() {
    let (environment, ids) = with_coupons().await;
    let now = clock::now();
    let expire = async |limit| {
        db::retrying("expire", || coupon_expiry::expire(&environment.database, now, limit, now)).await.expect("expired")
    };
    environment.execute("UPDATE user_coupons SET valid_until = '2020-01-01'").await;
    let mut expired = 0;
    while let Some(marked) = expire(1).await {
        assert!(marked <= 1, "{marked} in one transaction");
        expired += marked;
    }
    assert_eq!(expired, 2, "used and revoked ones stay");
    assert_eq!(
        environment.texts("SELECT status FROM user_coupons ORDER BY user_coupon_id").await,
        ["USED", "REVOKED", "EXPIRED", "EXPIRED"]
    );
    assert_eq!(environment.count("SELECT COUNT(*) FROM outbox_events WHERE type = 'coupon.expired'").await, 2);
    let expired = list(&environment, Some(OwnedStatus::Expired), None, 9).await;
    assert_eq!(expired.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [ids[3], ids[2]]);
    environment.end().await;
}

#[tokio::test]
async fn a_coupon_that_an_order_has_locked_is_looked_at_later() {
    let (environment, ids) = with_coupons().await;
    let now = clock::now();
    let mut order = environment.database.begin().await.expect("begun");
    let take = "UPDATE user_coupons SET status = 'USED', used_at = NOW(3) WHERE user_coupon_id = ?";
    sqlx::query(take).bind(ids[2].0).execute(&mut *order).await.expect("taken");
    assert_eq!(expire_all(&environment, now).await, 0, "the order has its row");
    order.rollback().await.expect("given back");
    assert_eq!(expire_all(&environment, now).await, 1);
    environment.end().await;
}

fn until(end: Timestamp) -> CampaignTerms {
    CampaignTerms { validity: Validity::Until(end), ..open_terms() }
}

/// Expires in transactions of two coupons until nothing is left to look at. Returns how many were marked.
async fn expire_all(environment: &TestEnvironment, moment: Timestamp) -> u64 {
    let mut expired = 0;
    while let Some(marked) = coupon_expiry::expire(&environment.database, moment, 2, moment).await.expect("expired") {
        expired += marked;
    }
    expired
}

#[tokio::test]
async fn coupons_of_one_end_expire_over_several_transactions_each_once() {
    let environment = TestEnvironment::new().await;
    let end = clock::now() + TimeDelta::hours(1);
    let campaign = environment.campaign_in_database(until(end)).await;
    issue(&environment, &campaign, &[1, 2, 3, 4, 5]).await;
    assert_eq!(expire_all(&environment, end - TimeDelta::milliseconds(1)).await, 0);
    assert_eq!(expire_all(&environment, end).await, 5);
    assert_eq!(expire_all(&environment, end + TimeDelta::hours(1)).await, 0);
    let events = "SELECT COUNT(DISTINCT payload) FROM outbox_events WHERE type = 'coupon.expired'";
    assert_eq!(environment.count(events).await, 5);
    environment.end().await;
}

#[tokio::test]
async fn a_coupon_that_is_issued_after_others_of_its_campaign_expired_expires_as_well() {
    let environment = TestEnvironment::new().await;
    let end = clock::now() + TimeDelta::minutes(1);
    let campaign = environment.campaign_in_database(until(end)).await;
    let later = end + TimeDelta::hours(2);
    // Nothing is issued yet, so the campaign is not looked at again for a day.
    assert_eq!(expire_all(&environment, later).await, 0);
    for users in [[1, 2, 3], [4, 5, 6]] {
        issue(&environment, &campaign, &users).await;
        assert_eq!(expire_all(&environment, later).await, 3, "of users {users:?}");
    }
    // Of two ends, the earlier comes second: an administrator changed the terms.
    let mut campaign = environment.campaign_in_database(until(later)).await;
    issue(&environment, &campaign, &[1]).await;
    assert_eq!(expire_all(&environment, end).await, 0);
    campaign.terms.validity = Validity::Until(end);
    db::campaigns::update(&mut *connection(&environment).await, &campaign, end).await.expect("updated");
    issue(&environment, &campaign, &[2]).await;
    assert_eq!(expire_all(&environment, end).await, 1);
    assert_eq!(expire_all(&environment, later).await, 1);
    environment.end().await;
}

#[tokio::test]
async fn a_campaign_without_a_coupon_that_ends_soon_is_looked_at_once_a_day() {
    let environment = TestEnvironment::new().await;
    environment.campaign_in_database(open_terms()).await;
    let now = clock::now();
    let look = async |at| coupon_expiry::expire(&environment.database, at, 9, at).await.expect("expired");
    assert_eq!(look(now).await, Some(0));
    assert_eq!(look(now).await, None);
    assert_eq!(look(now + TimeDelta::hours(24)).await, None);
    assert_eq!(look(now + TimeDelta::hours(25)).await, Some(0));
    environment.end().await;
}
