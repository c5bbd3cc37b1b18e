//! Coupons that an administrator takes back.

use std::time::Duration;

use dibs_common::{identifiers::CouponId, redis::campaign_state, testing::eventually};
use dibs_worker::campaigns::{rebuild, reconcile_all};
use reqwest::Method;
use serde_json::{Value, json};

use crate::app::{ADMIN_TOKEN, Answer, TestApp};

/// What takes effect "within a second" is awaited so long.
const SECOND: Duration = Duration::from_secs(1);

/// A user's coupon, issued.
async fn coupon_of(app: &TestApp, coupon: CouponId, user: u64) -> String {
    assert_eq!(app.claim(coupon, user).await.status, 202);
    app.work().await;
    let owned = app.get(&format!("/users/{user}/coupons?limit=1")).await;
    owned.body["items"][0]["userCouponId"].as_str().expect("an id").to_owned()
}

async fn revoke(app: &TestApp, user: u64, user_coupon: &str, query: &str) -> Answer {
    let path = format!("/users/{user}/coupons/{user_coupon}{query}");
    Answer::of(app.request(Method::DELETE, &path).bearer_auth(ADMIN_TOKEN)).await
}

fn code(claim: &Answer) -> &str {
    if claim.status == 202 { "ACCEPTED" } else { claim.code() }
}

#[tokio::test]
async fn a_revoked_coupon_frees_its_place_once_on_every_process() {
    let app = TestApp::new().await;
    let other = app.second().await;
    let coupon = app.environment.campaign(1).await.id;
    let id = coupon_of(&app, coupon, 1).await;
    assert_eq!(code(&app.claim(coupon, 2).await), "COUPON_EXHAUSTED");
    assert_eq!(code(&other.claim(coupon, 2).await), "COUPON_EXHAUSTED");
    let dry = revoke(&app, 1, &id, "?dryRun=true").await;
    assert_eq!((dry.status.as_u16(), &dry.body["status"]), (200, &json!("REVOKED")));
    assert_eq!(app.get("/users/1/coupons").await.body["items"][0]["status"], "USABLE");
    let revoked = revoke(&app, 1, &id, "?reason=abuse").await;
    assert_eq!((revoked.status.as_u16(), &revoked.body["status"]), (200, &json!("REVOKED")));
    assert_eq!(revoke(&app, 1, &id, "").await.body, revoked.body, "twice is once");
    let shown = app.get(&format!("/coupons/{coupon}")).await;
    assert_eq!((&shown.body["status"], &shown.body["remaining"]), (&json!("OPEN"), &json!(1)));
    // The process that did not revoke it learns of the place, too.
    eventually("a claim is accepted", SECOND, async || code(&other.claim(coupon, 3).await) == "ACCEPTED").await;
    assert_eq!(code(&app.claim(coupon, 1).await), "COUPON_ALREADY_ISSUED", "the limit stays used");
    app.work().await;
    assert_eq!(code(&app.claim(coupon, 4).await), "COUPON_EXHAUSTED");

    let admin =
        Answer::of(app.request(Method::GET, &format!("/admin/coupons/{coupon}")).bearer_auth(ADMIN_TOKEN)).await;
    let counts = ["issued", "revoked", "claimed", "remaining"].map(|field| admin.body[field].clone());
    assert_eq!(counts, [2, 1, 2, 0].map(Value::from));
    let actions = Answer::of(app.request(Method::GET, "/admin/actions").bearer_auth(ADMIN_TOKEN)).await;
    let action = &actions.body["items"][0];
    let expected = json!(["coupon.revoke", id, "abuse", { "status": "USABLE" }, { "status": "REVOKED" }]);
    let found = ["action", "targetId", "reason", "before", "after"].map(|field| action[field].clone());
    assert_eq!((json!(found), actions.body["items"].as_array().expect("items").len()), (expected, 1));
    assert_eq!(app.environment.count("SELECT COUNT(*) FROM outbox_events WHERE type = 'coupon.revoked'").await, 1);
    other.end().await;
    app.environment.expect_consistent_rows().await;
    app.end().await;
}

#[tokio::test]
async fn only_a_coupon_that_is_not_used_is_revoked() {
    let app = TestApp::with_worker().await;
    let coupon = app.environment.campaign(9).await.id;
    let issued = app.claim_and_wait(coupon, 1).await;
    let id = issued.body["userCouponId"].as_str().expect("an id");
    let strangers = revoke(&app, 2, id, "").await;
    assert_eq!((strangers.status.as_u16(), strangers.code()), (404, "COUPON_NOT_FOUND"));
    let unknown = Answer::of(app.request(Method::DELETE, &format!("/users/1/coupons/{id}"))).await;
    assert_eq!(unknown.code(), "UNAUTHENTICATED");
    app.environment.execute("UPDATE user_coupons SET valid_until = '2020-01-01'").await;
    let over = revoke(&app, 1, id, "").await;
    assert_eq!((over.status.as_u16(), over.code()), (422, "COUPON_NOT_USABLE"));
    let product = app.environment.product(5_000, 9).await;
    app.environment.execute("UPDATE user_coupons SET valid_until = '2999-01-01'").await;
    let order = json!({ "userId": 1, "items": [{ "productId": product, "quantity": 1 }], "userCouponId": id });
    assert_eq!(app.post("/orders", order).await.status, 201);
    let used = revoke(&app, 1, id, "").await;
    assert_eq!((used.status.as_u16(), used.code()), (422, "COUPON_NOT_USABLE"));
    assert_eq!(app.environment.count("SELECT COUNT(*) FROM admin_actions WHERE action = 'coupon.revoke'").await, 0);
    app.environment.expect_consistent_rows().await;
    app.end().await;
}

/// A process that dies between MySQL and Redis leaves the place to the reconciliation; a rebuild keeps it.
#[tokio::test]
async fn i11_a_revocation_that_redis_does_not_know_is_enforced_by_the_worker() {
    let app = TestApp::new().await;
    let campaign = app.environment.campaign(2).await;
    let id = coupon_of(&app, campaign.id, 1).await;
    coupon_of(&app, campaign.id, 2).await;
    // As far as the transaction of a revocation comes before its process dies.
    let revoking =
        format!("UPDATE user_coupons SET status = 'REVOKED' WHERE user_coupon_id = UNHEX(REPLACE('{id}', '-', ''))");
    app.environment.execute(&revoking).await;
    app.environment.execute("UPDATE coupons SET revoked_quantity = 1").await;
    let redis = &app.environment.redis;
    reconcile_all(&app.environment.database, redis).await.expect("a round");
    let total = async || {
        let counts = campaign_state::counts(redis, campaign.partition, campaign.id).await.expect("read");
        counts.map(|counts| (counts.claimed, counts.total))
    };
    assert_eq!(total().await, Some((2, 3)));
    let stored = dibs_common::db::campaigns::find(&app.environment.database.pool(), campaign.id).await;
    let stored = stored.expect("read").expect("the campaign");
    rebuild(&app.environment.database, redis, &stored).await.expect("a rebuild");
    assert_eq!(total().await, Some((2, 3)));
    eventually("a claim is accepted", SECOND, async || code(&app.claim(campaign.id, 3).await) == "ACCEPTED").await;
    app.work().await;
    app.environment.expect_consistent_rows().await;
    app.end().await;
}
