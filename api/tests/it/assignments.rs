use std::time::Duration;

use chrono::TimeDelta;
use dibs_common::{
    clock,
    domain::campaign::{Campaign, CampaignState, CampaignTerms, Validity},
    identifiers::{CouponId, MAX_ID},
    redis::scripts::{CampaignCounts, campaign_put},
    testing::{eventually, open_terms},
};
use dibs_worker::assignments::assign_once;
use reqwest::Method;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::app::{ADMIN_TOKEN, Answer, TestApp};

fn path(coupon: CouponId) -> String {
    format!("/admin/coupons/{coupon}/assignments")
}

fn to(users: impl IntoIterator<Item = u64>) -> Value {
    let users: Vec<u64> = users.into_iter().collect();
    json!({ "expectedCount": users.len(), "userIds": users })
}

async fn assign(app: &TestApp, coupon: CouponId, body: Value) -> Answer {
    app.administer(&path(coupon), body).await
}

async fn assign_with_key(app: &TestApp, coupon: CouponId, body: Value, key: &str) -> Answer {
    let request = app.request(Method::POST, &path(coupon)).bearer_auth(ADMIN_TOKEN).header("idempotency-key", key);
    Answer::of(request.json(&body)).await
}

/// The assignment, as an administrator sees it.
async fn look(app: &TestApp, made: &Answer) -> Answer {
    let location = made.header("location").expect("where to look");
    Answer::of(app.request(Method::GET, location).bearer_auth(ADMIN_TOKEN)).await
}

#[tokio::test]
async fn a_coupon_whose_validity_is_over_is_not_assigned() {
    let app = TestApp::new().await;
    let validity = Validity::Until(clock::now() - TimeDelta::days(1));
    let coupon = app.environment.campaign_of(CampaignTerms { validity, ..open_terms() }).await.id;
    let refused = assign(&app, coupon, to([1, 2])).await;
    assert_eq!((refused.status.as_u16(), refused.code()), (400, "VALIDATION_FAILED"));
    assert_eq!(refused.body["errors"][0]["field"], "couponId");
    assert_eq!(assignments(&app).await, 0);
    app.end().await;
}

/// Executes what was assigned so far.
async fn execute(app: &TestApp) {
    while assign_once(&app.environment.database, &app.environment.redis, &CancellationToken::new())
        .await
        .expect("looked")
        > 0
    {
        app.work().await;
    }
}

async fn assignments(app: &TestApp) -> i64 {
    app.environment.count("SELECT COUNT(*) FROM assignments").await
}

/// Seed 001, section 3: an administrator issues a coupon, it is assigned to users, and they are notified.
#[tokio::test]
async fn seed_001_3_a_coupon_is_assigned_to_users_who_are_notified() {
    let app = TestApp::new().await;
    let now = clock::now();
    let terms = CampaignTerms { opens_at: now + TimeDelta::minutes(30), ..open_terms() };
    let made = app.administer("/admin/coupons", serde_json::to_value(terms).expect("JSON")).await;
    let coupon: CouponId = serde_json::from_value(made.body["couponId"].clone()).expect("an id");
    let accepted = assign(&app, coupon, to([7, 3, 9])).await;
    assert_eq!(accepted.status, 202);
    assert_eq!((&accepted.body["couponId"], &accepted.body["requested"]), (&json!(coupon), &json!(3)));
    assert_eq!(accepted.body["status"], "PENDING");
    let id = accepted.body["assignmentId"].as_str().expect("an id");
    assert_eq!(accepted.header("location"), Some(format!("{}/{id}", path(coupon)).as_str()));
    let pending = look(&app, &accepted).await;
    assert_eq!((pending.status.as_u16(), &pending.body["status"]), (200, &json!("PENDING")));
    assert_eq!((&pending.body["assigned"], &pending.body["refused"]), (&json!(0), &json!({})));

    execute(&app).await;
    let done = look(&app, &accepted).await;
    assert_eq!((&done.body["status"], &done.body["assigned"]), (&json!("DONE"), &json!(3)));
    assert_eq!((&done.body["requested"], &done.body["refused"]), (&json!(3), &json!({})));
    let owned = app.get("/users/7/coupons?status=USABLE").await;
    assert_eq!(owned.body["items"][0]["couponId"], json!(coupon));
    assert_eq!(app.claim_state(coupon, 7).await.body["status"], "ISSUED");
    let shown = app.get(&format!("/coupons/{coupon}")).await;
    assert_eq!((&shown.body["remaining"], &shown.body["status"]), (&json!(7), &json!("SCHEDULED")));
    let events =
        app.environment.texts("SELECT CAST(payload AS CHAR) FROM outbox_events WHERE type = 'coupon.issued'").await;
    let mut users: Vec<u64> = Vec::new();
    for payload in events {
        let payload: Value = serde_json::from_str(&payload).expect("JSON");
        let issuances = payload["issuances"].as_array().expect("issuances");
        users.extend(issuances.iter().filter_map(|issuance| issuance[0].as_u64()));
    }
    users.sort_unstable();
    assert_eq!(users, [3, 7, 9], "each is notified once");
    app.end().await;
}

#[tokio::test]
async fn seed_001_3_an_assignment_that_is_not_as_expected_is_refused_and_nothing_happens() {
    let (app, coupon) = TestApp::with_campaign(10).await;
    let fields = |answer: &Answer| {
        assert_eq!((answer.status.as_u16(), answer.code()), (400, "VALIDATION_FAILED"));
        let errors = answer.body["errors"].as_array().expect("fields");
        errors.iter().map(|error| error["field"].as_str().expect("a field").to_owned()).collect::<Vec<_>>()
    };
    let differs = assign(&app, coupon, json!({ "userIds": [1, 2, 3], "expectedCount": 4 })).await;
    assert_eq!(fields(&differs), ["expectedCount"]);
    assert_eq!(fields(&assign(&app, coupon, to([1, 2, 1])).await), ["userIds"]);
    assert_eq!(fields(&assign(&app, coupon, to([])).await), ["userIds"]);
    assert_eq!(fields(&assign(&app, coupon, to(1..=10_001)).await), ["userIds"]);
    assert_eq!(fields(&assign(&app, coupon, to([1, 0])).await), ["userIds[1]"]);
    assert_eq!(fields(&assign(&app, coupon, json!({ "userIds": [1] })).await), ["expectedCount"]);
    let long = assign(&app, coupon, json!({ "userIds": "x".repeat(600 * 1024) })).await;
    assert_eq!((long.status.as_u16(), long.code()), (413, "PAYLOAD_TOO_LARGE"));
    let unknown = assign(&app, 4242.try_into().expect("an id"), to([1])).await;
    assert_eq!((unknown.status.as_u16(), unknown.code()), (404, "COUPON_NOT_FOUND"));
    let stranger = app.post(&path(coupon), to([1])).await;
    assert_eq!((stranger.status.as_u16(), stranger.code()), (401, "UNAUTHENTICATED"));
    assert_eq!(assignments(&app).await, 0);
    app.end().await;
}

#[tokio::test]
async fn an_assignment_is_shown_to_administrators_of_its_coupon_only() {
    let app = TestApp::new().await;
    let (coupon, other) = (app.environment.campaign(10).await.id, app.environment.campaign(10).await.id);
    let made = assign(&app, coupon, to([1])).await;
    let id = made.body["assignmentId"].as_str().expect("an id");
    let stranger = app.get(made.header("location").expect("where")).await;
    assert_eq!((stranger.status.as_u16(), stranger.code()), (401, "UNAUTHENTICATED"));
    let elsewhere = app.request(Method::GET, &format!("{}/{id}", path(other))).bearer_auth(ADMIN_TOKEN);
    let elsewhere = Answer::of(elsewhere).await;
    assert_eq!((elsewhere.status.as_u16(), elsewhere.code()), (404, "ASSIGNMENT_NOT_FOUND"));
    for (key, expected) in [("x", "ASSIGNMENT_NOT_FOUND"), ("-x", "VALIDATION_FAILED"), ("a%20b", "VALIDATION_FAILED")]
    {
        let unknown = app.request(Method::GET, &format!("{}/{key}", path(coupon))).bearer_auth(ADMIN_TOKEN);
        assert_eq!(Answer::of(unknown).await.code(), expected, "{key}");
    }
    execute(&app).await;
    app.end().await;
}

#[tokio::test]
async fn users_who_have_it_and_those_too_many_are_refused_and_counted_by_code() {
    let (app, coupon) = TestApp::with_campaign(4).await;
    app.claim(coupon, 1).await;
    app.claim(coupon, 2).await;
    let made = assign(&app, coupon, to(1..=10)).await;
    execute(&app).await;
    let done = look(&app, &made).await;
    assert_eq!((&done.body["status"], &done.body["assigned"]), (&json!("DONE"), &json!(2)));
    assert_eq!(done.body["refused"], json!({ "COUPON_ALREADY_ISSUED": 2, "COUPON_EXHAUSTED": 6 }));
    assert_eq!(app.claim(coupon, 11).await.code(), "COUPON_EXHAUSTED");
    assert_eq!(app.claim(coupon, 3).await.code(), "COUPON_ALREADY_ISSUED");
    app.end().await;
}

#[tokio::test]
async fn a_closed_campaign_is_not_assigned_any_more_and_a_paused_one_is() {
    let app = TestApp::new().await;
    let campaign = app.environment.campaign(10).await;
    let set = async |state: CampaignState| {
        app.environment.execute(&format!("UPDATE coupons SET state = '{}'", state.into_str())).await;
        let changed = Campaign { state, ..campaign.clone() };
        campaign_put(&app.environment.redis, &changed, CampaignCounts::default()).await.expect("put");
    };
    set(CampaignState::Paused).await;
    let made = assign(&app, campaign.id, to([1, 2])).await;
    execute(&app).await;
    assert_eq!(look(&app, &made).await.body["assigned"], 2);
    let late = assign_with_key(&app, campaign.id, to([3]), "late").await;
    set(CampaignState::Closed).await;
    execute(&app).await;
    let late = look(&app, &late).await;
    assert_eq!((&late.body["status"], &late.body["assigned"]), (&json!("DONE"), &json!(0)));
    assert_eq!(late.body["refused"], json!({ "CAMPAIGN_CLOSED": 1 }));
    let refused = assign(&app, campaign.id, to([4])).await;
    assert_eq!((refused.status.as_u16(), refused.code()), (422, "CAMPAIGN_CLOSED"));
    app.end().await;
}

/// I12, also when the first answer was never stored.
#[tokio::test]
async fn i12_an_assignment_with_the_same_key_is_made_once() {
    let (app, coupon) = TestApp::with_campaign(10).await;
    let first = assign_with_key(&app, coupon, to([1, 2]), "key").await;
    let repeat = assign_with_key(&app, coupon, to([1, 2]), "key").await;
    assert_eq!((&repeat.body, repeat.header("idempotent-replayed")), (&first.body, Some("true")));
    assert_eq!(repeat.header("location"), first.header("location"));
    app.environment.execute("UPDATE idempotency_keys SET status = NULL, in_progress_until = NULL").await;
    let again = assign_with_key(&app, coupon, to([1, 2]), "key").await;
    assert_eq!((&again.body, again.header("idempotent-replayed")), (&first.body, None));
    assert_eq!(assign_with_key(&app, coupon, to([1]), "key").await.code(), "IDEMPOTENCY_KEY_REUSED");
    assert_eq!(assignments(&app).await, 1);
    execute(&app).await;
    assert_eq!(app.environment.count("SELECT COUNT(*) FROM user_coupons").await, 2);
    app.end().await;
}

/// By a worker that runs as in production, and with the longest ids that there are.
#[tokio::test]
async fn ten_thousand_users_are_assigned_in_one_call() {
    let app = TestApp::with_worker().await;
    let coupon = app.environment.campaign(10_000).await.id;
    let last = MAX_ID;
    let made = assign_with_key(&app, coupon, to(last - 9_999..=last), "all").await;
    assert_eq!((made.status.as_u16(), &made.body["requested"]), (202, &json!(10_000)));
    eventually("all have it", Duration::from_secs(30), async || look(&app, &made).await.body["status"] == "DONE").await;
    let done = look(&app, &made).await;
    assert_eq!((&done.body["assigned"], &done.body["refused"]), (&json!(10_000), &json!({})));
    assert_eq!(app.environment.count("SELECT COUNT(DISTINCT user_id) FROM user_coupons").await, 10_000);
    let events = "SELECT SUM(JSON_LENGTH(payload, '$.issuances')) FROM outbox_events WHERE type = 'coupon.issued'";
    assert_eq!(app.environment.count(events).await, 10_000);
    app.end().await;
}
