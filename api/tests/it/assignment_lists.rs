//! Assignments of lists that are uploaded: nothing has an effect before all of it is right.

use std::{convert::Infallible, time::Duration};

use chrono::TimeDelta;
use dibs_api::settings::ApiSettings;
use dibs_common::{
    clock,
    identifiers::CouponId,
    testing::{TestEnvironment, eventually},
};
use dibs_worker::assignments::{assign_once, clean_up};
use futures::{StreamExt as _, future::join_all, stream};
use http_body_util::StreamBody;
use hyper::body::Frame;
use reqwest::{Body, Method, RequestBuilder};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::app::{ADMIN_TOKEN, Answer, TestApp};

fn path(coupon: CouponId, key: &str) -> String {
    format!("/admin/coupons/{coupon}/assignments/{key}")
}

fn put(app: &TestApp, coupon: CouponId, key: &str, expected_count: u64) -> RequestBuilder {
    let path = format!("{}?expectedCount={expected_count}&reason=spring", path(coupon, key));
    app.request(Method::PUT, &path).bearer_auth(ADMIN_TOKEN).header("content-type", "application/x-ndjson")
}

async fn upload(app: &TestApp, coupon: CouponId, key: &str, list: &str) -> Answer {
    let count = list.lines().count() as u64;
    Answer::of(put(app, coupon, key, count).body(list.to_owned())).await
}

fn list(users: impl IntoIterator<Item = u64>) -> String {
    let lines = users.into_iter().map(|user| format!("{{\"userId\":{user}}}"));
    lines.collect::<Vec<_>>().join("\n") + "\n"
}

async fn administer(app: &TestApp, method: Method, path: &str) -> Answer {
    Answer::of(app.request(method, path).bearer_auth(ADMIN_TOKEN)).await
}

async fn look(app: &TestApp, coupon: CouponId, key: &str) -> Answer {
    administer(app, Method::GET, &path(coupon, key)).await
}

/// Executes what was assigned so far, and removes lists without an effect.
async fn execute(app: &TestApp) {
    let (database, redis, stopping) = (&app.environment.database, &app.environment.redis, CancellationToken::new());
    while assign_once(database, redis, &stopping).await.expect("looked") > 0 {
        app.work().await;
    }
    clean_up(database, clock::now(), &stopping).await.expect("removed");
}

async fn with_settings(change: impl FnOnce(&mut ApiSettings)) -> (TestApp, CouponId) {
    let environment = TestEnvironment::new().await;
    let shared = environment.settings.clone();
    let app = TestApp::with(environment, shared, change).await;
    let coupon = app.environment.campaign(100_000).await.id;
    (app, coupon)
}

const USERS: &str = "SELECT COUNT(*) FROM assignment_users";
const ISSUED: &str = "SELECT COUNT(*) FROM user_coupons";
const ACTIONS: &str = "SELECT COUNT(*) FROM admin_actions WHERE action LIKE 'assignment.%'";

/// Executes what is pending; then so many coupons are issued.
async fn expect_issued(app: &TestApp, coupons: i64) {
    execute(app).await;
    app.environment.expect_counts([(ISSUED, coupons)]).await;
}

/// Nothing is left of what was refused.
async fn expect_nothing(app: &TestApp) {
    execute(app).await;
    for table in ["assignments", "assignment_users", "assignment_uploads", "assignment_budgets", "user_coupons"] {
        assert_eq!(app.environment.count(&format!("SELECT COUNT(*) FROM {table}")).await, 0, "{table}");
    }
}

#[tokio::test]
async fn a_list_is_uploaded_and_every_user_gets_the_coupon() {
    let (app, coupon) = TestApp::with_campaign(10_000).await;
    let accepted = upload(&app, coupon, "vip", &list((1..=5_000).rev())).await;
    assert_eq!(accepted.status, 202, "{accepted:?}");
    assert_eq!(accepted.header("location"), Some(path(coupon, "vip").as_str()));
    let body = &accepted.body;
    assert_eq!((&body["key"], &body["requested"], &body["status"]), (&json!("vip"), &json!(5_000), &json!("PENDING")));
    assert_eq!((&body["assigned"], &body["requestedBy"]), (&json!(0), &json!("ADMIN_TOKEN")));
    execute(&app).await;
    let done = look(&app, coupon, "vip").await;
    assert_eq!((&done.body["status"], &done.body["assigned"]), (&json!("DONE"), &json!(5_000)));
    let by_id = look(&app, coupon, done.body["assignmentId"].as_str().expect("an id")).await;
    assert_eq!(by_id.body, done.body);
    let listed = administer(&app, Method::GET, &format!("/admin/coupons/{coupon}/assignments?status=DONE")).await;
    assert_eq!(listed.body, json!({ "items": [done.body], "nextCursor": null }));
    app.environment
        .expect_counts([
            (ISSUED, 5_000),
            ("SELECT COUNT(DISTINCT user_id) FROM user_coupons", 5_000),
            ("SELECT sequence FROM user_coupons WHERE user_id = 5000", 1),
            ("SELECT COUNT(*) FROM admin_actions WHERE action = 'assignment.create' AND reason = 'spring'", 1),
        ])
        .await;
    app.end().await;
}

#[tokio::test]
async fn i12_the_same_list_with_the_same_key_has_one_effect_and_another_list_is_refused() {
    let (app, coupon) = TestApp::with_campaign(10_000).await;
    let all = list(1..=3_000);
    let racing = join_all((0..4).map(|_| upload(&app, coupon, "vip", &all))).await;
    let id = &racing[0].body["assignmentId"];
    for answer in &racing {
        assert_eq!((answer.status.as_u16(), &answer.body["assignmentId"]), (202, id), "{answer:?}");
    }
    execute(&app).await;
    let repeated = upload(&app, coupon, "vip", &all.replace("{\"userId\":", "").replace('}', "\r")).await;
    assert_eq!((&repeated.body["assignmentId"], &repeated.body["status"]), (id, &json!("DONE")), "numbers, too");
    for other in [list(2..=3_001), list((1..=3_000).rev()), list(1..=2_999)] {
        let refused = upload(&app, coupon, "vip", &other).await;
        assert_eq!((refused.status.as_u16(), refused.code()), (422, "ASSIGNMENT_KEY_REUSED"));
    }
    let of_another_coupon = app.environment.campaign(10).await.id;
    assert_eq!(upload(&app, of_another_coupon, "vip", &list([1])).await.status, 202, "keys are of a coupon");
    execute(&app).await;
    app.environment.expect_counts([(USERS, 3_001), (ISSUED, 3_001), (ACTIONS, 2)]).await;
    app.environment.expect_counts([("SELECT COUNT(*) FROM assignment_uploads", 0)]).await;
    app.end().await;
}

#[tokio::test]
async fn a_list_that_is_not_as_expected_is_refused_and_nothing_happens() {
    let (app, coupon) = with_settings(|settings| settings.assignments.assignment_max_users = 5_000).await;
    let fields = |answer: &Answer| {
        assert_eq!((answer.status.as_u16(), answer.code()), (400, "VALIDATION_FAILED"), "{answer:?}");
        let errors = answer.body["errors"].as_array().expect("fields");
        errors.iter().map(|error| error["field"].as_str().expect("a field").to_owned()).collect::<Vec<_>>()
    };
    let send = async |count: u64, list: String| Answer::of(put(&app, coupon, "k", count).body(list)).await;
    assert_eq!(fields(&send(4, list(1..=3)).await), ["expectedCount"]);
    assert_eq!(fields(&send(2, list(1..=3)).await), ["expectedCount"]);
    assert_eq!(fields(&send(5_001, list([1])).await), ["expectedCount"]);
    assert_eq!(fields(&send(0, String::new()).await), ["expectedCount"]);
    assert_eq!(fields(&send(5, "1\nx\n3\n\n5".into()).await), ["line 2", "line 4"]);
    assert_eq!(fields(&send(3, "7\n8\n7".into()).await), ["line 3"], "in one part");
    let far_apart = format!("{}9\n4000\n", list(1..=4_000));
    assert_eq!(fields(&send(4_002, far_apart).await), ["line 4001", "line 4002"], "in another part");
    assert_eq!(fields(&send(4_000, "x\n".repeat(4_000)).await).len(), 20, "no more are named");
    assert_eq!(fields(&send(1, "1".repeat(300_000)).await), ["line 1"]);
    let json = app.request(Method::PUT, &format!("{}?expectedCount=1", path(coupon, "k"))).bearer_auth(ADMIN_TOKEN);
    let json = json.header("content-type", "application/json").body("1");
    let without_count = app.request(Method::PUT, &path(coupon, "k")).bearer_auth(ADMIN_TOKEN);
    let without_count = without_count.header("content-type", "application/x-ndjson").body("1");
    let compressed = put(&app, coupon, "k", 1).header("content-encoding", "gzip").body("1");
    let stranger = app.request(Method::PUT, &format!("{}?expectedCount=1", path(coupon, "k"))).body("1");
    let unknown = put(&app, 4242.try_into().expect("an id"), "k", 1).body("1");
    let of_no_name = put(&app, coupon, "-k", 1).body("1");
    for (request, expected) in [
        (without_count, (400, "VALIDATION_FAILED")),
        (of_no_name, (400, "VALIDATION_FAILED")),
        (stranger, (401, "UNAUTHENTICATED")),
        (unknown, (404, "COUPON_NOT_FOUND")),
        (compressed, (415, "UNSUPPORTED_MEDIA_TYPE")),
        (json, (415, "UNSUPPORTED_MEDIA_TYPE")),
    ] {
        let refused = Answer::of(request).await;
        assert_eq!((refused.status.as_u16(), refused.code()), expected);
    }
    expect_nothing(&app).await;
    assert_eq!(look(&app, coupon, "k").await.code(), "ASSIGNMENT_NOT_FOUND");
    app.end().await;
}

/// A body that arrives in these pieces and then stays silent.
fn stalled(pieces: Vec<String>) -> Body {
    let pieces = stream::iter(pieces).map(|piece| Ok::<_, Infallible>(Frame::data(bytes::Bytes::from(piece))));
    Body::wrap(StreamBody::new(pieces.chain(stream::pending())))
}

#[tokio::test]
async fn a_body_that_stalls_is_408_and_its_users_are_removed() {
    let (app, coupon) = TestApp::with_campaign(10_000).await;
    let pieces = vec![list(1..=3_000), list(3_001..=4_000)];
    let refused = Answer::of(put(&app, coupon, "k", 5_000).body(stalled(pieces))).await;
    assert_eq!((refused.status.as_u16(), refused.code()), (408, "REQUEST_TIMEOUT"));
    expect_nothing(&app).await;
    assert_eq!(upload(&app, coupon, "k", &list(1..=5_000)).await.status, 202, "the list can be sent again");
    expect_issued(&app, 5_000).await;
    app.end().await;
}

#[tokio::test]
async fn an_upload_that_breaks_off_is_removed_after_a_while_and_can_be_sent_again() {
    let (app, coupon) = TestApp::with_campaign(10_000).await;
    let request = put(&app, coupon, "k", 5_000).body(stalled(vec![list(1..=3_000)]));
    let sending = tokio::spawn(request.send());
    eventually("a part has arrived", Duration::from_secs(9), async || app.environment.count(USERS).await > 0).await;
    let (database, stopping) = (&app.environment.database, CancellationToken::new());
    clean_up(database, clock::now(), &stopping).await.expect("nothing to do");
    assert!(app.environment.count(USERS).await > 0, "it still arrives");
    // The API may notice at once, and remove them itself.
    sending.abort();
    assert_eq!(upload(&app, coupon, "k", &list(1..=5_000)).await.status, 202);
    clean_up(database, clock::now() + TimeDelta::minutes(16), &stopping).await.expect("removed");
    app.environment.expect_counts([(USERS, 5_000), ("SELECT COUNT(*) FROM assignment_uploads", 0)]).await;
    expect_issued(&app, 5_000).await;
    app.end().await;
}

#[tokio::test]
async fn only_four_lists_arrive_at_once() {
    let (app, coupon) = TestApp::with_campaign(10_000).await;
    let begin = |key: u32| {
        let request = put(&app, coupon, &format!("k{key}"), 5_000).body(stalled(vec![list(1..=3_000)]));
        tokio::spawn(request.send())
    };
    let sending: Vec<_> = (0..4).map(begin).collect();
    let arriving = "SELECT COUNT(*) FROM assignment_uploads";
    eventually("four arrive", Duration::from_secs(9), async || app.environment.count(arriving).await == 4).await;
    let refused = upload(&app, coupon, "fifth", &list([1])).await;
    assert_eq!((refused.status.as_u16(), refused.code()), (503, "OVERLOADED"));
    for sending in &sending {
        sending.abort();
    }
    eventually("there is room again", Duration::from_secs(9), async || {
        upload(&app, coupon, "fifth", &list([1])).await.status == 202
    })
    .await;
    clean_up(&app.environment.database, clock::now() + TimeDelta::minutes(16), &CancellationToken::new())
        .await
        .expect("removed");
    execute(&app).await;
    app.environment.expect_counts([(USERS, 1), (ISSUED, 1)]).await;
    app.end().await;
}

#[tokio::test]
async fn who_was_refused_and_why_is_a_list_in_pages() {
    let (app, coupon) = TestApp::with_campaign(4).await;
    app.claim(coupon, 1).await;
    app.claim(coupon, 2).await;
    app.work().await;
    upload(&app, coupon, "k", &list(1..=9)).await;
    execute(&app).await;
    let done = look(&app, coupon, "k").await;
    assert_eq!(done.body["refused"], json!({ "COUPON_ALREADY_ISSUED": 2, "COUPON_EXHAUSTED": 5 }));
    let mut refused = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = format!("{}/refused?limit=3{cursor}", path(coupon, "k"));
        let page = administer(&app, Method::GET, &page).await;
        assert_eq!(page.status, 200, "{page:?}");
        let items = page.body["items"].as_array().expect("items");
        refused.extend(items.iter().map(|item| (item["code"].clone(), item["userId"].as_u64().expect("a user"))));
        let Some(next) = page.body["nextCursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    let issued = [1, 2].map(|user| (json!("COUPON_ALREADY_ISSUED"), user));
    let exhausted = (5..=9).map(|user| (json!("COUPON_EXHAUSTED"), user));
    assert_eq!(refused, issued.into_iter().chain(exhausted).collect::<Vec<(Value, u64)>>());
    let of_one = format!("{}/refused?code=COUPON_ALREADY_ISSUED", path(coupon, "k"));
    let of_one = administer(&app, Method::GET, &of_one).await;
    assert_eq!(of_one.body["items"].as_array().map(Vec::len), Some(2));
    let missing = administer(&app, Method::GET, &format!("{}/refused", path(coupon, "other"))).await;
    assert_eq!(missing.code(), "ASSIGNMENT_NOT_FOUND");
    app.end().await;
}

#[tokio::test]
async fn a_budget_of_a_day_is_not_exceeded_by_any_number_of_assignments_at_once() {
    let (app, coupon) = with_settings(|settings| settings.assignments.assignment_daily_budget = 1_000).await;
    let keys: Vec<String> = (0..8).map(|key| format!("k{key}")).collect();
    let lists: Vec<String> = (0..8).map(|key| list(key * 300 + 1..=key * 300 + 300)).collect();
    let mut answers = Vec::new();
    for pair in keys.iter().zip(&lists).collect::<Vec<_>>().chunks(4) {
        answers.extend(join_all(pair.iter().map(|(key, list)| upload(&app, coupon, key, list))).await);
    }
    let accepted = answers.iter().filter(|answer| answer.status == 202).count();
    assert_eq!(accepted, 3, "{answers:?}");
    let refused = upload(&app, coupon, "more", &list(9_000..9_200)).await;
    assert_eq!((refused.status.as_u16(), refused.code()), (422, "ASSIGNMENT_BUDGET_EXCEEDED"));
    let facts = ["requested", "assigned", "budget"].map(|field| refused.body[field].as_u64());
    assert_eq!(facts, [Some(200), Some(900), Some(1_000)]);
    assert!(refused.body["businessDay"].is_string());
    let body = json!({ "userIds": (9_000..9_101).collect::<Vec<u64>>(), "expectedCount": 101 });
    let refused = app.administer(&format!("/admin/coupons/{coupon}/assignments"), body).await;
    assert_eq!(refused.code(), "ASSIGNMENT_BUDGET_EXCEEDED", "of both calls");
    assert_eq!(upload(&app, coupon, "rest", &list(9_000..9_100)).await.status, 202);
    let other = app.environment.campaign(1_000).await.id;
    assert_eq!(upload(&app, other, "k", &list(1..=1_000)).await.status, 202, "a budget is of a campaign");
    app.environment.execute("UPDATE assignment_budgets SET business_day = business_day - INTERVAL 1 DAY").await;
    assert_eq!(upload(&app, coupon, "next day", &list([1])).await.code(), "VALIDATION_FAILED");
    assert_eq!(upload(&app, coupon, "next-day", &list(7_000..7_500)).await.status, 202, "and of a day");
    expect_issued(&app, 2_500).await;
    let pool = app.environment.database.pool();
    let beyond = sqlx::query("UPDATE assignment_budgets SET assigned = budget + 1").execute(&pool).await;
    assert!(beyond.is_err(), "the table itself refuses more");
    app.end().await;
}

#[tokio::test]
async fn an_assignment_above_the_threshold_awaits_a_second_administrator() {
    let (app, coupon) = with_settings(|settings| settings.assignments.assignment_approval_threshold = 10).await;
    let accepted = upload(&app, coupon, "many", &list(1..=11)).await;
    assert_eq!((accepted.status.as_u16(), &accepted.body["status"]), (202, &json!("AWAITING_APPROVAL")));
    assert!(accepted.body["approvalExpiresAt"].is_string());
    assert_eq!(upload(&app, coupon, "few", &list(101..=110)).await.body["status"], "PENDING");
    expect_issued(&app, 10).await;
    let approve = format!("{}/approve", path(coupon, "many"));
    let own = administer(&app, Method::POST, &approve).await;
    assert_eq!((own.status.as_u16(), own.code()), (403, "FORBIDDEN"), "not the one who asked");
    let awaiting = format!("/admin/coupons/{coupon}/assignments?status=AWAITING_APPROVAL");
    let awaiting = administer(&app, Method::GET, &awaiting).await;
    assert_eq!(awaiting.body["items"].as_array().map(Vec::len), Some(1));

    // Another administrator asked for it.
    app.environment.execute("UPDATE assignments SET requested_by = 'ann' WHERE assignment_key = 'many'").await;
    for _twice in 0..2 {
        let approved = administer(&app, Method::POST, &approve).await;
        assert_eq!(approved.status, 200, "{approved:?}");
        assert_eq!((&approved.body["status"], &approved.body["decidedBy"]), (&json!("PENDING"), &json!("ADMIN_TOKEN")));
    }
    execute(&app).await;
    app.environment.expect_counts([(ISSUED, 21), (ACTIONS, 3)]).await;
    app.environment.expect_counts([("SELECT SUM(assigned) FROM assignment_budgets", 21)]).await;
    let reject = format!("{}/reject", path(coupon, "many"));
    let late = administer(&app, Method::POST, &reject).await;
    assert_eq!((late.status.as_u16(), late.code()), (409, "ASSIGNMENT_STATE_CONFLICT"));
    assert_eq!(late.body["assignmentStatus"], "DONE");
    let missing = administer(&app, Method::POST, &format!("{}/approve", path(coupon, "none"))).await;
    assert_eq!(missing.code(), "ASSIGNMENT_NOT_FOUND");
    app.end().await;
}

#[tokio::test]
async fn a_rejected_assignment_and_one_that_is_not_approved_in_time_have_no_effect() {
    let (app, coupon) = with_settings(|settings| settings.assignments.assignment_approval_threshold = 1).await;
    for key in ["rejected", "expired"] {
        assert_eq!(upload(&app, coupon, key, &list(1..=5_000)).await.status, 202);
    }
    let reject = format!("{}/reject?reason=no", path(coupon, "rejected"));
    for _twice in 0..2 {
        let rejected = administer(&app, Method::POST, &reject).await;
        assert_eq!((rejected.status.as_u16(), &rejected.body["status"]), (200, &json!("REJECTED")));
    }
    let past = clock::now() + TimeDelta::hours(25);
    clean_up(&app.environment.database, past, &CancellationToken::new()).await.expect("expired");
    assert_eq!(look(&app, coupon, "expired").await.body["status"], "EXPIRED");
    app.environment.execute("UPDATE assignments SET requested_by = 'ann'").await;
    for key in ["rejected", "expired"] {
        let late = administer(&app, Method::POST, &format!("{}/approve", path(coupon, key))).await;
        assert_eq!((late.status.as_u16(), late.code()), (409, "ASSIGNMENT_STATE_CONFLICT"));
    }
    execute(&app).await;
    app.environment.execute("UPDATE assignment_uploads SET expires_at = NOW(3) - INTERVAL 1 DAY").await;
    execute(&app).await;
    app.environment.expect_counts([(USERS, 0), (ISSUED, 0), (ACTIONS, 4)]).await;
    let repeated = upload(&app, coupon, "rejected", &list(1..=5_000)).await;
    assert_eq!(repeated.body["status"], "REJECTED", "its key is used");
    app.end().await;
}

#[tokio::test]
async fn a_campaign_that_is_closed_meanwhile_is_not_assigned() {
    let (app, coupon) = with_settings(|settings| settings.assignments.assignment_approval_threshold = 1).await;
    upload(&app, coupon, "many", &list(1..=3)).await;
    app.environment.execute("UPDATE assignments SET requested_by = 'ann'").await;
    administer(&app, Method::POST, &format!("/admin/coupons/{coupon}/close")).await;
    let late = administer(&app, Method::POST, &format!("{}/approve", path(coupon, "many"))).await;
    assert_eq!((late.status.as_u16(), late.code()), (422, "CAMPAIGN_CLOSED"));
    assert_eq!(upload(&app, coupon, "more", &list(1..=3)).await.code(), "CAMPAIGN_CLOSED");
    expect_issued(&app, 0).await;
    app.end().await;
}
