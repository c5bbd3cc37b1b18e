//! Commands executed by a worker that dies, is late, is one of two, or has lost its servers.

mod executing;
mod failing;

use dibs_common::{
    clock,
    domain::order::{Action, Command, OrderOutcome, OrderRules},
    identifiers::ProductId,
    redis::streams::OrderEntry,
    testing::{
        FIRST, TestEnvironment,
        commands::{command, place_order, with_payment},
    },
};
use dibs_worker::{
    orders::{CommandProcessor, command_processor, execute_batch},
    streams::InFlight,
};
use fred::interfaces::StreamsInterface as _;

use crate::support::IMPATIENT;

pub const RULES: OrderRules = OrderRules::DEFAULT;

pub fn processor_of(environment: &TestEnvironment) -> CommandProcessor {
    command_processor(&environment.database, &environment.redis, RULES, IMPATIENT)
}

/// Executes what is on the stream until nothing is left that can be processed.
pub async fn work(environment: &TestEnvironment) {
    processor_of(environment).drain(FIRST).await.expect("drained");
}

async fn execute(environment: &TestEnvironment, batch: &[Command]) -> Vec<OrderOutcome> {
    execute_batch(&environment.database, batch, &RULES, clock::now).await.expect("executed")
}

fn is_done(outcome: &OrderOutcome) -> bool {
    matches!(outcome, OrderOutcome::Done(_))
}

/// Entries on the stream.
async fn left(environment: &TestEnvironment) -> u64 {
    environment.redis.client().xlen(environment.redis.keys.order_stream(FIRST)).await.expect("a length")
}

fn commands(batch: &[InFlight<OrderEntry>]) -> Vec<Command> {
    batch.iter().map(|entry| entry.delivery.entry.as_ref().expect("decode").command.clone()).collect()
}

/// A day in the shop: two orders, one paid at once, one in two steps, one of them cancelled, and refusals.
async fn a_day(environment: &TestEnvironment) -> Vec<Command> {
    let product = environment.product(7_000, 2).await;
    environment.points(1, 20_000).await;
    let (first, second, third) =
        (with_payment(place_order(1, product, 1)), place_order(1, product, 1), place_order(2, product, 1));
    let order = second.order();
    vec![
        command(1, Action::Pay { order }),
        first.clone(),
        second.clone(),
        third,
        command(1, Action::Pay { order }),
        command(1, Action::Cancel { order: first.order() }),
        command(1, Action::Confirm { order }),
        command(1, Action::Cancel { order }),
    ]
}

async fn expect_the_day(environment: &TestEnvironment, what: &str) {
    assert_eq!(environment.count("SELECT stock FROM products").await, 1, "{what}");
    assert_eq!(environment.count("SELECT balance FROM point_accounts").await, 13_000, "{what}");
    assert_eq!(environment.count("SELECT COUNT(*) FROM point_histories").await, 4, "{what}");
    assert_eq!(environment.count("SELECT COUNT(*) FROM orders").await, 3, "{what}");
    assert_eq!(environment.count("SELECT COUNT(*) FROM orders WHERE code = 'STOCK_INSUFFICIENT'").await, 1, "{what}");
    assert_eq!(environment.count("SELECT COUNT(*) FROM order_commands").await, 5, "{what}");
    assert_eq!(environment.count("SELECT COUNT(*) FROM order_commands WHERE code IS NOT NULL").await, 2, "{what}");
    let events = "SELECT COUNT(*) FROM outbox_events WHERE aggregate_type = 'ORDER'";
    assert_eq!(environment.count(events).await, 6, "{what}");
    environment.expect_consistent_rows().await;
}

/// An environment, and a product with so many units.
pub async fn with_product(stock: i64) -> (TestEnvironment, ProductId) {
    let environment = TestEnvironment::new().await;
    let product = environment.product(1_000, stock).await;
    (environment, product)
}
