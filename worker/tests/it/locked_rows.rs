//! Rows that another session has locked hold up only the entries that need them.

use std::time::Duration;

use dibs_common::{
    identifiers::ProductId,
    testing::{TestEnvironment, commands::place_order, eventually},
};
use sqlx::{Executor as _, MySql, Transaction};

use crate::{
    orders::processor_of,
    support::{Running, accept, claims_of},
};

/// Within this time everything that is not locked goes on.
const LIMIT: Duration = Duration::from_secs(5);

async fn order(environment: &TestEnvironment, number: u64, product: ProductId) {
    environment.enqueue(&place_order(number, product, 1)).await;
}

async fn lock(environment: &TestEnvironment, row: String) -> Transaction<'static, MySql> {
    let mut session = environment.database.begin().await.expect("begun");
    session.execute(sqlx::AssertSqlSafe(format!("SELECT 1 FROM {row} FOR UPDATE"))).await.expect("locked");
    session
}

async fn eventually_orders(environment: &TestEnvironment, count: i64) {
    eventually("orders are placed", LIMIT, async || environment.count("SELECT COUNT(*) FROM orders").await == count)
        .await;
}

#[tokio::test]
async fn a_locked_product_holds_up_only_its_orders_and_later_ones_of_their_users() {
    let environment = TestEnvironment::new().await;
    let (locked, free) = (environment.product(1_000, 100).await, environment.product(1_000, 100).await);
    let session = lock(&environment, format!("products WHERE product_id = {locked}")).await;
    order(&environment, 1, locked).await;
    order(&environment, 1, free).await;
    for number in 2..=20 {
        order(&environment, number, free).await;
    }
    let worker = Running::start(processor_of(&environment));
    eventually_orders(&environment, 19).await;
    // Later ones go on as well, while the row stays locked.
    for number in 21..=30 {
        order(&environment, number, free).await;
    }
    eventually_orders(&environment, 29).await;
    assert_eq!(
        environment.count("SELECT COUNT(*) FROM orders WHERE user_id = 1").await,
        0,
        "a user's commands keep order"
    );
    session.rollback().await.expect("released");
    eventually_orders(&environment, 31).await;
    worker.stop().await;
    assert_eq!(environment.count("SELECT COUNT(*) FROM dead_letters").await, 0, "held entries are no failures");
    environment.end().await;
}

#[tokio::test]
async fn a_locked_campaign_holds_up_only_its_claims() {
    let environment = TestEnvironment::new().await;
    let (locked, free) = (environment.campaign(100).await, environment.campaign(100).await);
    let session = lock(&environment, format!("coupons WHERE coupon_id = {}", locked.id)).await;
    for number in 1..=20 {
        accept(&environment, &locked, [number]).await;
        accept(&environment, &free, [number]).await;
    }
    let worker = Running::start(claims_of(&environment));
    let issued = async |count: i64| {
        eventually("coupons are issued", LIMIT, async || {
            environment.count("SELECT COUNT(*) FROM user_coupons").await == count
        })
        .await;
    };
    issued(20).await;
    accept(&environment, &free, 21..=40).await;
    issued(40).await;
    session.rollback().await.expect("released");
    issued(60).await;
    worker.stop().await;
    environment.end().await;
}
