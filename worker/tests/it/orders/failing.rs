//! Commands that cannot be executed, and a worker without its database or after a death.

use std::time::Duration;

use dibs_common::{
    domain::dead_letter::COMMANDS,
    redis::scripts,
    testing::{FIRST, TestEnvironment, commands::place_order, eventually},
};
use dibs_worker::orders::command_processor;

use super::{RULES, a_day, expect_the_day, left, processor_of, with_product, work};
use crate::{
    dead_letters::{dropped, only_letter},
    support::{IMPATIENT, Running, expect_reclaimed_in_time},
};

/// The database is gone in the middle: commands stay on the stream, and are executed when it is back.
#[tokio::test]
async fn without_the_database_commands_wait_and_are_executed_when_it_is_back() {
    let environment = TestEnvironment::new().await;
    let (settings, database_proxy, _redis_proxy) = environment.behind_proxies().await;
    let day = a_day(&environment).await;
    for command in &day {
        environment.enqueue(command).await;
    }
    let database = settings.database(4).expect("a pool");
    database_proxy.shut();
    let processor = Running::start(command_processor(&database, &environment.redis, RULES, IMPATIENT));
    eventually("an attempt failed", Duration::from_secs(5), async || database_proxy.refused() > 0).await;
    assert_eq!(environment.count("SELECT COUNT(*) FROM orders").await, 0);
    assert_eq!(left(&environment).await, 8);
    database_proxy.open();
    eventually("the stream is empty", Duration::from_secs(5), async || left(&environment).await == 0).await;
    processor.stop().await;
    expect_the_day(&environment, "after the database was back").await;
    database.close().await;
    environment.end().await;
}

/// A command that cannot be decoded is tried again, dead-lettered after five attempts, and blocks no other.
#[tokio::test]
async fn a_command_that_cannot_be_decoded_is_dead_lettered_and_blocks_no_other() {
    let (environment, product) = with_product(10).await;
    let stream = environment.redis.keys.order_stream(FIRST);
    let fields = ["type", "orders.v1", "answers", "", "request", "", "command", "{"].map(str::to_owned).to_vec();
    scripts::enqueue(&environment.redis, stream.clone(), 10, fields).await.expect("enqueued");
    environment.enqueue(&place_order(1, product, 1)).await;
    work(&environment).await;
    assert_eq!(environment.count("SELECT COUNT(*) FROM orders WHERE status = 'DEPOSIT_WAIT'").await, 1);
    let letter = only_letter(&environment, COMMANDS).await;
    assert_eq!((left(&environment).await, letter.attempts, letter.kind.as_str()), (0, 5, "orders.v1"));
    assert!(letter.redrivable && letter.reason.contains("field 'command'"), "{letter:?}");
    dropped(&environment, COMMANDS).await;
    environment.end().await;
}

/// An order whose own data the tables refuse fails alone; the others of its batch are executed.
#[tokio::test]
async fn a_command_that_breaks_its_transaction_fails_alone() {
    let environment = TestEnvironment::new().await;
    let (product, other) = (environment.product(1_000, 10).await, environment.product(1_000, 10).await);
    // A stock that does not add up is refused by the table itself; here a trigger of the shop stands for it.
    environment.execute(&format!("CREATE TRIGGER refuse BEFORE INSERT ON order_items FOR EACH ROW IF NEW.product_id = {other} THEN SIGNAL SQLSTATE '23000' SET MESSAGE_TEXT = 'refused'; END IF")).await;
    let failing = place_order(2, other, 1);
    for command in [&place_order(1, product, 1), &failing, &place_order(3, product, 1)] {
        environment.enqueue(command).await;
    }
    work(&environment).await;
    assert_eq!(environment.count("SELECT COUNT(*) FROM orders WHERE status = 'DEPOSIT_WAIT'").await, 2);
    // It has an outcome like any other.
    assert_eq!(environment.count("SELECT COUNT(*) FROM orders WHERE code = 'COMMAND_FAILED'").await, 1);
    let letter = only_letter(&environment, COMMANDS).await;
    assert_eq!((left(&environment).await, letter.aggregate_id), (0, Some(failing.id.0.to_string())));
    assert!(!letter.redrivable && letter.reason.starts_with("not redrivable"), "{}", letter.reason);
    dropped(&environment, COMMANDS).await;
    environment.end_consistent().await;
}

#[tokio::test]
async fn a_dead_workers_commands_are_reclaimed_in_time() {
    let (environment, product) = with_product(10).await;
    environment.enqueue(&place_order(1, product, 1)).await;
    let die = async {
        let mut mortal = processor_of(&environment).join(FIRST, "mortal").await.expect("joined");
        assert_eq!(mortal.next().await.expect("read").len(), 1);
    };
    let processor = |policy| command_processor(&environment.database, &environment.redis, RULES, policy);
    let is_placed = async || environment.count("SELECT COUNT(*) FROM orders").await == 1;
    Box::pin(expect_reclaimed_in_time(die, processor, is_placed)).await;
    environment.end().await;
}
