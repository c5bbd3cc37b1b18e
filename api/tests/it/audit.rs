//! Redis against MySQL, as an administrator asks for it and as the drift check names it.

use std::{collections::BTreeSet, time::Duration};

use dibs_common::{
    domain::campaign::CampaignTerms,
    identifiers::CouponId,
    testing::{eventually, open_terms},
};
use fred::interfaces::HashesInterface as _;
use futures::future::join_all;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::app::{ADMIN_TOKEN, Answer, ONLY, RULES, TestApp};

const NAMED_WITHIN: Duration = Duration::from_mins(1);

async fn administrator(app: &TestApp, method: Method, path: &str) -> Answer {
    Answer::of(app.request(method, path).bearer_auth(ADMIN_TOKEN)).await
}

async fn audit(app: &TestApp, coupon: CouponId, query: &str) -> Value {
    let answer = administrator(app, Method::GET, &format!("/admin/coupons/{coupon}/audit{query}")).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    answer.body
}

/// All differences, of terms, counts and claims.
async fn differences(app: &TestApp, coupon: CouponId) -> Vec<Value> {
    let mut page = audit(app, coupon, "").await;
    let mut all = page["summary"]["differences"].as_array().expect("differences").clone();
    loop {
        all.extend(page["items"].as_array().expect("items").clone());
        let Some(cursor) = page["nextCursor"].as_str() else { return all };
        page = audit(app, coupon, &format!("?cursor={cursor}")).await;
    }
}

fn kinds(differences: &[Value]) -> Vec<&str> {
    differences.iter().map(|difference| difference["kind"].as_str().expect("a kind")).collect()
}

async fn issue(app: &TestApp, coupon: CouponId, users: std::ops::RangeInclusive<u64>) {
    for user in users {
        assert_eq!(app.claim(coupon, user).await.status, 202);
    }
}

async fn rebuild(app: &TestApp, coupon: CouponId) {
    let requested = administrator(app, Method::POST, &format!("/admin/coupons/{coupon}/rebuild?reason=drift")).await;
    assert_eq!((requested.status.as_u16(), &requested.body["status"]), (202, &json!("PENDING")), "{requested:?}");
    let location = requested.header("location").expect("a location").to_owned();
    eventually("the rebuild is done", Duration::from_secs(20), async || {
        administrator(app, Method::GET, &location).await.body["status"] == "DONE"
    })
    .await;
}

/// Something that is changed behind the back of Dibs, and the kind of difference by which it is named.
#[derive(Clone, Copy, Debug)]
enum Fault {
    UserRemovedFromRedis,
    UserAddedToRedis,
    RecordChangedInRedis,
    GarbageInRedis,
    CountChangedInRedis,
    CountChangedInMysql,
    TermChangedInRedis,
    RowDeletedInMysql,
}

impl Fault {
    const ALL: [(Self, &'static str); 8] = [
        (Self::UserRemovedFromRedis, "MISSING_IN_REDIS"),
        (Self::UserAddedToRedis, "MISSING_IN_MYSQL"),
        (Self::RecordChangedInRedis, "RECORD_DIFFERS"),
        (Self::GarbageInRedis, "UNREADABLE_IN_REDIS"),
        (Self::CountChangedInRedis, "COUNT_DIFFERS"),
        (Self::CountChangedInMysql, "COUNT_DIFFERS"),
        (Self::TermChangedInRedis, "TERM_DIFFERS"),
        (Self::RowDeletedInMysql, "MISSING_IN_MYSQL"),
    ];

    async fn plant(self, app: &TestApp, coupon: CouponId) {
        let redis = app.environment.redis.client();
        let keys = &app.environment.redis.keys;
        let (campaign, claims) = (keys.campaign(ONLY, coupon), keys.claims(ONLY, coupon));
        match self {
            Self::UserRemovedFromRedis => redis.hdel::<(), _, _>(&claims, "3").await.expect("removed"),
            Self::UserAddedToRedis => {
                let record: Vec<u8> = redis.hget(&claims, "3").await.expect("a record");
                let other = [vec![7; 16], record[16..].to_vec()].concat();
                let value = fred::types::Value::Bytes(other.into());
                redis.hset::<(), _, _>(&claims, ("999", value)).await.expect("added");
            }
            Self::RecordChangedInRedis => {
                let mut record: Vec<u8> = redis.hget(&claims, "3").await.expect("a record");
                record[19] += 9;
                let value = fred::types::Value::Bytes(record.into());
                redis.hset::<(), _, _>(&claims, ("3", value)).await.expect("changed");
            }
            Self::GarbageInRedis => redis.hset::<(), _, _>(&claims, ("998", "mark")).await.expect("added"),
            Self::CountChangedInRedis => redis.hset::<(), _, _>(&campaign, ("claimed", 9)).await.expect("changed"),
            Self::TermChangedInRedis => redis.hset::<(), _, _>(&campaign, ("total", 99)).await.expect("changed"),
            Self::CountChangedInMysql => {
                let sql = format!("UPDATE coupons SET issued_quantity = 4 WHERE coupon_id = {coupon}");
                app.environment.execute(&sql).await;
            }
            Self::RowDeletedInMysql => {
                let sql = format!("DELETE FROM user_coupons WHERE coupon_id = {coupon} AND user_id = 2");
                app.environment.execute(&sql).await;
            }
        }
    }

    async fn is_named(app: &TestApp, coupon: CouponId, kind: &str) -> bool {
        let sql = format!(
            "SELECT COUNT(*) FROM outbox_events WHERE type = 'coupon.drift_detected' AND aggregate_id = '{coupon}' \
             AND CAST(payload AS CHAR) LIKE '%{kind}%'"
        );
        app.environment.count(&sql).await > 0
    }
}

#[tokio::test]
#[expect(clippy::print_stdout, reason = "the figures are part of what is shown")]
async fn i11_planted_drift_is_named_within_60_s_and_a_rebuild_fixes_it() {
    let mut app = TestApp::new().await;
    let mut planted = Vec::new();
    for (fault, kind) in Fault::ALL {
        let coupon = app.environment.campaign(10).await.id;
        issue(&app, coupon, 1..=5).await;
        planted.push((fault, kind, coupon));
    }
    app.work().await;
    app.start_worker(RULES);
    eventually("the worker has begun", Duration::from_secs(20), async || {
        app.environment.count("SELECT COUNT(*) FROM outbox_events WHERE sequence IS NULL").await == 0
    })
    .await;
    assert_eq!(app.environment.count(&events("coupon.drift_detected")).await, 0, "nothing differs yet");
    let named = join_all(planted.iter().map(async |(fault, kind, coupon)| {
        let began = Instant::now();
        fault.plant(&app, *coupon).await;
        eventually(&format!("{fault:?} is named"), NAMED_WITHIN, async || Fault::is_named(&app, *coupon, kind).await)
            .await;
        (fault, kind, began.elapsed())
    }));
    for (fault, kind, took) in named.await {
        println!("{fault:?} named as {kind} after {:.1} s", took.as_secs_f64());
    }
    for (fault, _, coupon) in &planted {
        rebuild(&app, *coupon).await;
        assert_eq!(differences(&app, *coupon).await, Vec::<Value>::new(), "{fault:?}");
    }
    app.end().await;
}

fn events(kind: &str) -> String {
    format!("SELECT COUNT(*) FROM outbox_events WHERE type = '{kind}'")
}

#[tokio::test]
async fn claims_on_their_way_are_no_differences() {
    let (app, coupon) = TestApp::with_campaign(10).await;
    issue(&app, coupon, 1..=5).await;
    let before = audit(&app, coupon, "").await;
    assert_eq!((&before["onTheirWay"], &before["items"], &before["nextCursor"]), (&json!(5), &json!([]), &Value::Null));
    assert_eq!(before["summary"]["stream"], json!({ "entries": 5, "onTheirWay": 5 }));
    assert_eq!(before["summary"]["differences"], json!([]));
    app.work().await;
    let after = audit(&app, coupon, "").await;
    assert_eq!((&after["onTheirWay"], &after["compared"]), (&json!(0), &json!(10)), "each twice: from both sides");
    let mysql = json!({ "issuedQuantity": 5, "rejectedQuantity": 0, "issuances": 5, "rejections": 0 });
    assert_eq!((&after["summary"]["mysql"], &after["items"]), (&mysql, &json!([])));
    assert_eq!(after["summary"]["redis"], json!({ "claimed": 5, "sequence": 5, "holders": 5 }));
    app.end().await;
}

/// A campaign with several claims of a user, and a rejected one.
#[tokio::test]
async fn each_claim_of_a_user_is_compared() {
    let app = TestApp::new().await;
    let terms = CampaignTerms { per_user_limit: 3, total_quantity: 10, ..open_terms() };
    let coupon = app.environment.campaign_of(terms).await.id;
    for _ in 0..3 {
        issue(&app, coupon, 1..=2).await;
    }
    app.work().await;
    assert_eq!(differences(&app, coupon).await, Vec::<Value>::new());
    app.environment.execute("DELETE FROM user_coupons WHERE user_id = 1 AND ordinal = 2").await;
    let found = differences(&app, coupon).await;
    assert_eq!(kinds(&found), ["COUNT_DIFFERS", "COUNT_DIFFERS", "MISSING_IN_MYSQL"], "{found:?}");
    assert_eq!(
        (&found[0]["field"], &found[0]["found"], &found[0]["expected"]),
        (&json!("issuedQuantity"), &json!("6"), &json!("5"))
    );
    assert_eq!((&found[2]["userId"], &found[2]["redis"]["sequence"]), (&json!(1), &json!(3)));
    app.end().await;
}

#[tokio::test]
async fn many_differences_are_listed_page_by_page_and_each_once() {
    let (app, coupon) = TestApp::with_campaign(3_000).await;
    let campaign = app.environment.redis.keys.claims(ONLY, coupon);
    let record = fred::types::Value::Bytes(vec![1; 26].into());
    let fields: Vec<(String, fred::types::Value)> =
        (1..=2_500).map(|user| (user.to_string(), record.clone())).collect();
    app.environment.redis.client().hset::<(), _, _>(&campaign, fields).await.expect("added");
    let (mut users, mut pages, mut query) = (BTreeSet::new(), 0, "?limit=100".to_owned());
    loop {
        let page = audit(&app, coupon, &query).await;
        let items = page["items"].as_array().expect("items");
        assert!(items.len() <= 100);
        for item in items {
            assert_eq!(item["kind"], "MISSING_IN_MYSQL");
            assert!(users.insert(item["userId"].as_u64().expect("a user")), "{item} comes twice");
        }
        pages += 1;
        let Some(cursor) = page["nextCursor"].as_str() else { break };
        query = format!("?limit=100&cursor={cursor}");
    }
    assert_eq!(users, (1..=2_500).collect());
    assert!((25..40).contains(&pages), "{pages}");
    app.end().await;
}

#[tokio::test]
async fn a_campaign_that_redis_does_not_hold_is_one_difference() {
    let (app, coupon) = TestApp::with_campaign(10).await;
    issue(&app, coupon, 1..=2).await;
    app.work().await;
    app.environment.lose_redis().await;
    let page = audit(&app, coupon, "").await;
    assert_eq!(kinds(page["summary"]["differences"].as_array().expect("some")), ["CAMPAIGN_MISSING"]);
    assert_eq!(
        (&page["items"], &page["nextCursor"], &page["summary"]["redis"]),
        (&json!([]), &Value::Null, &Value::Null)
    );
    let cursor = "issued.1790000000000.01985d5c-2a00-7000-8000-000000000002";
    let later = administrator(&app, Method::GET, &format!("/admin/coupons/{coupon}/audit?cursor={cursor}")).await;
    assert_eq!((later.status.as_u16(), later.code()), (503, "CAMPAIGN_UNAVAILABLE"));
    app.end().await;
}

#[tokio::test]
async fn wrong_requests_are_refused() {
    let (app, coupon) = TestApp::with_campaign(10).await;
    for (method, path) in [(Method::GET, "audit"), (Method::POST, "rebuild")] {
        let path = format!("/admin/coupons/{coupon}/{path}");
        assert_eq!(Answer::of(app.request(method.clone(), &path)).await.code(), "UNAUTHENTICATED");
        let unknown = path.replace(&coupon.to_string(), "4711");
        assert_eq!(administrator(&app, method, &unknown).await.code(), "COUPON_NOT_FOUND");
    }
    for query in ["cursor=held", "cursor=issued.7.1", "limit=0", "limit=101", "other=1", "cursor=held.-1"] {
        let refused = administrator(&app, Method::GET, &format!("/admin/coupons/{coupon}/audit?{query}")).await;
        assert_eq!(refused.code(), "VALIDATION_FAILED", "{query}");
    }
    let id = "018f0000-0000-7000-8000-000000000000";
    let unknown = administrator(&app, Method::GET, &format!("/admin/coupons/{coupon}/rebuilds/{id}")).await;
    assert_eq!((unknown.status.as_u16(), unknown.code()), (404, "REBUILD_NOT_FOUND"));
    app.end().await;
}

/// A rebuild that is requested while another process rebuilds the campaign waits, and is executed after that.
#[tokio::test]
async fn i12_a_rebuild_is_requested_once_and_waits_for_the_lease() {
    let (mut app, coupon) = TestApp::with_campaign(10).await;
    let held = app.environment.database.try_lease(&format!("rebuild {coupon}")).await.expect("asked").expect("free");
    let path = format!("/admin/coupons/{coupon}/rebuild");
    let request = async || {
        let request = app.request(Method::POST, &path).bearer_auth(ADMIN_TOKEN).header("idempotency-key", "once");
        Answer::of(request).await
    };
    let first = request().await;
    assert_eq!((first.status.as_u16(), request().await.body), (202, first.body.clone()));
    assert_eq!(app.environment.count("SELECT COUNT(*) FROM campaign_rebuilds").await, 1);
    let actions = administrator(&app, Method::GET, "/admin/actions?action=campaign.rebuild").await;
    assert_eq!(actions.body["items"][0]["after"]["rebuildId"], first.body["rebuildId"]);
    assert_eq!(actions.body["items"][0]["targetId"], json!(coupon.to_string()));
    app.start_worker(RULES);
    let location = first.header("location").expect("a location").to_owned();
    // A round executes the requests in the order of campaigns: after the second, the first was tried.
    let second = app.environment.campaign(10).await.id;
    rebuild(&app, second).await;
    assert_eq!(administrator(&app, Method::GET, &location).await.body["status"], "PENDING");
    held.release().await.expect("released");
    eventually("it is done", Duration::from_secs(10), async || {
        administrator(&app, Method::GET, &location).await.body["status"] == "DONE"
    })
    .await;
    app.end().await;
}
