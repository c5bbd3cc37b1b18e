use dibs_common::{
    clock,
    db::{
        self,
        owned_coupons::{self, OwnedCouponsFilter},
    },
    domain::owned_coupon::OwnedStatus,
    identifiers::ClaimId,
    testing::{TestEnvironment, open_terms},
};

use crate::support::{issue, user};

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
        db::retrying("expire", || owned_coupons::expire(&environment.database, now, limit, now)).await.expect("expired")
    };
    environment.execute("UPDATE user_coupons SET valid_until = '2020-01-01'").await;
    assert_eq!(expire(1).await, 1);
    assert_eq!((expire(9).await, expire(9).await), (1, 0), "used and revoked ones stay");
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
async fn a_coupon_that_an_order_took_meanwhile_is_not_expired() {
    let (environment, ids) = with_coupons().await;
    let now = clock::now();
    let mut order = environment.database.begin().await.expect("begun");
    let take = "UPDATE user_coupons SET status = 'USED', used_at = NOW(3) WHERE user_coupon_id = ?";
    sqlx::query(take).bind(ids[2].0).execute(&mut *order).await.expect("taken");
    let expiring = owned_coupons::expire(&environment.database, now, 9, now);
    let (expired, committed) = tokio::join!(expiring, async {
        // The job has read the row as ISSUED and waits for its lock, or reads it afterwards.
        tokio::task::yield_now().await;
        order.commit().await
    });
    committed.expect("committed");
    assert_eq!(expired.expect("expired"), 0);
    assert_eq!(environment.count("SELECT COUNT(*) FROM user_coupons WHERE status = 'EXPIRED'").await, 0);
    environment.end().await;
}
