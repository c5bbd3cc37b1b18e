//! Campaigns that administrators change, pause and close while they run.

use std::time::Duration;

use dibs_common::{
    campaigns, db,
    domain::campaign::{Campaign, CampaignTerms},
    identifiers::CouponId,
    redis::scripts::{CampaignLowered, campaign_lower},
    testing::{TestEnvironment, eventually},
};
use dibs_worker::campaigns::reconcile_all;
use reqwest::Method;
use serde_json::{Value, json};

use crate::app::{ADMIN_TOKEN, Answer, TestApp, terms_body};

/// What takes effect "within a second" is awaited so long.
const SECOND: Duration = Duration::from_secs(1);

struct Shop {
    app: TestApp,
    coupon: CouponId,
    path: String,
}

impl Shop {
    /// A shop with an open campaign.
    async fn open(total_quantity: u32) -> Self {
        Self::with(TestApp::new().await, total_quantity).await
    }

    async fn with(app: TestApp, total_quantity: u32) -> Self {
        let coupon = app.environment.campaign(total_quantity).await.id;
        Self { path: format!("/admin/coupons/{coupon}"), app, coupon }
    }

    async fn call(&self, method: Method, path: &str) -> Answer {
        Answer::of(self.app.request(method, path).bearer_auth(ADMIN_TOKEN)).await
    }

    async fn shown(&self) -> Answer {
        self.call(Method::GET, &self.path).await
    }

    async fn post(&self, action: &str) -> Answer {
        self.call(Method::POST, &format!("{}/{action}", self.path)).await
    }

    async fn patch(&self, query: &str, if_match: Option<&str>, body: Value) -> Answer {
        let request = self.app.request(Method::PATCH, &format!("{}{query}", self.path)).bearer_auth(ADMIN_TOKEN);
        let request = if_match.into_iter().fold(request, |request, tag| request.header("if-match", tag));
        Answer::of(request.json(&body)).await
    }

    async fn set_quantity(&self, quantity: u32) -> Answer {
        self.patch("", Some("*"), json!({ "totalQuantity": quantity })).await
    }

    async fn claim_code(&self, user: u64) -> String {
        let answer = self.app.claim(self.coupon, user).await;
        if answer.status == 202 { "ACCEPTED".into() } else { answer.code().to_owned() }
    }

    async fn actions(&self, query: &str) -> Vec<Value> {
        let actions = self.call(Method::GET, &format!("/admin/actions{query}")).await;
        actions.body["items"].as_array().expect("items").clone()
    }
}

#[tokio::test]
async fn a_change_needs_the_version_that_it_is_based_on() {
    let shop = Shop::open(5).await;
    let shown = shop.shown().await;
    assert_eq!((shown.status.as_u16(), shown.header("etag")), (200, Some("\"1\"")));
    let change = json!({ "name": " winter ", "minimumOrderAmount": 5_000 });
    let blind = shop.patch("", None, change.clone()).await;
    assert_eq!((blind.status.as_u16(), blind.code()), (428, "PRECONDITION_REQUIRED"));
    let changed = shop.patch("", Some("\"1\""), change.clone()).await;
    assert_eq!((changed.status.as_u16(), changed.header("etag")), (200, Some("\"2\"")));
    assert_eq!((&changed.body["name"], &changed.body["minimumOrderAmount"]), (&json!("winter"), &json!(5_000)));
    assert_eq!(changed.body["changes"]["after"], json!({ "name": "winter", "minimumOrderAmount": 5_000 }));
    assert_eq!(changed.body["changes"]["before"]["minimumOrderAmount"], 0);
    let late = shop.patch("", Some("\"1\""), change.clone()).await;
    assert_eq!((late.status.as_u16(), late.code()), (412, "PRECONDITION_FAILED"));
    let same = shop.patch("", Some("\"1\", \"2\""), change).await;
    assert_eq!((same.status.as_u16(), same.header("etag")), (200, Some("\"2\"")), "nothing changes");
    assert_eq!(same.body["changes"]["after"], json!({}));
    let public = shop.app.get(&format!("/coupons/{}", shop.coupon)).await;
    assert_eq!(public.body["name"], "winter");
    // A year beyond the range of TIMESTAMP columns.
    let far = json!({ "closesAt": "2990-01-01T00:00:00.500Z", "validity": { "until": "2991-01-01T00:00:00.500Z" } });
    let changed = shop.patch("", Some("*"), far.clone()).await;
    assert_eq!((&changed.body["closesAt"], &changed.body["validity"]), (&far["closesAt"], &far["validity"]));
    assert_eq!(shop.shown().await.body["closesAt"], far["closesAt"]);
    shop.app.end().await;
}

#[tokio::test]
async fn a_dry_run_shows_what_would_change_and_changes_nothing() {
    let shop = Shop::open(5).await;
    shop.app.claim(shop.coupon, 1).await;
    let dry = shop.patch("?dryRun=true", Some("*"), json!({ "totalQuantity": 9 })).await;
    assert_eq!((dry.status.as_u16(), &dry.body["dryRun"]), (200, &json!(true)));
    let changes = json!({ "before": { "totalQuantity": 5 }, "after": { "totalQuantity": 9 } });
    assert_eq!((&dry.body["changes"], &dry.body["remaining"]), (&changes, &json!(8)));
    let dry = shop.patch("?dryRun=true", Some("*"), json!({ "totalQuantity": 1 })).await;
    assert_eq!(dry.body["remaining"], 0);
    assert_eq!(shop.post("close?dryRun=true").await.body["status"], "CLOSED");
    let shown = shop.shown().await;
    assert_eq!((shown.header("etag"), &shown.body["totalQuantity"]), (Some("\"1\""), &json!(5)));
    assert_eq!(shop.claim_code(2).await, "ACCEPTED");
    assert!(shop.actions("").await.is_empty());
    let below = shop.patch("?dryRun=true", Some("*"), json!({ "totalQuantity": 1 })).await;
    assert_eq!(below.code(), "QUANTITY_BELOW_CLAIMED");
    shop.app.work().await;
    shop.app.end().await;
}

#[tokio::test]
async fn wrong_changes_are_refused_before_anything_changes() {
    let shop = Shop::open(5).await;
    for (body, field) in [
        (json!({}), "."),
        (json!({ "totalQuantity": 0 }), "totalQuantity"),
        (json!({ "name": "  " }), "name"),
        (json!({ "minimumOrderAmount": -1 }), "minimumOrderAmount"),
        (json!({ "opensAt": "2999-01-01T00:00:00Z" }), "closesAt"),
        (json!({ "closesAt": "2020-01-01T00:00:00Z" }), "closesAt"),
        (json!({ "validity": { "days": 0 } }), "validity.days"),
        (json!({ "perUserLimit": 2 }), "perUserLimit"),
    ] {
        let refused = shop.patch("", Some("*"), body).await;
        assert_eq!((refused.status.as_u16(), refused.code()), (400, "VALIDATION_FAILED"));
        assert_eq!(refused.body["errors"][0]["field"], field, "{refused:?}");
    }
    assert_eq!(shop.shown().await.header("etag"), Some("\"1\""));
    let nowhere = shop.call(Method::POST, "/admin/coupons/999/pause").await;
    assert_eq!(nowhere.code(), "COUPON_NOT_FOUND");
    let unknown = shop.app.request(Method::POST, &format!("{}/pause", shop.path));
    assert_eq!(Answer::of(unknown).await.code(), "UNAUTHENTICATED");
    let reason = "r".repeat(501);
    assert_eq!(shop.post(&format!("pause?reason={reason}")).await.code(), "VALIDATION_FAILED");
    assert_eq!(shop.claim_code(1).await, "ACCEPTED");
    shop.app.work().await;
    shop.app.end().await;
}

#[tokio::test]
async fn the_quantity_goes_up_and_down_to_what_is_claimed_on_all_processes() {
    let shop = Shop::open(2).await;
    let second = shop.app.second().await;
    for user in 1..=2 {
        assert_eq!(second.claim(shop.coupon, user).await.status, 202);
    }
    // Both processes remember that it is exhausted.
    for user in 11..=12 {
        assert_eq!(shop.claim_code(user).await, "COUPON_EXHAUSTED");
        assert_eq!(second.claim(shop.coupon, user).await.code(), "COUPON_EXHAUSTED");
    }
    let below = shop.set_quantity(1).await;
    assert_eq!((below.status.as_u16(), below.code()), (422, "QUANTITY_BELOW_CLAIMED"));
    assert_eq!((&below.body["requested"], &below.body["claimed"]), (&json!(1), &json!(2)));
    assert_eq!(shop.set_quantity(4).await.body["status"], "OPEN");
    eventually("the second process accepts claims again", SECOND, async || {
        second.claim(shop.coupon, 21).await.status == 202
    })
    .await;
    eventually("the first process accepts claims again", SECOND, async || shop.claim_code(22).await == "ACCEPTED")
        .await;
    assert_eq!(shop.claim_code(23).await, "COUPON_EXHAUSTED");
    assert_eq!(shop.set_quantity(10).await.status, 200);
    assert_eq!(shop.set_quantity(4).await.body["status"], "EXHAUSTED");
    shop.app.work().await;
    let shown = shop.shown().await.body;
    assert_eq!(
        (&shown["issued"], &shown["redis"]["claimed"], &shown["redis"]["unconfirmed"]),
        (&json!(4), &json!(4), &json!(0))
    );
    assert_eq!((&shown["redis"]["differentTerms"], &shown["backlog"]["entries"]), (&json!([]), &json!(0)));
    second.end().await;
    shop.app.end().await;
}

#[tokio::test]
async fn pause_and_close_hold_on_all_processes_when_they_are_answered() {
    let shop = Shop::open(100).await;
    let second = shop.app.second().await;
    assert_eq!(second.claim(shop.coupon, 1).await.status, 202);
    assert_eq!(shop.post("pause?reason=too%20fast").await.body["status"], "PAUSED");
    assert_eq!(second.claim(shop.coupon, 2).await.code(), "CAMPAIGN_PAUSED");
    assert_eq!(shop.claim_code(3).await, "CAMPAIGN_PAUSED");
    let again = shop.post("pause").await;
    assert_eq!((again.status.as_u16(), again.header("etag")), (200, Some("\"2\"")));
    assert_eq!(shop.post("resume").await.body["status"], "OPEN");
    assert_eq!(second.claim(shop.coupon, 2).await.status, 202);
    assert_eq!(shop.post("close").await.body["status"], "CLOSED");
    assert_eq!(second.claim(shop.coupon, 4).await.code(), "CAMPAIGN_CLOSED");
    for action in ["resume", "pause"] {
        assert_eq!(shop.post(action).await.code(), "CAMPAIGN_CLOSED", "{action}");
    }
    assert_eq!(shop.set_quantity(7).await.code(), "CAMPAIGN_CLOSED");
    assert_eq!(shop.post("close").await.status, 200);
    // Claims that were accepted before are issued.
    shop.app.work().await;
    assert_eq!(shop.shown().await.body["issued"], 2);
    let actions = shop.actions(&format!("?targetId={}", shop.coupon)).await;
    let kinds: Vec<&str> = actions.iter().map(|action| action["action"].as_str().expect("text")).collect();
    assert_eq!(kinds, ["campaign.close", "campaign.resume", "campaign.pause"]);
    assert_eq!((&actions[2]["reason"], &actions[2]["actor"]), (&json!("too fast"), &json!("ADMIN_TOKEN")));
    assert_eq!(
        (&actions[2]["before"], &actions[2]["after"]),
        (&json!({"state": "ACTIVE"}), &json!({"state": "PAUSED"}))
    );
    assert_eq!(shop.actions("?action=campaign.resume&limit=1").await.len(), 1);
    assert!(shop.actions("?actor=another").await.is_empty());
    second.end().await;
    shop.app.end().await;
}

/// A process that dies after the commit leaves Redis with older terms. The reconciliation writes them.
#[tokio::test]
async fn a_change_that_did_not_reach_redis_is_finished_by_the_reconciliation() {
    let environment = TestEnvironment::new().await;
    let (settings, _database, redis) = environment.behind_proxies().await;
    let shop = Shop::with(TestApp::with(environment, settings, |_| ()).await, 5).await;
    redis.shut();
    let paused = shop.post("pause").await;
    assert_eq!((paused.status.as_u16(), &paused.body["state"]), (200, &json!("PAUSED")));
    // Another way to Redis, as a process has whose network is whole.
    reconcile_all(&shop.app.environment.database, &shop.app.environment.redis).await.expect("reconciled");
    redis.open();
    eventually("the API reaches Redis", Duration::from_secs(10), async || {
        shop.claim_code(1).await == "CAMPAIGN_PAUSED"
    })
    .await;
    // Lowering needs the count of Redis.
    redis.shut();
    let lowered = shop.set_quantity(4).await;
    assert_eq!((lowered.status.as_u16(), lowered.code()), (503, "DEPENDENCY_UNAVAILABLE"));
    redis.open();
    assert_eq!(shop.shown().await.body["totalQuantity"], 5);
    shop.app.end().await;
}

/// Redis has less than the row says after a crash between the script and the commit.
#[tokio::test]
async fn a_lowered_quantity_that_was_not_committed_is_restored() {
    let shop = Shop::open(5).await;
    let environment = &shop.app.environment;
    let campaign =
        db::campaigns::find(&environment.database.pool(), shop.coupon).await.expect("read").expect("a campaign");
    let terms = CampaignTerms { total_quantity: 1, ..campaign.terms.clone() };
    let lowered = campaign_lower(&environment.redis, &Campaign { terms, ..campaign }).await.expect("redis");
    assert_eq!(lowered, CampaignLowered::Lowered);
    assert_eq!(shop.shown().await.body["redis"]["differentTerms"], json!(["total"]));
    campaigns::enforce(&environment.database, &environment.redis, shop.coupon).await.expect("enforced");
    assert_eq!(shop.shown().await.body["redis"]["differentTerms"], json!([]));
    shop.app.end().await;
}

#[tokio::test]
async fn campaigns_are_listed_by_status_name_and_window() {
    let app = TestApp::new().await;
    let year = |year: i32| format!("{year}-01-01T00:00:00Z");
    let create = async |name: &str, opens: i32, quantity: u32| {
        let body = terms_body(|terms| {
            terms.name = name.into();
            terms.opens_at = year(opens).parse().expect("a time");
            terms.closes_at = year(2990).parse().expect("a time");
            terms.total_quantity = quantity;
        });
        let created = app.administer("/admin/coupons", body).await;
        created.body["couponId"].as_u64().unwrap_or_else(|| panic!("created: {created:?}"))
    };
    let open = create("spring 50%_off", 2020, 5).await;
    let exhausted = create("summer", 2021, 1).await;
    let scheduled = create("winter", 2980, 5).await;
    app.claim(exhausted.try_into().expect("an id"), 1).await;
    let listed = async |query: &str| {
        let path = format!("/admin/coupons?{query}");
        let list = Answer::of(app.request(Method::GET, &path).bearer_auth(ADMIN_TOKEN)).await;
        let items = list.body["items"].as_array().unwrap_or_else(|| panic!("a list: {list:?}")).clone();
        let ids: Vec<u64> = items.iter().map(|item| item["couponId"].as_u64().expect("an id")).collect();
        (ids, list.body["nextCursor"].as_u64())
    };
    let created =
        Answer::of(app.request(Method::GET, "/admin/actions?action=campaign.create").bearer_auth(ADMIN_TOKEN)).await;
    assert_eq!(created.body["items"][0]["after"]["name"], "winter");
    assert_eq!(
        (created.body["items"].as_array().map(Vec::len), created.body["items"][0].get("before")),
        (Some(3), None)
    );
    assert_eq!(listed("").await, (vec![scheduled, exhausted, open], None));
    assert_eq!(listed("status=OPEN").await.0, [open]);
    assert_eq!(listed("status=EXHAUSTED").await.0, [exhausted]);
    assert_eq!(listed("status=SCHEDULED").await.0, [scheduled]);
    assert_eq!(listed("name=50%25_").await.0, [open]);
    assert_eq!(listed("name=%25").await.0, [open]);
    assert_eq!(listed("opensFrom=2021-01-01T00:00:00Z&opensUntil=2980-01-01T00:00:00Z").await.0, [exhausted]);
    assert!(listed("closesUntil=2989-01-01T00:00:00Z").await.0.is_empty());
    let (first, cursor) = listed("limit=2").await;
    assert_eq!((first, cursor), (vec![scheduled, exhausted], Some(exhausted)));
    assert_eq!(listed(&format!("limit=2&cursor={exhausted}")).await, (vec![open], None));
    assert_eq!(listed("status=OPEN&limit=1").await.0, [open]);
    app.work().await;
    app.end().await;
}
