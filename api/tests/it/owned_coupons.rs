use dibs_common::{
    domain::campaign::{CampaignTerms, Validity},
    testing::open_terms,
};
use serde_json::{Value, json};

use crate::app::TestApp;

async fn ids(app: &TestApp, query: &str) -> (Vec<Value>, Value) {
    let page = app.get(&format!("/users/1/coupons?{query}")).await;
    assert_eq!(page.status, 200);
    let items = page.body["items"].as_array().expect("items");
    (items.iter().map(|item| item["couponId"].clone()).collect(), page.body["nextCursor"].clone())
}

/// `002` section 2-2 and `000` section 3: the coupons that a user holds.
#[tokio::test]
async fn a_users_coupons_are_listed_newest_first_page_by_page() {
    let app = TestApp::new().await;
    let mut coupons = Vec::new();
    for _ in 0..3 {
        let coupon = app.environment.campaign(1).await.id;
        assert_eq!(app.claim(coupon, 1).await.status, 202);
        coupons.push(json!(coupon));
    }
    app.work().await;
    coupons.reverse();
    let (all, end) = ids(&app, "").await;
    assert_eq!((&all, &end), (&coupons, &Value::Null));
    let (first, cursor) = ids(&app, "limit=2").await;
    let (second, end) = ids(&app, &format!("limit=2&cursor={}", cursor.as_str().expect("a cursor"))).await;
    assert_eq!([first, second].concat(), coupons);
    assert_eq!(end, Value::Null);
    assert_eq!(app.get("/users/2/coupons").await.body["items"], json!([]));
    app.end().await;
}

/// The id of a claim that came by Kafka may follow from a plain request id: it says nothing of the time.
#[tokio::test]
async fn the_newest_coupon_comes_first_whatever_its_id() {
    let app = TestApp::new().await;
    let mut coupons = Vec::new();
    for claim in ["02", "ff", "01"] {
        let coupon = app.environment.campaign(1).await.id;
        assert_eq!(app.claim(coupon, 1).await.status, 202);
        app.work().await;
        let sql =
            format!("UPDATE user_coupons SET user_coupon_id = UNHEX(REPEAT('{claim}', 16)) WHERE coupon_id = {coupon}");
        app.environment.execute(&sql).await;
        // Of another millisecond than the next one.
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        coupons.insert(0, json!(coupon));
    }
    let (mut listed, mut query) = (Vec::new(), "limit=1".to_owned());
    loop {
        let (page, cursor) = ids(&app, &query).await;
        listed.extend(page);
        let Some(cursor) = cursor.as_str() else { break };
        query = format!("limit=1&cursor={cursor}");
    }
    assert_eq!(listed, coupons);
    app.end().await;
}

#[tokio::test]
async fn a_coupon_past_its_validity_shows_as_expired_at_once() {
    let app = TestApp::new().await;
    let terms = open_terms();
    let past = Validity::Until(terms.opens_at + chrono::TimeDelta::seconds(1));
    let expired = app.environment.campaign_of(CampaignTerms { validity: past, ..terms }).await.id;
    let usable = app.environment.campaign(1).await.id;
    app.claim(expired, 1).await;
    app.claim(usable, 1).await;
    app.work().await;
    assert_eq!(ids(&app, "status=USABLE").await.0, [json!(usable)]);
    assert_eq!(ids(&app, "status=EXPIRED").await.0, [json!(expired)]);
    assert_eq!(ids(&app, "status=USED").await.0, Vec::<Value>::new());
    assert_eq!(app.get("/users/1/coupons?status=EXPIRED").await.body["items"][0]["status"], "EXPIRED");
    app.end().await;
}
