//! Commands executed by a worker that dies, is late, is one of two, or has lost its servers.

use std::time::Duration;

use chrono::TimeDelta;
use dibs_common::{
    clock,
    dead_letters::drop_source,
    domain::{
        dead_letter::COMMANDS,
        order::{Action, Command, Line, OrderOutcome, OrderRules},
    },
    identifiers::{ClaimId, CommandId, OrderId, PaymentId, ProductId, new_uuid},
    redis::{scripts, streams::OrderEntry},
    testing::{FIRST, TestEnvironment, eventually},
};
use dibs_worker::{
    orders::{CommandProcessor, Expiry, command_processor, execute_batch},
    streams::InFlight,
};
use fred::interfaces::StreamsInterface as _;
use futures::future::join_all;

use crate::{
    dead_letters::only_letter,
    support::{IMPATIENT, Running, expect_reclaimed_in_time, user},
};

const RULES: OrderRules = OrderRules { expiry: TimeDelta::minutes(30), holding_cap: 10_000_000 };

fn command(number: u64, action: Action) -> Command {
    Command { id: CommandId::generate(), user: user(number), at: clock::now(), action }
}

fn place_order(number: u64, product: ProductId, paid: bool) -> Command {
    let items = vec![Line { product_id: product, quantity: 1 }];
    command(number, Action::Place { items, coupon: None, payment: paid.then(PaymentId::generate) })
}

async fn enqueue(place: &TestEnvironment, command: &Command) {
    let entry = OrderEntry { answers: String::new(), request: "test".into(), command: command.clone() };
    let stream = place.redis.keys.order_stream(FIRST);
    scripts::enqueue(&place.redis, stream, 1_000, entry.fields().expect("fields")).await.expect("enqueued");
}

fn processor_of(place: &TestEnvironment) -> CommandProcessor {
    command_processor(&place.database, &place.redis, RULES, IMPATIENT)
}

/// Executes what is on the stream until nothing is left that can be processed.
pub async fn work(place: &TestEnvironment) {
    processor_of(place).drain(FIRST).await.expect("drained");
}

async fn execute(place: &TestEnvironment, batch: &[Command]) -> Vec<OrderOutcome> {
    execute_batch(&place.database, batch, &RULES, clock::now()).await.expect("executed")
}

fn is_done(outcome: &OrderOutcome) -> bool {
    matches!(outcome, OrderOutcome::Done(_))
}

/// Entries on the stream.
async fn left(place: &TestEnvironment) -> u64 {
    place.redis.client().xlen(place.redis.keys.order_stream(FIRST)).await.expect("a length")
}

fn commands(batch: &[InFlight<OrderEntry>]) -> Vec<Command> {
    batch.iter().map(|entry| entry.delivery.entry.as_ref().expect("decode").command.clone()).collect()
}

/// A day in the shop: two orders, one paid at once, one in two steps, one of them cancelled, and refusals.
async fn a_day(place: &TestEnvironment) -> Vec<Command> {
    let product = place.product(7_000, 2).await;
    place.points(1, 20_000).await;
    let (first, second, third) =
        (place_order(1, product, true), place_order(1, product, false), place_order(2, product, false));
    let order = OrderId(second.id.0);
    vec![
        command(1, Action::Pay { order }),
        first.clone(),
        second.clone(),
        third,
        command(1, Action::Pay { order }),
        command(1, Action::Cancel { order: OrderId(first.id.0) }),
        command(1, Action::Confirm { order }),
        command(1, Action::Cancel { order }),
    ]
}

async fn expect_the_day(place: &TestEnvironment, what: &str) {
    assert_eq!(place.count("SELECT stock FROM products").await, 1, "{what}");
    assert_eq!(place.count("SELECT balance FROM point_accounts").await, 13_000, "{what}");
    assert_eq!(place.count("SELECT COUNT(*) FROM point_histories").await, 4, "{what}");
    assert_eq!(place.count("SELECT COUNT(*) FROM orders").await, 3, "{what}");
    assert_eq!(place.count("SELECT COUNT(*) FROM orders WHERE code = 'STOCK_INSUFFICIENT'").await, 1, "{what}");
    assert_eq!(place.count("SELECT COUNT(*) FROM order_commands").await, 5, "{what}");
    assert_eq!(place.count("SELECT COUNT(*) FROM order_commands WHERE code IS NOT NULL").await, 2, "{what}");
    let events = "SELECT COUNT(*) FROM outbox_events WHERE aggregate_type = 'ORDER'";
    assert_eq!(place.count(events).await, 6, "{what}");
    place.expect_consistent_rows().await;
}

/// I5 to I8 when a worker dies between any two steps, and everything is delivered again: nothing happens twice.
#[tokio::test]
async fn i8_a_death_between_any_two_steps_changes_nothing() {
    for steps in 0..=2 {
        let place = TestEnvironment::new().await;
        for command in a_day(&place).await {
            enqueue(&place, &command).await;
        }
        let mut mortal = processor_of(&place).join(FIRST, "mortal").await.expect("joined");
        let batch = mortal.next().await.expect("read");
        assert_eq!(batch.len(), 8);
        let mut outcomes = Vec::new();
        if steps >= 1 {
            outcomes = execute(&place, &commands(&batch)).await;
        }
        if steps >= 2 {
            let ids: Vec<String> = batch.iter().take(3).map(|entry| entry.delivery.id.clone()).collect();
            mortal.stream().acknowledge(&ids).await.expect("acknowledged");
        }
        work(&place).await;
        expect_the_day(&place, &format!("died after step {steps}")).await;
        // A redelivered command keeps its outcome, whatever happened to the order meanwhile.
        if steps >= 1 {
            let again = execute(&place, &commands(&batch)).await;
            assert_eq!(again.iter().map(is_done).collect::<Vec<_>>(), outcomes.iter().map(is_done).collect::<Vec<_>>());
            expect_the_day(&place, "repeated").await;
        }
        place.end().await;
    }
}

/// I12: every command twice on the stream, in other batches, has one outcome.
#[tokio::test]
async fn i12_a_command_that_is_enqueued_twice_is_executed_once() {
    let place = TestEnvironment::new().await;
    let day = a_day(&place).await;
    for command in day.iter().chain(&day) {
        enqueue(&place, command).await;
    }
    work(&place).await;
    expect_the_day(&place, "enqueued twice").await;
    place.end().await;
}

/// Two workers execute the same commands at once, the late one after it was thought dead.
#[tokio::test]
async fn i8_two_workers_at_once_execute_each_command_once() {
    let place = TestEnvironment::new().await;
    let product = place.product(1_000, 60).await;
    let orders: Vec<Command> = (1..=100).map(|number| place_order(number, product, false)).collect();
    let cancels: Vec<Command> = orders
        .iter()
        .map(|order| Command {
            action: Action::Cancel { order: OrderId(order.id.0) },
            ..command(order.user.get(), Action::Confirm { order: OrderId(order.id.0) })
        })
        .collect();
    let mut reversed = orders.clone();
    reversed.reverse();
    let batches = [&orders[..], &reversed[..], &orders[..50], &reversed[..50]];
    join_all(batches.map(|batch| execute(&place, batch))).await;
    assert_eq!(place.count("SELECT stock FROM products").await, 0);
    assert_eq!(place.count("SELECT COUNT(*) FROM orders WHERE status = 'DEPOSIT_WAIT'").await, 60);
    assert_eq!(place.count("SELECT COUNT(*) FROM orders WHERE status = 'REJECTED'").await, 40);
    let halves = [&cancels[..], &cancels[50..], &cancels[..50]];
    join_all(halves.map(|batch| execute(&place, batch))).await;
    assert_eq!(place.count("SELECT stock FROM products").await, 60);
    place.expect_consistent_rows().await;
    place.end().await;
}

/// Batches of orders, charges and changes of products at once, on the same rows: none is lost to a deadlock.
#[tokio::test]
async fn batches_that_touch_the_same_rows_do_not_lock_each_other_out() {
    let place = TestEnvironment::new().await;
    let products = [place.product(10, 100_000).await, place.product(10, 100_000).await];
    for number in 1..=20 {
        place.points(number, 100_000).await;
    }
    let day = |seed: u64| {
        let orders = (0..60)
            .map(move |number| place_order((number * 7 + seed) % 20 + 1, products[usize::from(number % 2 == 0)], true));
        orders.collect::<Vec<Command>>()
    };
    let days: Vec<Vec<Command>> = (0..6).map(day).collect();
    let carried = join_all(days.iter().map(|day| execute(&place, day))).await;
    assert!(carried.iter().flatten().all(is_done));
    let cancels: Vec<Vec<Command>> = days
        .iter()
        .map(|day| {
            let cancel = |order: &Command| command(order.user.get(), Action::Cancel { order: OrderId(order.id.0) });
            day.iter().rev().map(cancel).collect()
        })
        .collect();
    let cancelled = join_all(cancels.iter().map(|day| execute(&place, day))).await;
    assert!(cancelled.iter().flatten().all(is_done));
    assert_eq!(place.count("SELECT SUM(stock) FROM products").await, 200_000);
    assert_eq!(place.count("SELECT SUM(balance) FROM point_accounts").await, 2_000_000);
    place.expect_consistent_rows().await;
    place.end().await;
}

/// The database is gone in the middle: commands stay on the stream, and are executed when it is back.
#[tokio::test]
async fn without_the_database_commands_wait_and_are_executed_when_it_is_back() {
    let place = TestEnvironment::new().await;
    let (settings, database_gate, _redis_gate) = place.behind_proxies().await;
    let day = a_day(&place).await;
    for command in &day {
        enqueue(&place, command).await;
    }
    let database = settings.database(4).expect("a pool");
    database_gate.shut();
    let processor = Running::start(command_processor(&database, &place.redis, RULES, IMPATIENT));
    eventually("an attempt failed", Duration::from_secs(5), async || database_gate.refused() > 0).await;
    assert_eq!(place.count("SELECT COUNT(*) FROM orders").await, 0);
    assert_eq!(left(&place).await, 8);
    database_gate.open();
    eventually("the stream is empty", Duration::from_secs(5), async || left(&place).await == 0).await;
    processor.stop().await;
    expect_the_day(&place, "after the database was back").await;
    database.close().await;
    place.end().await;
}

/// A command that cannot be decoded is tried again, dead-lettered after five attempts, and blocks no other.
#[tokio::test]
async fn a_command_that_cannot_be_decoded_is_dead_lettered_and_blocks_no_other() {
    let place = TestEnvironment::new().await;
    let product = place.product(1_000, 10).await;
    let stream = place.redis.keys.order_stream(FIRST);
    let fields = ["type", "orders.v1", "answers", "", "request", "", "command", "{"].map(str::to_owned).to_vec();
    scripts::enqueue(&place.redis, stream.clone(), 10, fields).await.expect("enqueued");
    enqueue(&place, &place_order(1, product, false)).await;
    work(&place).await;
    assert_eq!(place.count("SELECT COUNT(*) FROM orders WHERE status = 'DEPOSIT_WAIT'").await, 1);
    let letter = only_letter(&place, COMMANDS).await;
    assert_eq!((left(&place).await, letter.attempts, letter.kind.as_str()), (0, 5, "orders.v1"));
    assert!(letter.redrivable && letter.reason.contains("field 'command'"), "{letter:?}");
    drop_source(&place.database, &place.redis, COMMANDS, clock::now()).await.expect("dropped");
    place.end().await;
}

/// An order whose own data the tables refuse fails alone; the others of its batch are executed.
#[tokio::test]
async fn a_command_that_breaks_its_transaction_fails_alone() {
    let place = TestEnvironment::new().await;
    let (product, other) = (place.product(1_000, 10).await, place.product(1_000, 10).await);
    // A stock that does not add up is refused by the table itself; here a trigger of the shop stands for it.
    place.execute(&format!("CREATE TRIGGER refuse BEFORE INSERT ON order_items FOR EACH ROW IF NEW.product_id = {other} THEN SIGNAL SQLSTATE '23000' SET MESSAGE_TEXT = 'refused'; END IF")).await;
    let failing = place_order(2, other, false);
    for command in [&place_order(1, product, false), &failing, &place_order(3, product, false)] {
        enqueue(&place, command).await;
    }
    work(&place).await;
    assert_eq!(place.count("SELECT COUNT(*) FROM orders WHERE status = 'DEPOSIT_WAIT'").await, 2);
    // It has an outcome like any other.
    assert_eq!(place.count("SELECT COUNT(*) FROM orders WHERE code = 'COMMAND_FAILED'").await, 1);
    let letter = only_letter(&place, COMMANDS).await;
    assert_eq!((left(&place).await, letter.aggregate_id), (0, Some(failing.id.0.to_string())));
    assert!(!letter.redrivable && letter.reason.starts_with("not redrivable"), "{}", letter.reason);
    drop_source(&place.database, &place.redis, COMMANDS, clock::now()).await.expect("dropped");
    place.expect_consistent_rows().await;
    place.end().await;
}

/// Overdue orders get a command to expire page by page, and again when their command got lost.
#[tokio::test]
async fn overdue_orders_get_one_command_to_expire_each_round() {
    let place = TestEnvironment::new().await;
    let product = place.product(1_000, 10).await;
    let orders: Vec<Command> = (1..=3).map(|number| place_order(number, product, false)).collect();
    let rules = OrderRules { expiry: TimeDelta::zero(), ..RULES };
    execute_batch(&place.database, &orders, &rules, clock::now()).await.expect("placed");
    let mut expiry = Expiry::default();
    let now = clock::now() + TimeDelta::seconds(1);
    let sent = async |expiry: &mut Expiry, now| {
        expiry.send_commands(&place.database, &place.redis, 1, now).await.expect("sent")
    };
    assert_eq!(sent(&mut expiry, now).await, 3);
    assert_eq!(sent(&mut expiry, now).await, 0);
    // A minute later their commands may have got lost.
    assert_eq!(sent(&mut expiry, now + TimeDelta::minutes(1)).await, 3);
    work(&place).await;
    assert_eq!(sent(&mut expiry, now + TimeDelta::minutes(2)).await, 0);
    assert_eq!(place.count("SELECT COUNT(*) FROM orders WHERE status = 'EXPIRED'").await, 3);
    assert_eq!(place.count("SELECT stock FROM products").await, 10);
    assert_eq!(place.count("SELECT COUNT(*) FROM outbox_events WHERE type = 'order.expired'").await, 3);
    place.expect_consistent_rows().await;
    place.end().await;
}

/// I7: the database itself refuses a coupon in two live orders, and a second payment of an order.
#[tokio::test]
async fn i7_the_database_itself_refuses_what_must_not_be() {
    let place = TestEnvironment::new().await;
    let order = |id: &str, status: &str| {
        format!(
            "INSERT INTO orders (order_id, user_id, status, total_amount, discount_amount, pay_amount, user_coupon_id, \
             created_at, expires_at) VALUES (UNHEX('{id}'), 1, '{status}', 10, 0, 10, UNHEX('ff'), NOW(3), NOW(3))"
        )
    };
    let refused = async |sql: String| {
        let answer = sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&place.database.pool()).await;
        answer.is_err_and(|error| error.as_database_error().is_some())
    };
    assert!(!refused(order("01", "CANCELLED")).await);
    assert!(!refused(order("02", "PAY_DONE")).await);
    assert!(refused(order("03", "DEPOSIT_WAIT")).await);
    let payment = |id: &str, status: &str| {
        format!(
            "INSERT INTO payments (payment_id, order_id, user_id, amount, status, code, created_at) \
             VALUES (UNHEX('{id}'), UNHEX('02'), 1, 10, '{status}', IF('{status}' = 'FAIL', 'X', NULL), NOW(3))"
        )
    };
    assert!(!refused(payment("0a", "FAIL")).await);
    assert!(!refused(payment("0b", "DONE")).await);
    assert!(refused(payment("0c", "DONE")).await);
    assert!(refused("UPDATE orders SET pay_amount = 9".into()).await);
    place.product(1_000, 1).await;
    assert!(refused("UPDATE products SET stock = 2".into()).await);
    assert!(refused("UPDATE products SET stock = -1, sold = 2".into()).await);
    place.end().await;
}

#[tokio::test]
async fn a_dead_workers_commands_are_reclaimed_in_time() {
    let place = TestEnvironment::new().await;
    let product = place.product(1_000, 10).await;
    enqueue(&place, &place_order(1, product, false)).await;
    let die = async {
        let mut mortal = processor_of(&place).join(FIRST, "mortal").await.expect("joined");
        assert_eq!(mortal.next().await.expect("read").len(), 1);
    };
    let processor = |policy| command_processor(&place.database, &place.redis, RULES, policy);
    expect_reclaimed_in_time(die, processor, async || place.count("SELECT COUNT(*) FROM orders").await == 1).await;
    place.end().await;
}

/// A coupon that does not exist is no reason to fail for anybody.
#[tokio::test]
async fn an_unknown_coupon_refuses_its_order_only() {
    let place = TestEnvironment::new().await;
    let product = place.product(1_000, 10).await;
    let items = vec![Line { product_id: product, quantity: 1 }];
    let unknown = Action::Place { items, coupon: Some(ClaimId(new_uuid())), payment: None };
    let batch = [command(1, unknown), place_order(2, product, false)];
    let outcomes = execute(&place, &batch).await;
    assert!(matches!(&outcomes[..], [OrderOutcome::Rejected(_), OrderOutcome::Done(_)]), "{outcomes:?}");
    place.expect_consistent_rows().await;
    place.end().await;
}

/// I7: what one order gives back, another of the same batch may take, though the table refuses two live orders.
#[tokio::test]
async fn i7_a_coupon_moves_from_order_to_order_within_a_batch() {
    let place = TestEnvironment::new().await;
    let product = place.product(1_000, 10).await;
    let coupon = new_uuid();
    let issued = format!(
        "INSERT INTO user_coupons (user_coupon_id, coupon_id, user_id, ordinal, per_user_limit, sequence, discount_type, \
         discount_value, minimum_order_amount, accepted_at, issued_at, valid_until) VALUES (x'{}', 1, 1, 1, 1, 1, 'FIXED', \
         500, 0, NOW(3), NOW(3), NOW(3) + INTERVAL 1 DAY)",
        coupon.simple()
    );
    place.execute(&issued).await;
    let with_coupon = || {
        let items = vec![Line { product_id: product, quantity: 1 }];
        command(1, Action::Place { items, coupon: Some(ClaimId(coupon)), payment: None })
    };
    let (first, second) = (with_coupon(), with_coupon());
    let first_order = OrderId(first.id.0);
    let placed = execute(&place, &[first]).await;
    let moved = [command(1, Action::Cancel { order: first_order }), second];
    let moved = execute(&place, &moved).await;
    assert!(placed.iter().chain(&moved).all(is_done), "{placed:?} {moved:?}");
    place.expect_consistent_rows().await;
    place.end().await;
}
