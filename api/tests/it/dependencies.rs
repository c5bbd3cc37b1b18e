use std::time::{Duration, Instant};

use dibs_common::testing::{TestEnvironment, eventually};
use futures::future::join_all;

use crate::app::{Answer, TestApp, terms_body};

async fn refused_in_time(answer: impl Future<Output = Answer>, dependency: &str) {
    let began = Instant::now();
    let refused = answer.await;
    assert_eq!((refused.status.as_u16(), refused.code()), (503, "DEPENDENCY_UNAVAILABLE"));
    assert_eq!(refused.body["dependency"], dependency);
    assert!(refused.header("retry-after").is_some());
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
}

#[tokio::test]
async fn without_redis_claims_are_refused_within_a_second_and_taken_within_two_of_its_return() {
    let environment = TestEnvironment::new().await;
    let campaign = environment.campaign(10).await;
    let (settings, _database, redis) = environment.behind_proxies().await;
    let app = TestApp::with(environment, settings, |_| ()).await;
    assert_eq!(app.claim(campaign.id, 1).await.status, 202);
    redis.shut();
    refused_in_time(app.claim(campaign.id, 2), "redis").await;
    refused_in_time(app.claim(campaign.id, 3), "redis").await;
    let ready = app.get("/health/ready");
    let ready = ready.await;
    assert_eq!((ready.status.as_u16(), &ready.body["dependencies"]["redis"]), (503, &"DOWN".into()));
    redis.open();
    eventually("claims are taken again", Duration::from_secs(2), async || {
        [202, 409].contains(&app.claim(campaign.id, 4).await.status.as_u16())
    })
    .await;
    app.work().await;
    app.end().await;
}

#[tokio::test]
async fn without_the_database_known_campaigns_take_claims_and_the_rest_is_refused_within_a_second() {
    let environment = TestEnvironment::new().await;
    let (known, unknown) = (environment.campaign(10).await.id, environment.campaign(10).await.id);
    let (settings, database, _redis) = environment.behind_proxies().await;
    let app = TestApp::with(environment, settings, |_| ()).await;
    assert_eq!(app.claim(known, 1).await.status, 202);
    // Every connection of the pool has been used, and will be found broken.
    join_all((0..40).map(|_| app.get("/users/1/coupons"))).await;
    database.shut();
    assert_eq!(app.claim(known, 2).await.status, 202);
    refused_in_time(app.claim(unknown, 1), "mysql").await;
    refused_in_time(app.get(&format!("/coupons/{known}")), "mysql").await;
    refused_in_time(app.get("/users/1/coupons"), "mysql").await;
    refused_in_time(app.administer("/admin/coupons", terms_body(|_| ())), "mysql").await;
    database.open();
    eventually("the rest is answered again", Duration::from_secs(2), async || {
        app.claim(unknown, 1).await.status == 202
    })
    .await;
    for _ in 0..20 {
        assert_eq!(app.get("/users/1/coupons").await.status, 200, "no broken connection is met later");
    }
    app.work().await;
    app.end().await;
}
