//! One user's whole story: why did I not get it?

use std::time::Duration;

use dibs_common::{identifiers::CouponId, testing::eventually};
use reqwest::Method;
use serde_json::{Value, json};

use crate::app::{ADMIN_TOKEN, Answer, RULES, TestApp};

async fn timeline(app: &TestApp, user: u64, query: &str) -> Answer {
    let request = app.request(Method::GET, &format!("/admin/users/{user}/timeline{query}")).bearer_auth(ADMIN_TOKEN);
    let answer = Answer::of(request).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer
}

async fn entries(app: &TestApp, user: u64, query: &str) -> Vec<Value> {
    timeline(app, user, query).await.body["items"].as_array().expect("items").clone()
}

fn kinds(entries: &[Value]) -> Vec<&str> {
    entries.iter().map(|entry| entry["kind"].as_str().expect("a kind")).collect()
}

async fn eventually_recorded(app: &TestApp, count: i64) {
    eventually("the refusals are stored", Duration::from_secs(5), async || {
        app.environment.count("SELECT COALESCE(SUM(attempts), 0) FROM claim_attempts").await == count
    })
    .await;
}

#[tokio::test]
async fn a_user_who_did_not_get_the_coupon_finds_the_reason() {
    let (app, coupon) = TestApp::with_campaign(1).await;
    assert_eq!(app.claim(coupon, 1).await.status, 202);
    for _ in 0..3 {
        assert_eq!(app.claim(coupon, 2).await.code(), "COUPON_EXHAUSTED");
    }
    assert_eq!(app.claim(coupon, 1).await.code(), "COUPON_ALREADY_ISSUED");
    app.work().await;
    eventually_recorded(&app, 4).await;
    let refused = entries(&app, 2, "").await;
    assert_eq!(kinds(&refused), ["CLAIM_REFUSED"]);
    assert_eq!((&refused[0]["code"], &refused[0]["attempts"]), (&json!("COUPON_EXHAUSTED"), &json!(3)));
    assert_eq!((&refused[0]["couponId"], &refused[0]["couponName"]), (&json!(coupon), &json!("autumn")));
    assert!(refused[0]["firstAt"].as_str() <= refused[0]["at"].as_str());
    let holder = entries(&app, 1, "").await;
    let mut found = kinds(&holder);
    found.sort_unstable();
    assert_eq!(found, ["CLAIM_ACCEPTED", "CLAIM_REFUSED", "COUPON_ISSUED"]);
    let accepted = holder.iter().find(|entry| entry["kind"] == "CLAIM_ACCEPTED").expect("it was accepted");
    assert_eq!((&accepted["sequence"], &accepted["id"]), (&json!(1), &accepted["userCouponId"]));
    // A later attempt is the same row.
    assert_eq!(app.claim(coupon, 2).await.code(), "COUPON_EXHAUSTED");
    eventually_recorded(&app, 5).await;
    assert_eq!(entries(&app, 2, "").await[0]["attempts"], 4);
    assert_eq!(timeline(&app, 3, "").await.body, json!({ "items": [], "nextCursor": null }));
    app.end().await;
}

/// The claim that MySQL rejects after its acceptance, and a request by Kafka that was refused.
#[tokio::test]
async fn rejections_and_requests_by_kafka_are_part_of_it() {
    let (app, coupon) = TestApp::with_campaign(5).await;
    let sql = format!(
        "INSERT INTO claim_rejections (claim_id, coupon_id, user_id, sequence, code, accepted_at, rejected_at) \
         VALUES (UNHEX(REPEAT('07', 16)), {coupon}, 7, 3, 'CAMPAIGN_CLOSED', '2026-01-01 10:00:00', '2026-01-01 10:00:01'); \
         INSERT INTO claim_refusals (claim_id, coupon_id, user_id, code, refused_at) \
         VALUES (UNHEX(REPEAT('08', 16)), {coupon}, 7, 'COUPON_EXHAUSTED', '2026-01-02')"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&app.environment.database.pool()).await.expect("inserted");
    let found = entries(&app, 7, "").await;
    assert_eq!(kinds(&found), ["CLAIM_REFUSED", "CLAIM_REJECTED", "CLAIM_ACCEPTED"]);
    assert_eq!((&found[1]["code"], &found[2]["sequence"]), (&json!("CAMPAIGN_CLOSED"), &json!(3)));
    app.end().await;
}

/// A user who charged, got a coupon, used it, and cancelled.
async fn with_a_story() -> (TestApp, CouponId) {
    let mut app = TestApp::new().await;
    app.start_worker(RULES);
    let coupon = app.environment.campaign(5).await.id;
    let product = app.environment.product(20_000, 10).await;
    assert_eq!(app.post("/points", json!({ "userId": 1, "amount": 50_000 })).await.status, 200);
    let issued = app.claim_and_wait(coupon, 1).await;
    assert_eq!(issued.status, 200, "{issued:?}");
    let items = json!([{ "productId": product, "quantity": 1 }]);
    let body = json!({ "userId": 1, "items": items, "userCouponId": issued.body["userCouponId"], "pay": true });
    let order = app.post("/orders", body).await;
    assert_eq!(order.status, 201, "{order:?}");
    let path = format!("/orders/{}/cancel", order.body["orderId"].as_str().expect("an id"));
    assert_eq!(app.post(&path, json!({ "userId": 1 })).await.status, 200);
    let unpayable = json!({ "userId": 1, "items": [{ "productId": product, "quantity": 9 }], "pay": true });
    assert_eq!(app.post("/orders", unpayable).await.code(), "POINTS_INSUFFICIENT");
    let grant = json!({ "userId": 1, "amount": 700, "reason": "late delivery" });
    assert_eq!(app.administer("/admin/points", grant).await.status, 200);
    (app, coupon)
}

#[tokio::test]
async fn a_story_is_listed_newest_first_and_each_page_goes_on() {
    let (app, coupon) = with_a_story().await;
    let all = entries(&app, 1, "?limit=100").await;
    let mut expected = [
        "POINTS_CHANGED",
        "ORDER_REJECTED",
        "POINTS_CHANGED",
        "PAYMENT_CANCELLED",
        "ORDER_CANCELLED",
        "COUPON_RESTORED",
        "POINTS_CHANGED",
        "PAYMENT_DONE",
        "ORDER_PLACED",
        "ORDER_PAID",
        "COUPON_USED",
        "COUPON_ISSUED",
        "CLAIM_ACCEPTED",
        "POINTS_CHANGED",
        "CHARGE",
    ];
    let mut found = kinds(&all);
    assert_eq!(all[0]["reason"], "late delivery", "the newest first");
    assert_eq!(
        (&all[0]["code"], &all[0]["balance"], &all[0]["actor"]),
        (&json!("GRANT"), &json!(50_700), &json!("ADMIN_TOKEN"))
    );
    assert!(all.is_sorted_by(|one, next| one["at"].as_str() >= next["at"].as_str()), "{all:?}");
    expected.sort_unstable();
    found.sort_unstable();
    // An order that could not be paid may also have a failed payment.
    found.retain(|kind| *kind != "PAYMENT_FAILED");
    assert_eq!(found, expected);
    for limit in [1, 2, 4] {
        let (mut paged, mut query) = (Vec::new(), format!("?limit={limit}"));
        loop {
            let page = timeline(&app, 1, &query).await;
            paged.extend(page.body["items"].as_array().expect("items").clone());
            let Some(cursor) = page.body["nextCursor"].as_str() else { break };
            query = format!("?limit={limit}&cursor={cursor}");
        }
        assert_eq!(paged, all, "pages of {limit}");
    }
    let about = entries(&app, 1, &format!("?couponId={coupon}")).await;
    let mut about_kinds = kinds(&about);
    about_kinds.sort_unstable();
    assert_eq!(about_kinds, ["CLAIM_ACCEPTED", "COUPON_ISSUED", "COUPON_RESTORED", "COUPON_USED"]);
    app.end().await;
}

#[tokio::test]
async fn wrong_timelines_are_refused() {
    let app = TestApp::new().await;
    assert_eq!(app.get("/admin/users/1/timeline").await.code(), "UNAUTHENTICATED");
    for path in ["/0/timeline", "/1/timeline?cursor=1", "/1/timeline?cursor=1.CHARGE.%27", "/1/timeline?couponId=x"] {
        let request = app.request(Method::GET, &format!("/admin/users{path}")).bearer_auth(ADMIN_TOKEN);
        assert_eq!(Answer::of(request).await.code(), "VALIDATION_FAILED", "{path}");
    }
    app.end().await;
}

/// More refusals than are stored a second wait; none is lost while they fit into memory.
#[tokio::test]
async fn refusals_beyond_the_rate_are_stored_later() {
    let environment = dibs_common::testing::TestEnvironment::new().await;
    let coupon = environment.campaign(1).await.id;
    let shared = environment.settings.clone();
    let app = TestApp::with(environment, shared, |settings| settings.claim_attempts_per_second = 20).await;
    assert_eq!(app.claim(coupon, 1_000).await.status, 202);
    for user in 1..=50 {
        assert_eq!(app.claim(coupon, user).await.code(), "COUPON_EXHAUSTED");
    }
    eventually_recorded(&app, 50).await;
    app.work().await;
    app.end().await;
}
