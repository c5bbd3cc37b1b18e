//! A key stands for one operation and one response.

mod failing;
mod keys;

use dibs_common::{clock, domain::campaign::CampaignTerms, identifiers::CouponId, testing::open_terms};
use futures::future::join_all;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use crate::app::{ADMIN_TOKEN, Answer, TestApp, claim_body};

const REPLAYED: &str = "idempotent-replayed";

fn with_key(request: RequestBuilder, key: &str) -> RequestBuilder {
    request.header("idempotency-key", key)
}

/// Claims a coupon whose users may have several, so that a second claim would not be refused.
async fn claim(app: &TestApp, coupon: CouponId, key: &str) -> Answer {
    Answer::of(with_key(app.request(Method::POST, "/coupons/issue"), key).json(&claim_body(coupon, 7))).await
}

async fn several_for_each(app: &TestApp) -> CouponId {
    let terms = CampaignTerms { per_user_limit: 100, total_quantity: 100, ..open_terms() };
    app.environment.campaign_of(terms).await.id
}

async fn with_coupon() -> (TestApp, CouponId) {
    let app = TestApp::new().await;
    let coupon = several_for_each(&app).await;
    (app, coupon)
}

async fn create(app: &TestApp, body: &Value, key: &str) -> Answer {
    let request = with_key(app.request(Method::POST, "/admin/products"), key);
    Answer::of(request.bearer_auth(ADMIN_TOKEN).json(body)).await
}

fn coffee() -> Value {
    json!({ "name": "coffee", "price": 5_000, "stock": 3 })
}

async fn rows(app: &TestApp, table: &str) -> i64 {
    app.environment.count(&format!("SELECT COUNT(*) FROM {table}")).await
}

fn assert_replayed(again: &Answer, first: &Answer) {
    assert_eq!(again.header(REPLAYED), Some("true"));
    assert_eq!(first.header(REPLAYED), None);
    assert_eq!(again.status, first.status);
    for name in ["content-type", "location"] {
        assert_eq!(again.header(name), first.header(name));
    }
    let without_id = |answer: &Answer| {
        let mut body = answer.body.clone();
        body.as_object_mut().expect("an object").remove("requestId");
        body
    };
    assert_eq!(without_id(again), without_id(first));
}

#[tokio::test]
async fn i12_the_same_key_gets_the_same_answer() {
    let (app, coupon) = with_coupon().await;
    let first = claim(&app, coupon, "key").await;
    assert_eq!(first.status, 202);
    assert_replayed(&claim(&app, coupon, "key").await, &first);
    app.work().await;
    assert_replayed(&claim(&app, coupon, "key").await, &first);
    assert_eq!(rows(&app, "user_coupons").await, 1);

    let first = create(&app, &coffee(), "key").await;
    assert_eq!(first.status, 201);
    assert_replayed(&create(&app, &coffee(), "key").await, &first);
    assert_eq!(rows(&app, "products").await, 1);

    let other = create(&app, &coffee(), "other key").await;
    assert_eq!((other.status.as_u16(), other.body["errors"][0]["field"].as_str()), (400, Some("Idempotency-Key")));
    assert_eq!(create(&app, &coffee(), "other-key").await.status, 201);
    assert_eq!(rows(&app, "products").await, 2);
    app.end().await;
}

#[tokio::test]
async fn the_same_key_with_another_body_is_refused() {
    let app = TestApp::new().await;
    let first = create(&app, &coffee(), "key").await;
    let tea = json!({ "name": "tea", "price": 5_000, "stock": 3 });
    let refused = create(&app, &tea, "key").await;
    assert_eq!((refused.status.as_u16(), refused.code()), (422, "IDEMPOTENCY_KEY_REUSED"));
    assert_eq!(refused.header(REPLAYED), None);
    assert_replayed(&create(&app, &coffee(), "key").await, &first);
    assert_eq!(rows(&app, "products").await, 1);
    app.end().await;
}

/// All answers are the same, or report the first that is in progress.
fn assert_one_answer(answers: &[Answer], status: u16) {
    let of_first: Vec<&Answer> = answers.iter().filter(|answer| answer.status == status).collect();
    assert_eq!(of_first.iter().filter(|answer| answer.header(REPLAYED).is_none()).count(), 1);
    assert!(of_first.iter().all(|answer| answer.body == of_first[0].body));
    for refused in answers.iter().filter(|answer| answer.status != status) {
        assert_eq!((refused.status.as_u16(), refused.code()), (409, "IDEMPOTENCY_IN_PROGRESS"));
        assert_eq!(refused.header("retry-after"), Some("1"));
    }
}

async fn fifty_creations(app: &TestApp) -> Vec<Answer> {
    let body = coffee();
    join_all((0..50).map(|_| create(app, &body, "key"))).await
}

#[tokio::test]
async fn fifty_at_once_with_one_key_have_one_effect() {
    let (app, coupon) = with_coupon().await;
    let answers = join_all((0..50).map(|_| claim(&app, coupon, "key"))).await;
    assert_one_answer(&answers, 202);
    app.work().await;
    assert_eq!(rows(&app, "user_coupons").await, 1);

    let answers = fifty_creations(&app).await;
    assert_one_answer(&answers, 201);
    assert_eq!(rows(&app, "products").await, 1);
    app.end().await;
}

#[tokio::test]
async fn a_refusal_that_stands_is_stored_and_replayed_with_an_id_of_its_own() {
    let app = TestApp::new().await;
    let unknown = 1.try_into().expect("an id");
    let first = claim(&app, unknown, "unknown").await;
    assert_eq!((first.status.as_u16(), first.code()), (404, "COUPON_NOT_FOUND"));
    assert_eq!(app.environment.campaign(1).await.id, unknown);
    let again = claim(&app, unknown, "unknown").await;
    assert_replayed(&again, &first);
    assert_ne!(again.body["requestId"], first.body["requestId"], "and the edge has it, too");

    let taken = app.environment.campaign(1).await.id;
    assert_eq!(app.claim(taken, 1).await.status, 202);
    let first = claim(&app, taken, "exhausted").await;
    assert_eq!((first.status.as_u16(), first.code()), (422, "COUPON_EXHAUSTED"));
    assert_replayed(&claim(&app, taken, "exhausted").await, &first);
    app.work().await;
    app.end().await;
}

#[tokio::test]
async fn a_refusal_that_asks_to_come_again_is_not_stored() {
    let app = TestApp::new().await;
    let (opens_at, closes_at) =
        (clock::now() + chrono::TimeDelta::hours(1), clock::now() + chrono::TimeDelta::hours(2));
    let coupon = app.environment.campaign_of(CampaignTerms { opens_at, closes_at, ..open_terms() }).await.id;
    for _ in 0..2 {
        let early = claim(&app, coupon, "key").await;
        assert_eq!((early.code(), early.header(REPLAYED)), ("CAMPAIGN_NOT_OPEN", None));
    }
    app.end().await;
}
