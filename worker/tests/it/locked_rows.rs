//! Rows that another session has locked hold up only the entries that need them.

use std::time::Duration;

use chrono::TimeDelta;
use dibs_common::{
    clock,
    domain::order::{Action, Command, Line, OrderRules},
    identifiers::{CommandId, ProductId},
    redis::{scripts, streams::OrderEntry},
    testing::{FIRST, TestEnvironment, eventually},
};
use dibs_worker::orders::command_processor;
use sqlx::{Executor as _, MySql, Transaction};

use crate::support::{IMPATIENT, Running, accept, claims_of, user};

/// Within this time everything that is not locked goes on.
const LIMIT: Duration = Duration::from_secs(5);

async fn order(place: &TestEnvironment, number: u64, product: ProductId) {
    let items = vec![Line { product_id: product, quantity: 1 }];
    let action = Action::Place { items, coupon: None, payment: None };
    let command = Command { id: CommandId::generate(), user: user(number), at: clock::now(), action };
    let entry = OrderEntry { answers: String::new(), request: "test".into(), command };
    let stream = place.redis.keys.order_stream(FIRST);
    scripts::enqueue(&place.redis, stream, 1_000, entry.fields().expect("fields")).await.expect("enqueued");
}

async fn lock(place: &TestEnvironment, row: String) -> Transaction<'static, MySql> {
    let mut session = place.database.begin().await.expect("begun");
    session.execute(sqlx::AssertSqlSafe(format!("SELECT 1 FROM {row} FOR UPDATE"))).await.expect("locked");
    session
}

async fn eventually_orders(place: &TestEnvironment, count: i64) {
    eventually("orders are placed", LIMIT, async || place.count("SELECT COUNT(*) FROM orders").await == count).await;
}

#[tokio::test]
async fn a_locked_product_holds_up_only_its_orders_and_later_ones_of_their_users() {
    let place = TestEnvironment::new().await;
    let (locked, free) = (place.product(1_000, 100).await, place.product(1_000, 100).await);
    let session = lock(&place, format!("products WHERE product_id = {locked}")).await;
    order(&place, 1, locked).await;
    order(&place, 1, free).await;
    for number in 2..=20 {
        order(&place, number, free).await;
    }
    let worker = Running::start(command_processor(
        &place.database,
        &place.redis,
        OrderRules { expiry: TimeDelta::minutes(30), holding_cap: 10_000_000 },
        IMPATIENT,
    ));
    eventually_orders(&place, 19).await;
    // Later ones go on as well, while the row stays locked.
    for number in 21..=30 {
        order(&place, number, free).await;
    }
    eventually_orders(&place, 29).await;
    assert_eq!(place.count("SELECT COUNT(*) FROM orders WHERE user_id = 1").await, 0, "a user's commands keep order");
    session.rollback().await.expect("released");
    eventually_orders(&place, 31).await;
    worker.stop().await;
    assert_eq!(place.count("SELECT COUNT(*) FROM dead_letters").await, 0, "held entries are no failures");
    place.end().await;
}

#[tokio::test]
async fn a_locked_campaign_holds_up_only_its_claims() {
    let place = TestEnvironment::new().await;
    let (locked, free) = (place.campaign(100).await, place.campaign(100).await);
    let session = lock(&place, format!("coupons WHERE coupon_id = {}", locked.id)).await;
    for number in 1..=20 {
        accept(&place, &locked, [number]).await;
        accept(&place, &free, [number]).await;
    }
    let worker = Running::start(claims_of(&place));
    let issued = async |count: i64| {
        eventually("coupons are issued", LIMIT, async || {
            place.count("SELECT COUNT(*) FROM user_coupons").await == count
        })
        .await;
    };
    issued(20).await;
    accept(&place, &free, 21..=40).await;
    issued(40).await;
    session.rollback().await.expect("released");
    issued(60).await;
    worker.stop().await;
    place.end().await;
}
