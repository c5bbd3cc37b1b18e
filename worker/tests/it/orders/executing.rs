//! Batches of commands: twice, at once, and after a death.

use chrono::TimeDelta;
use dibs_common::{
    clock,
    domain::order::{Action, Command, OrderOutcome, OrderRules},
    identifiers::{ClaimId, new_uuid},
    testing::{
        FIRST, TestEnvironment,
        commands::{cancel_all, command, place_order, with_coupon, with_payment},
    },
};
use dibs_worker::orders::{Expiry, execute_batch};
use futures::future::join_all;

use super::{RULES, a_day, commands, execute, expect_the_day, is_done, processor_of, with_product, work};

/// I5 to I8 when a worker dies between any two steps, and everything is delivered again: nothing happens twice.
#[tokio::test]
async fn i8_a_death_between_any_two_steps_changes_nothing() {
    for steps in 0..=2 {
        let environment = TestEnvironment::new().await;
        for command in a_day(&environment).await {
            environment.enqueue(&command).await;
        }
        let mut mortal = processor_of(&environment).join(FIRST, "mortal").await.expect("joined");
        let batch = mortal.next().await.expect("read");
        assert_eq!(batch.len(), 8);
        let mut outcomes = Vec::new();
        if steps >= 1 {
            outcomes = execute(&environment, &commands(&batch)).await;
        }
        if steps >= 2 {
            let ids: Vec<String> = batch.iter().take(3).map(|entry| entry.delivery.id.clone()).collect();
            mortal.stream().acknowledge(&ids).await.expect("acknowledged");
        }
        work(&environment).await;
        expect_the_day(&environment, &format!("died after step {steps}")).await;
        // A redelivered command keeps its outcome, whatever happened to the order meanwhile.
        if steps >= 1 {
            let again = execute(&environment, &commands(&batch)).await;
            assert_eq!(again.iter().map(is_done).collect::<Vec<_>>(), outcomes.iter().map(is_done).collect::<Vec<_>>());
            expect_the_day(&environment, "repeated").await;
        }
        environment.end().await;
    }
}

/// I12: every command twice on the stream, in other batches, has one outcome.
#[tokio::test]
async fn i12_a_command_that_is_enqueued_twice_is_executed_once() {
    let environment = TestEnvironment::new().await;
    let day = a_day(&environment).await;
    for command in day.iter().chain(&day) {
        environment.enqueue(command).await;
    }
    work(&environment).await;
    expect_the_day(&environment, "enqueued twice").await;
    environment.end().await;
}

/// Two workers execute the same commands at once, the late one after it was thought dead.
#[tokio::test]
async fn i8_two_workers_at_once_execute_each_command_once() {
    let (environment, product) = with_product(60).await;
    let orders: Vec<Command> = (1..=100).map(|number| place_order(number, product, 1)).collect();
    let cancels = cancel_all(&orders);
    let mut reversed = orders.clone();
    reversed.reverse();
    let batches = [&orders[..], &reversed[..], &orders[..50], &reversed[..50]];
    join_all(batches.map(|batch| execute(&environment, batch))).await;
    environment
        .expect_counts([
            ("SELECT stock FROM products", 0),
            ("SELECT COUNT(*) FROM orders WHERE status = 'DEPOSIT_WAIT'", 60),
            ("SELECT COUNT(*) FROM orders WHERE status = 'REJECTED'", 40),
        ])
        .await;
    let halves = [&cancels[..], &cancels[50..], &cancels[..50]];
    join_all(halves.map(|batch| execute(&environment, batch))).await;
    assert_eq!(environment.count("SELECT stock FROM products").await, 60);
    environment.end_consistent().await;
}

/// Batches of orders, charges and changes of products at once, on the same rows: none is lost to a deadlock.
#[tokio::test]
async fn batches_that_touch_the_same_rows_do_not_lock_each_other_out() {
    let environment = TestEnvironment::new().await;
    let products = [environment.product(10, 100_000).await, environment.product(10, 100_000).await];
    for number in 1..=20 {
        environment.points(number, 100_000).await;
    }
    let day = |seed: u64| {
        let orders = (0..60)
            .map(move |number| place_order((number * 7 + seed) % 20 + 1, products[usize::from(number % 2 == 0)], 1));
        orders.map(with_payment).collect::<Vec<Command>>()
    };
    let days: Vec<Vec<Command>> = (0..6).map(day).collect();
    let executed = join_all(days.iter().map(|day| execute(&environment, day))).await;
    assert!(executed.iter().flatten().all(is_done));
    let cancels: Vec<Vec<Command>> = days.iter().map(|day| cancel_all(day.iter().rev())).collect();
    let cancelled = join_all(cancels.iter().map(|day| execute(&environment, day))).await;
    assert!(cancelled.iter().flatten().all(is_done));
    environment
        .expect_counts([
            ("SELECT SUM(stock) FROM products", 200_000),
            ("SELECT SUM(balance) FROM point_accounts", 2_000_000),
        ])
        .await;
    environment.end_consistent().await;
}

/// Overdue orders get a command to expire page by page, and again when their command got lost.
#[tokio::test]
async fn overdue_orders_get_one_command_to_expire_each_round() {
    let (environment, product) = with_product(10).await;
    let orders: Vec<Command> = (1..=3).map(|number| place_order(number, product, 1)).collect();
    let rules = OrderRules { expiry: TimeDelta::zero(), ..RULES };
    execute_batch(&environment.database, &orders, &rules, clock::now).await.expect("placed");
    let mut expiry = Expiry::default();
    let now = clock::now() + TimeDelta::seconds(1);
    let sent = async |expiry: &mut Expiry, now| {
        expiry.send_commands(&environment.database, &environment.redis, 1, now).await.expect("sent")
    };
    assert_eq!(sent(&mut expiry, now).await, 3);
    assert_eq!(sent(&mut expiry, now).await, 0);
    // A minute later their commands may have got lost.
    assert_eq!(sent(&mut expiry, now + TimeDelta::minutes(1)).await, 3);
    work(&environment).await;
    assert_eq!(sent(&mut expiry, now + TimeDelta::minutes(2)).await, 0);
    assert_eq!(environment.count("SELECT stock FROM products").await, 10);
    for expired in ["orders WHERE status = 'EXPIRED'", "outbox_events WHERE type = 'order.expired'"] {
        assert_eq!(environment.count(&format!("SELECT COUNT(*) FROM {expired}")).await, 3, "{expired}");
    }
    environment.end_consistent().await;
}

/// I7: the database itself refuses a coupon in two live orders, and a second payment of an order.
#[tokio::test]
async fn i7_the_database_itself_refuses_what_must_not_be() {
    let environment = TestEnvironment::new().await;
    let order = |id: &str, status: &str| {
        format!(
            "INSERT INTO orders (order_id, user_id, status, total_amount, discount_amount, pay_amount, user_coupon_id, \
             created_at, expires_at) VALUES (UNHEX('{id}'), 1, '{status}', 10, 0, 10, UNHEX('ff'), NOW(3), NOW(3))"
        )
    };
    let refused = async |sql: String| {
        let answer = sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&environment.database.pool()).await;
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
    environment.product(1_000, 1).await;
    assert!(refused("UPDATE products SET stock = 2".into()).await);
    assert!(refused("UPDATE products SET stock = -1, sold = 2".into()).await);
    environment.end().await;
}

/// A coupon that does not exist fails no other order.
#[tokio::test]
async fn an_unknown_coupon_refuses_its_order_only() {
    let (environment, product) = with_product(10).await;
    let unknown = with_coupon(place_order(1, product, 1), ClaimId(new_uuid()));
    let batch = [unknown, place_order(2, product, 1)];
    let outcomes = execute(&environment, &batch).await;
    assert!(matches!(&outcomes[..], [OrderOutcome::Rejected(_), OrderOutcome::Done(_)]), "{outcomes:?}");
    environment.end_consistent().await;
}

/// I7: what one order gives back, another of the same batch may take, though the table refuses two live orders.
#[tokio::test]
async fn i7_a_coupon_moves_from_order_to_order_within_a_batch() {
    let (environment, product) = with_product(10).await;
    let coupon = new_uuid();
    let issued = format!(
        "INSERT INTO user_coupons (user_coupon_id, coupon_id, user_id, ordinal, per_user_limit, sequence, discount_type, \
         discount_value, minimum_order_amount, accepted_at, issued_at, valid_until) VALUES (x'{}', 1, 1, 1, 1, 1, 'FIXED', \
         500, 0, NOW(3), NOW(3), NOW(3) + INTERVAL 1 DAY)",
        coupon.simple()
    );
    environment.execute(&issued).await;
    let ordering = || with_coupon(place_order(1, product, 1), ClaimId(coupon));
    let (first, second) = (ordering(), ordering());
    let placed = execute(&environment, std::slice::from_ref(&first)).await;
    let moved = [command(1, Action::Cancel { order: first.order() }), second];
    let moved = execute(&environment, &moved).await;
    assert!(placed.iter().chain(&moved).all(is_done), "{placed:?} {moved:?}");
    environment.end_consistent().await;
}
