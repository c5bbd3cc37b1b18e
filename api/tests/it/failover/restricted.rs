use dibs_common::testing::RedisServer;
use serde_json::json;

use super::*;

/// The rule that the documents give for a user of Redis.
fn documented_rule() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/configuration.md");
    let document = std::fs::read_to_string(path).expect("the document");
    let (_, rest) = document.split_once("ACL SETUSER dibs ").expect("the rule");
    let (rule, _) = rest.split_once("```").expect("its end");
    rule.replace('\\', " ").replace('\'', "").split_whitespace().collect::<Vec<_>>().join(" ")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_of_redis_with_the_documented_rule_is_enough_for_everything_and_may_do_nothing_else() {
    let server = RedisServer::start(&[]);
    eventually("it answers", ISSUED_WITHIN, async || server.is_primary().await).await;
    let mut environment = TestEnvironment::new().await;
    let rule = documented_rule().replace("shop:", &environment.settings.redis_key_prefix).replace("SECRET", "word");
    let words: Vec<&str> = ["ACL", "SETUSER", "dibs"].into_iter().chain(rule.split(' ')).collect();
    assert!(server.ask(&words).await.is_some(), "{rule}");
    environment.settings.redis_url = format!("redis://dibs:word@127.0.0.1:{}", server.port).into();
    let redis = environment.settings.redis(2).await.expect("allowed");
    let plain = std::mem::replace(&mut environment.redis, redis);
    let mut app = TestApp::at(environment).await;
    app.start_worker(RULES);
    let coupon = app.environment.campaign(10).await.id;
    for user in 1..=3 {
        assert_eq!(app.claim_and_wait(coupon, user).await.status, 200);
    }
    let product = app.environment.product(1_000, 100).await.get();
    app.environment.points(1, 100_000).await;
    let items = json!([{"productId": product, "quantity": 2}]);
    let order = app.post("/orders", json!({"userId": 1, "items": items, "pay": true})).await;
    assert_eq!(order.status, 201, "{order:?}");
    eventually("the sale is counted", ISSUED_WITHIN, async || {
        let best = app.get("/products/best-sellers").await;
        best.body["items"].as_array().is_some_and(|items| items.len() == 1)
    })
    .await;
    dibs_worker::campaigns::rebuild_requested(&app.environment.database, &app.environment.redis)
        .await
        .expect("nothing is requested");
    let shop = Shop { app, coupon, plain };
    shop.expect_no_differences().await;
    // What was refused to the user, by a command or a script.
    let refused = server.ask(&["ACL", "LOG"]).await.expect("the log").into_array();
    assert!(refused.is_empty(), "{refused:?}");
    for forbidden in [&["FLUSHALL"][..], &["CONFIG", "SET", "appendonly", "no"], &["KEYS", "*"], &["GET", "other:key"]]
    {
        let answer = server.ask_as("dibs", "word", forbidden).await;
        assert!(answer.is_none(), "{forbidden:?} is allowed");
    }
    shop.close().await;
}
