use dibs_common::testing::open_terms;
use dibs_worker::campaigns::reconcile_all;
use serde_json::json;

use crate::app::{TestApp, terms_body};

#[tokio::test]
async fn a_campaign_is_made_and_shown_and_claimed() {
    let app = TestApp::new().await;
    let made = app.administer("/admin/coupons", terms_body(|terms| terms.total_quantity = 2)).await;
    assert_eq!(made.status, 201);
    let path = made.header("location").expect("where").to_owned();
    let shown = app.get(&path).await;
    assert_eq!(shown.body, made.body);
    assert_eq!((&shown.body["status"], &shown.body["remaining"]), (&json!("OPEN"), &json!(2)));
    assert_eq!(shown.body["validity"], json!({ "days": 30 }));
    let coupon = serde_json::from_value(made.body["couponId"].clone()).expect("an id");
    assert_eq!(app.claim(coupon, 1).await.status, 202);
    assert_eq!(app.claim(coupon, 2).await.status, 202);
    let shown = app.get(&path).await;
    assert_eq!((&shown.body["status"], &shown.body["remaining"]), (&json!("EXHAUSTED"), &json!(0)));
    app.work().await;
    app.end().await;
}

#[tokio::test]
async fn a_campaign_that_redis_does_not_know_is_unavailable_until_a_worker_creates_it() {
    let app = TestApp::new().await;
    let coupon = app.environment.campaign_in_database(open_terms()).await.id;
    let refused = app.claim(coupon, 1).await;
    assert_eq!((refused.status.as_u16(), refused.code()), (503, "CAMPAIGN_UNAVAILABLE"));
    assert_eq!(refused.header("retry-after"), Some("1"));
    reconcile_all(&app.environment.database, &app.environment.redis).await.expect("kept");
    assert_eq!(app.claim(coupon, 1).await.status, 202);
    app.work().await;
    app.end().await;
}

#[tokio::test]
async fn an_unknown_campaign_is_found_once_it_is_created() {
    let app = TestApp::new().await;
    let next = 1.try_into().expect("an id");
    assert_eq!(app.claim(next, 1).await.code(), "COUPON_NOT_FOUND");
    let made = app.administer("/admin/coupons", terms_body(|_| ())).await;
    assert_eq!(made.body["couponId"], json!(next));
    assert_eq!(app.claim(next, 1).await.status, 202);
    app.work().await;
    app.end().await;
}

/// Strict readers take one form of a time only.
#[tokio::test]
async fn times_always_have_milliseconds() {
    let app = TestApp::new().await;
    let mut body = crate::app::terms_body(|_| ());
    body["opensAt"] = "2031-01-01T09:00:00+09:00".into();
    body["closesAt"] = "2031-01-02T00:00:00.5Z".into();
    body["validity"] = serde_json::json!({ "until": "2031-01-03T00:00:00Z" });
    let created = app.administer("/admin/coupons", body).await;
    assert_eq!(created.status, 201, "{created:?}");
    assert_eq!(created.body["opensAt"], "2031-01-01T00:00:00.000Z");
    assert_eq!(created.body["closesAt"], "2031-01-02T00:00:00.500Z");
    assert_eq!(created.body["validity"]["until"], "2031-01-03T00:00:00.000Z");
    let shown = app.get(created.header("location").expect("where")).await;
    assert_eq!(shown.body["opensAt"], created.body["opensAt"]);
    let coupon = created.body["couponId"].as_u64().expect("an id").try_into().expect("an id");
    let early = app.claim(coupon, 1).await;
    assert_eq!((early.code(), &early.body["opensAt"]), ("CAMPAIGN_NOT_OPEN", &created.body["opensAt"]));
    assert!(early.body["detail"].as_str().expect("text").contains("2031-01-01T00:00:00.000Z"), "{early:?}");
    app.end().await;
}
