use std::collections::HashSet;

use chrono::TimeDelta;
use dibs_common::{
    clock,
    db::{self, claim_refusals::ClaimRefusal},
    domain::claim::{ClaimOutcome, ClaimRejectReason},
    identifiers::{ClaimId, CouponId},
    testing::TestEnvironment,
};

use crate::support::{issue, user, with_campaign};

fn request(number: u64, code: ClaimRejectReason) -> ClaimRefusal {
    let coupon = CouponId::try_from(5).expect("an id");
    ClaimRefusal { claim: ClaimId::generate(), coupon, user: user(number), code }
}

#[tokio::test]
async fn the_latest_refusal_of_a_user_is_found_and_a_repeat_changes_nothing() {
    let environment = TestEnvironment::new().await;
    let (pool, now) = (&environment.database.pool(), clock::now());
    let first = request(1, ClaimRejectReason::CampaignNotOpen);
    let second = request(1, ClaimRejectReason::CampaignPaused);
    let insert = async |requests: &[ClaimRefusal], at| {
        db::claim_refusals::insert_batch(pool, requests, at).await.expect("inserted");
    };
    insert(&[], now).await;
    insert(&[first, request(2, ClaimRejectReason::CampaignClosed)], now).await;
    insert(&[second], now + TimeDelta::seconds(1)).await;
    let changed = ClaimRefusal { code: ClaimRejectReason::CampaignClosed, ..first };
    insert(&[changed], now + TimeDelta::seconds(9)).await;
    let latest = async |number| db::claim_refusals::find_latest(pool, first.coupon, user(number)).await.expect("read");
    let found = latest(1).await.expect("it exists");
    assert_eq!(found.outcome, ClaimOutcome::Rejected(ClaimRejectReason::CampaignPaused));
    assert_eq!((found.record.claim_id, found.record.sequence), (second.claim, 0));
    assert_eq!(latest(3).await, None);
    assert_eq!(environment.count("SELECT COUNT(*) FROM claim_refusals").await, 3);
    environment.end().await;
}

#[tokio::test]
async fn claims_with_an_outcome_in_any_table_are_decided() {
    let (environment, campaign) = with_campaign(|_| ()).await;
    let issued = issue(&environment, &campaign, &[1]).await[0].record.claim_id;
    let rejected = request(2, ClaimRejectReason::CampaignClosed);
    db::claim_refusals::insert_batch(&environment.database.pool(), &[rejected], clock::now()).await.expect("inserted");
    let asked = [issued, rejected.claim, ClaimId::generate()];
    let decided = db::claim_refusals::list_decided(&environment.database.pool(), &asked).await.expect("read");
    assert_eq!(decided, HashSet::from([issued, rejected.claim]));
    assert!(db::claim_refusals::list_decided(&environment.database.pool(), &[]).await.expect("read").is_empty());
    environment.end().await;
}

#[tokio::test]
async fn a_purge_deletes_the_oldest_rows_up_to_its_limit() {
    let environment = TestEnvironment::new().await;
    let (pool, now) = (&environment.database.pool(), clock::now());
    for age in [3, 2, 1] {
        let request = request(age, ClaimRejectReason::CampaignClosed);
        let at = now - TimeDelta::days(i64::try_from(age).expect("small"));
        db::claim_refusals::insert_batch(pool, &[request], at).await.expect("inserted");
    }
    let purge = async |limit| db::claim_refusals::purge(pool, now - TimeDelta::hours(36), limit).await.expect("purged");
    assert_eq!(purge(1).await, 1);
    assert_eq!(
        environment.texts("SELECT CAST(user_id AS CHAR) FROM claim_refusals ORDER BY user_id").await,
        ["1", "2"]
    );
    assert_eq!((purge(10).await, purge(10).await), (1, 0));
    environment.end().await;
}
