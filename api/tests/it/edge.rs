use std::time::Duration;

use dibs_common::testing::{TestEnvironment, eventually};

use crate::app::{Answer, TestApp};

#[tokio::test]
async fn a_panic_is_answered_as_a_problem_and_the_process_goes_on() {
    let app = TestApp::new().await;
    let url = format!("{}/panic", app.serve_panic().await);
    for _ in 0..2 {
        let answer = Answer::of(app.client.get(&url)).await;
        assert_eq!((answer.status.as_u16(), answer.code()), (500, "INTERNAL"));
    }
    app.end().await;
}

#[tokio::test]
async fn a_route_without_a_policy_is_not_served() {
    let app = TestApp::new().await;
    let url = app.serve_panic().await;
    for request in [app.client.get(format!("{url}/unlisted")), app.client.post(format!("{url}/unlisted"))] {
        assert_eq!(Answer::of(request).await.code(), "ROUTE_NOT_FOUND");
    }
    assert_eq!(Answer::of(app.client.post(format!("{url}/panic"))).await.code(), "METHOD_NOT_ALLOWED");
    app.end().await;
}

#[tokio::test]
async fn more_requests_than_allowed_are_answered_overloaded() {
    let environment = TestEnvironment::new().await;
    let shared = environment.settings.clone();
    let app = TestApp::with(environment, shared, |settings| settings.max_requests_in_progress = 1).await;
    let coupon = app.environment.campaign(2).await.id;
    let waiting = app.claim_and_wait(coupon, 1);
    let overloaded = async {
        let progress = &app.app.in_progress;
        eventually("one is in progress", Duration::from_secs(5), async || {
            progress.load(std::sync::atomic::Ordering::Relaxed) == 1
        })
        .await;
        let refused = app.claim(coupon, 2).await;
        app.work().await;
        refused
    };
    let (issued, refused) = tokio::join!(waiting, overloaded);
    assert_eq!(issued.status, 200);
    assert_eq!((refused.status.as_u16(), refused.code()), (503, "OVERLOADED"));
    app.end().await;
}

#[tokio::test]
async fn a_claim_in_progress_is_finished_when_the_process_stops() {
    let (app, coupon) = TestApp::with_campaign(2).await;
    let waiting = app.claim_and_wait(coupon, 1);
    let stop = async {
        eventually("the claim is waiting", Duration::from_secs(5), async || {
            app.app.in_progress.load(std::sync::atomic::Ordering::Relaxed) == 1
        })
        .await;
        app.app.stopping.cancel();
        let batcher = app.app.claims.batcher(coupon).await.expect("a batcher");
        eventually("redis has accepted it", Duration::from_secs(5), async || {
            batcher.claimed(&app.environment.redis).await.expect("redis") == Some(1)
        })
        .await;
        app.work().await;
    };
    let (issued, ()) = tokio::join!(waiting, stop);
    assert_eq!(issued.status, 200);
    app.end().await;
}
