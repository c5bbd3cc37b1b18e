//! What grows has a limit: names of consumers, ended campaigns in Redis, rejected orders, declined charges.

use std::time::Duration;

use chrono::TimeDelta;
use dibs_common::{
    clock,
    redis::{campaign_state, keys::ISSUANCE_GROUP, streams::ClaimStream},
    testing::{FIRST, TestEnvironment},
};
use dibs_worker::{campaigns::remove_ended, jobs::Job};
use fred::{interfaces::StreamsInterface as _, types::Value};

use crate::{campaign_test::CampaignTest, jobs::jobs};

/// How many consumers the group has, and whether `name` is one of them.
async fn consumers(environment: &TestEnvironment, name: &str) -> (usize, bool) {
    let key = environment.redis.keys.claim_stream(FIRST);
    let consumers: Value = environment.redis.client().xinfo_consumers(key, ISSUANCE_GROUP).await.expect("redis");
    let described = format!("{consumers:?}");
    (consumers.into_array().len(), described.contains(name))
}

#[tokio::test]
async fn consumers_of_killed_workers_are_removed_and_no_entry_is_lost() {
    let test = CampaignTest::new(100).await;
    let open = async |name: String| ClaimStream::open(&test.redis, FIRST, name).await.expect("opened");
    for number in 1..=10_u64 {
        test.accept([number]).await;
        let killed = open(format!("killed-{number}")).await;
        let entries: Vec<String> = killed.read(1).await.expect("read").into_iter().map(|entry| entry.id).collect();
        assert_eq!(killed.acknowledge(&entries).await.expect("acknowledged"), 1);
    }
    test.accept([11]).await;
    let holder = open("holder".to_owned()).await;
    assert_eq!(holder.read(1).await.expect("read").len(), 1);
    let living = open("living".to_owned()).await;
    assert_eq!(consumers(&test, "holder").await, (11, true));
    assert_eq!(living.remove_idle_consumers(Duration::from_hours(1)).await.expect("redis"), 0, "none is idle");
    assert_eq!(living.remove_idle_consumers(Duration::ZERO).await.expect("redis"), 10);
    assert_eq!(consumers(&test, "holder").await, (1, true), "one that holds an entry stays");
    // One that still runs joins again with its next read, and the entry of the holder is reclaimed as ever.
    test.accept([12]).await;
    assert_eq!(living.read(1).await.expect("read").len(), 1);
    assert_eq!(living.reclaim(Duration::ZERO, 10).await.expect("reclaimed").len(), 1);
    assert_eq!(living.remove_idle_consumers(Duration::ZERO).await.expect("redis"), 1, "the holder");
    assert_eq!(consumers(&test, "living").await, (1, true));
    test.lose_redis().await;
    assert_eq!(living.remove_idle_consumers(Duration::ZERO).await.expect("redis"), 0, "the group is lost");
    test.end().await;
}

#[tokio::test]
async fn ended_campaigns_leave_redis_when_all_claims_have_an_outcome() {
    let test = CampaignTest::with_accepted(10, 1..=3).await;
    let now = clock::now();
    let before = now - TimeDelta::days(7);
    let remove = async || remove_ended(&test.database, &test.redis, before).await.expect("removed");
    let held = async || test.held().await.is_some();
    assert_eq!((remove().await, held().await), (0, true), "it is open");
    test.execute("UPDATE coupons SET opens_at = opens_at - INTERVAL 9 DAY, closes_at = closes_at - INTERVAL 8 DAY")
        .await;
    assert_eq!((remove().await, held().await), (0, true), "claims have no outcome");
    test.work().await;
    assert_eq!((remove().await, held().await), (1, false));
    assert_eq!(campaign_state::holders(&test.redis, FIRST, test.campaign.id).await.expect("redis"), Vec::<u64>::new());
    assert_eq!(remove().await, 0, "it is removed once");
    assert_eq!(test.outcomes(1).await.len(), 1);
    test.end().await;
}

#[tokio::test]
async fn rejected_orders_and_declined_charges_are_deleted_after_90_days() {
    let (environment, now) = (TestEnvironment::new().await, clock::now());
    for (id, days) in [("a1", 89), ("a2", 91)] {
        let id = id.repeat(16);
        let at = (now - TimeDelta::days(days)).format("%Y-%m-%d %H:%M:%S%.3f");
        environment
            .execute(&format!(
                "INSERT INTO orders (order_id, user_id, status, code, total_amount, discount_amount, pay_amount, created_at, \
                 expires_at) VALUES (x'{id}', 1, 'REJECTED', 'STOCK_INSUFFICIENT', 0, 0, 0, '{at}', '{at}')"
            ))
            .await;
        environment
            .execute(&format!(
                "INSERT INTO order_items (order_id, product_id, name, unit_price, quantity) VALUES (x'{id}', 1, 'tea', 1, 1)"
            ))
            .await;
        environment
            .execute(&format!(
                "INSERT INTO charges (charge_id, user_id, amount, status, created_at, decided_at) \
                 VALUES (x'{id}', 1, 10000, 'DECLINED', '{at}', '{at}')"
            ))
            .await;
    }
    let done = jobs(&environment).run(Job::Purge, None, now).await.expect("purged").expect("run");
    assert!(done.contains("1 rejected orders, 1 declined charges"), "{done}");
    for table in ["orders", "order_items", "charges"] {
        assert_eq!(environment.count(&format!("SELECT COUNT(*) FROM {table}")).await, 1, "{table}");
    }
    environment.end().await;
}

/// As long as the idempotency key of a change can come again, and a request that began with it at its end.
#[tokio::test]
async fn changes_of_products_are_remembered_for_25_hours() {
    let (environment, now) = (TestEnvironment::new().await, clock::now());
    for (id, hours) in [("a1", 24), ("a2", 26)] {
        let (id, at) = (id.repeat(16), (now - TimeDelta::hours(hours)).format("%Y-%m-%d %H:%M:%S%.3f"));
        environment
            .execute(&format!(
                "INSERT INTO product_changes (operation_id, product_id, product, created_at) VALUES (x'{id}', 1, '{{}}', '{at}')"
            ))
            .await;
    }
    let done = jobs(&environment).run(Job::Purge, None, now).await.expect("purged").expect("run");
    assert!(done.contains("1 product changes"), "{done}");
    assert_eq!(environment.texts("SELECT LEFT(HEX(operation_id), 2) FROM product_changes").await, ["A1"]);
    environment.end().await;
}
