//! A panic in a long-running task of the API ends one run of that task, and nothing else.

use std::time::Duration;

use dibs_common::{
    domain::campaign::CampaignTerms,
    health::Health,
    telemetry,
    testing::{TestEnvironment, eventually, open_terms, panicking_supervisor, was_restarted},
};
use reqwest::Method;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::app::{RULES, TestApp};

const LIMIT: Duration = Duration::from_secs(20);

const LISTED: [&str; 11] = [
    "api_keys",
    "claim_attempts",
    "claim_outcome_listener",
    "claim_outcome_look_up",
    "command_batcher_0",
    "command_outcome_listener",
    "command_outcome_look_up",
    "console_refresh",
    "database_watch",
    "live_report",
    "rankings_refresh",
];

#[tokio::test(flavor = "multi_thread")]
async fn every_task_of_the_api_is_restarted_after_a_panic_and_works() {
    let metrics = telemetry::metrics().expect("a recorder");
    let environment = TestEnvironment::new().await;
    let shared = environment.settings.clone();
    let supervisor = panicking_supervisor(CancellationToken::new());
    let mut app = TestApp::supervised(environment, shared, supervisor).await;
    app.start_worker(RULES);
    for task in LISTED {
        eventually(task, LIMIT, async || was_restarted(&metrics, task, 1)).await;
    }
    let ready = app.get("/health/ready").await;
    let tasks = ready.body["tasks"].as_object().expect("tasks");
    assert_eq!(tasks.keys().collect::<Vec<_>>(), LISTED);
    assert!(tasks.values().all(|health| *health == json!(Health::Up)), "{tasks:?}");

    let campaign = app.environment.campaign_of(CampaignTerms { total_quantity: 1, ..open_terms() }).await;
    let issued = app.claim_and_wait(campaign.id, 1).await;
    assert_eq!(issued.body["status"], "ISSUED", "{issued:?}");
    assert!(was_restarted(&metrics, "campaign_batcher", 1), "the claim waited in the queue meanwhile");
    assert_eq!(app.claim(campaign.id, 2).await.body["code"], "COUPON_EXHAUSTED");
    let batcher = app.app.claims.batcher(campaign.id).await.expect("open");
    eventually("claims are refused locally", LIMIT, async || batcher.remembers_exhausted()).await;
    assert!(was_restarted(&metrics, "exhausted_campaign_watcher", 1));
    drop(batcher);

    app.environment.points(1, 100_000).await;
    let product = app.environment.product(10, 100).await;
    let order = json!({ "userId": 1, "items": [{ "productId": product, "quantity": 1 }] });
    let placed = app.request(Method::POST, "/orders").header("prefer", "wait=10").json(&order).send().await;
    assert_eq!(placed.expect("answered").status(), 201);
    assert_eq!(app.get("/products/best-sellers").await.status, 200);
    app.end().await;
}
