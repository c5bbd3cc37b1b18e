//! Sales as the ranking counts them, whatever happens to events, workers and Redis on the way.

use chrono::{NaiveDate, TimeDelta};
use chrono_tz::Tz;
use dibs_common::{
    clock::{self, Timestamp},
    db,
    domain::{
        order::{Action, Command, CommandResult, Line, Order, OrderOutcome, OrderRules},
        ranking::{KEPT_DAYS, Scores, WINDOWS, business_day, days_before, last_days, start_of, union},
    },
    error::Result,
    identifiers::{CommandId, OrderId, PaymentId, ProductId, random_below},
    redis::sales,
    testing::TestEnvironment,
};
use dibs_worker::{
    jobs::Job,
    orders::execute_batch,
    ranking::{RankingSink, WindowsBuilt, rebuild, warm},
    relay::{Relay, StepOutcome},
};

use crate::{crashing_sink::CrashingSink, jobs::jobs, support::user};

pub const RULES: OrderRules = OrderRules { holding_cap: 1_000_000_000, time_zone: ZONE, ..OrderRules::DEFAULT };
pub const ZONE: Tz = chrono_tz::Asia::Seoul;
const BUYER: u64 = 1;

fn sink(environment: &TestEnvironment) -> RankingSink {
    sink_in(environment, ZONE)
}

fn sink_in(environment: &TestEnvironment, zone: Tz) -> RankingSink {
    RankingSink { database: environment.database.clone(), redis: environment.redis.clone(), zone }
}

/// An environment in which one user can buy every product.
pub async fn shop(products: usize) -> (TestEnvironment, Vec<ProductId>) {
    let environment = TestEnvironment::new().await;
    environment.points(BUYER, 900_000_000).await;
    let mut made = Vec::new();
    for _ in 0..products {
        made.push(environment.product(10, 100_000).await);
    }
    (environment, made)
}

async fn execute(environment: &TestEnvironment, action: Action, rules: &OrderRules, now: Timestamp) -> CommandResult {
    let command = Command { id: CommandId::generate(), user: user(BUYER), at: now, action, trace: None };
    let mut outcomes = execute_batch(&environment.database, &[command], rules, || now).await.expect("executed");
    match outcomes.pop().expect("an outcome") {
        OrderOutcome::Done(done) => *done,
        OrderOutcome::Rejected(reason) => panic!("{reason}"),
    }
}

pub async fn buy(environment: &TestEnvironment, product: ProductId, quantity: u32, now: Timestamp) -> OrderId {
    let items = vec![Line { product_id: product, quantity }];
    let action = Action::Place { items, coupon: None, payment: Some(PaymentId::generate()) };
    execute(environment, action, &RULES, now).await.order.order_id
}

pub async fn cancel(environment: &TestEnvironment, order: OrderId, now: Timestamp) {
    cancel_by(environment, order, &RULES, now).await;
}

/// Cancels an order by the rules that the shop has now. Returns it.
pub async fn cancel_by(environment: &TestEnvironment, order: OrderId, rules: &OrderRules, now: Timestamp) -> Order {
    execute(environment, Action::Cancel { order }, rules, now).await.order
}

/// Numbers and delivers all that happened.
pub async fn deliver_all(environment: &TestEnvironment) {
    deliver_all_in(environment, ZONE).await;
}

/// The same by a worker with another time zone.
pub async fn deliver_all_in(environment: &TestEnvironment, zone: Tz) {
    while db::outbox::sequence_events(&environment.database).await.expect("numbered") > 0 {}
    let mut relay = Relay::new(&environment.database, sink_in(environment, zone));
    while relay.step(clock::now()).await.expect("delivered") == StepOutcome::Delivered {}
    relay.release_lease().await;
}

/// What orders say was sold on a day.
pub async fn sums(environment: &TestEnvironment, day: NaiveDate) -> Scores {
    let (from, to) = (start_of(day, ZONE), start_of(day, ZONE) + TimeDelta::days(1));
    let sold: Vec<(u64, i64)> = sqlx::query_as(
        "SELECT i.product_id, CAST(SUM(i.quantity) AS SIGNED) FROM orders o JOIN order_items i USING (order_id) \
         WHERE o.paid_at >= ? AND o.paid_at < ? AND o.status IN ('PAY_DONE', 'BUY_CONFIRM') GROUP BY 1",
    )
    .bind(from)
    .bind(to)
    .fetch_all(&environment.database.pool())
    .await
    .expect("sums");
    sold.into_iter().map(|(product, units)| (product.try_into().expect("an id"), units)).collect()
}

/// Delivers all events, and ends with scores that are the sums of the orders.
async fn end_delivered(environment: TestEnvironment, what: &str) {
    deliver_all(&environment).await;
    expect_scores_of_orders(&environment, what).await;
    environment.end().await;
}

pub async fn expect_scores_of_orders(environment: &TestEnvironment, what: &str) {
    for day in last_days(business_day(clock::now(), ZONE), KEPT_DAYS) {
        let scores = sales::daily(&environment.redis, day).await.expect("redis");
        assert_eq!(scores, sums(environment, day).await, "{what}: {day}");
    }
    expect_windows_of_orders(environment, what).await;
}

/// Expects windows that are what the orders of their days come to, whenever they were built.
async fn expect_windows_of_orders(environment: &TestEnvironment, what: &str) {
    for window in WINDOWS {
        let to = sales::window_info(&environment.redis, window).await.expect("redis").expect("a window").to;
        let mut days = Vec::new();
        for day in last_days(to, window.into()) {
            days.push(sums(environment, day).await);
        }
        let shown = sales::whole_window(&environment.redis, window).await.expect("redis");
        assert_eq!(shown, union(&days), "{what}: {window} days up to {to}");
    }
}

/// `002` section 3-2-2: a paid order counts at once on the day of its payment, a cancelled one no longer.
#[tokio::test]
async fn seed_002_3_2_2_a_paid_order_counts_and_a_cancelled_one_no_longer() {
    let (environment, products) = shop(2).await;
    let today = business_day(clock::now(), ZONE);
    let midnight = start_of(today, ZONE);
    let late = buy(&environment, products[0], 3, midnight - TimeDelta::milliseconds(1)).await;
    buy(&environment, products[0], 2, midnight).await;
    buy(&environment, products[1], 7, midnight).await;
    deliver_all(&environment).await;
    let daily = async |day| sales::daily(&environment.redis, day).await.expect("redis");
    assert_eq!(daily(days_before(today, 1)).await, Scores::from([(products[0], 3)]));
    assert_eq!(daily(today).await, Scores::from([(products[0], 2), (products[1], 7)]));
    cancel(&environment, late, clock::now()).await;
    deliver_all(&environment).await;
    assert_eq!(daily(days_before(today, 1)).await, Scores::new());
    assert_eq!(daily(today).await.len(), 2);
    environment.end().await;
}

/// I9 and I10: whatever order payments, cancellations, deliveries, deaths, losses, rebuilds, jobs and midnights come
/// in, for eight days, scores and stored days are what the orders themselves come to.
#[tokio::test]
async fn i9_scores_and_stored_days_are_the_sums_of_the_orders_whatever_happens() {
    let (environment, products) = shop(3).await;
    let jobs = jobs(&environment);
    let (mut orders, mut trace) = (Vec::new(), String::new());
    let mut now = clock::now() - TimeDelta::days(8);
    while now < clock::now() {
        let choice = random_below(22);
        trace = format!("{trace}{choice} ");
        now += TimeDelta::minutes(i64::from(random_below(180)));
        match choice {
            0..8 => {
                let product = products[usize::from(random_below(3))];
                orders.push(buy(&environment, product, u32::from(random_below(4)) + 1, now).await);
            }
            8..11 if !orders.is_empty() => {
                let order = orders.swap_remove(usize::from(random_below(u16::try_from(orders.len()).expect("few"))));
                cancel(&environment, order, now).await;
            }
            8..14 => {
                db::outbox::sequence_events(&environment.database).await.expect("numbered");
            }
            14..16 => {
                let mut relay = Relay::new(&environment.database, sink(&environment));
                relay.step(clock::now()).await.expect("delivered");
                relay.release_lease().await;
            }
            16..18 => {
                // It may also have had nothing to deliver, or have found the lock not yet free of the one before.
                let _: Result<StepOutcome> =
                    Relay::new(&environment.database, CrashingSink(sink(&environment))).step(clock::now()).await;
            }
            18 => environment.lose_redis().await,
            19 => rebuild(&environment.database, &environment.redis, ZONE, now).await.expect("rebuilt"),
            _ => jobs.run_due(now).await.expect("done"),
        }
    }
    deliver_all(&environment).await;
    expect_scores_of_orders(&environment, &trace).await;
    let yesterday = days_before(business_day(now, ZONE), 1);
    jobs.run_due(now).await.expect("done");
    jobs.run(Job::PersistDailySales, Some(yesterday), now).await.expect("done").expect("no other process runs it");
    expect_windows_of_orders(&environment, &trace).await;
    for day in last_days(yesterday, 8) {
        assert_eq!(stored(&environment, day).await, sums(&environment, day).await, "{trace}: {day}");
    }
    environment.end_consistent().await;
}

async fn stored(environment: &TestEnvironment, day: NaiveDate) -> Scores {
    let sold: Vec<(u64, i64)> = sqlx::query_as("SELECT product_id, quantity FROM product_daily_sales WHERE day = ?")
        .bind(day)
        .fetch_all(&environment.database.pool())
        .await
        .expect("rows");
    sold.into_iter().map(|(product, units)| (product.try_into().expect("an id"), units)).collect()
}

/// I10: a batch that was taken, but not noted, comes again and counts once.
#[tokio::test]
async fn i10_a_batch_that_is_delivered_again_counts_once() {
    let (environment, products) = shop(1).await;
    deliver_all(&environment).await;
    buy(&environment, products[0], 5, clock::now()).await;
    db::outbox::sequence_events(&environment.database).await.expect("numbered");
    for _ in 0..3 {
        let died = Relay::new(&environment.database, CrashingSink(sink(&environment))).step(clock::now()).await;
        assert!(died.is_err());
    }
    buy(&environment, products[0], 1, clock::now()).await;
    end_delivered(environment, "after three deaths").await;
}

/// Redis loses everything while events are written that have no sequence yet: each is counted once all the same.
#[tokio::test]
async fn i10_a_rebuild_leaves_what_is_not_numbered_to_its_delivery() {
    let (environment, products) = shop(1).await;
    let first = buy(&environment, products[0], 5, clock::now()).await;
    deliver_all(&environment).await;
    cancel(&environment, first, clock::now()).await;
    buy(&environment, products[0], 2, clock::now()).await;
    environment.lose_redis().await;
    rebuild(&environment.database, &environment.redis, ZONE, clock::now()).await.expect("rebuilt");
    let today = business_day(clock::now(), ZONE);
    let scores = sales::daily(&environment.redis, today).await.expect("redis");
    assert_eq!(scores, Scores::from([(products[0], 5)]), "as of the last numbered event");
    end_delivered(environment, "delivered").await;
}

/// Midnight comes during a rebuild: orders paid after it are counted.
#[tokio::test]
async fn i9_a_rebuild_that_begins_before_midnight_counts_what_is_paid_after_it() {
    let (environment, products) = shop(1).await;
    let midnight = start_of(business_day(clock::now(), ZONE), ZONE);
    buy(&environment, products[0], 2, midnight).await;
    db::outbox::sequence_events(&environment.database).await.expect("numbered");
    rebuild(&environment.database, &environment.redis, ZONE, midnight - TimeDelta::milliseconds(1))
        .await
        .expect("rebuilt");
    end_delivered(environment, "after midnight").await;
}

/// More changes than Redis is given at once: the batch is counted in parts.
#[tokio::test]
async fn i9_a_batch_of_very_long_orders_is_counted_in_parts() {
    const LINES: u64 = 90;
    let environment = TestEnvironment::new().await;
    deliver_all(&environment).await;
    let now = clock::now();
    let items: Vec<String> = (1..=LINES).map(|id| format!(r#"{{"productId": {id}, "quantity": 2}}"#)).collect();
    let payload = format!(r#"{{"items": [{}], "paidAt": "{}"}}"#, items.join(","), now.to_rfc3339());
    let rows = vec![format!("('ORDER', 'x', 'order.paid', '{payload}', NOW(3))"); 100];
    let head = "INSERT INTO outbox_events (aggregate_type, aggregate_id, type, payload, created_at) VALUES ";
    environment.execute(&format!("{head}{}", rows.join(","))).await;
    db::outbox::sequence_events(&environment.database).await.expect("numbered");
    let mut relay = Relay::new(&environment.database, sink(&environment));
    let mut steps = 0;
    while relay.step(clock::now()).await.expect("delivered") == StepOutcome::Delivered {
        steps += 1;
    }
    relay.release_lease().await;
    assert_eq!(steps, 2, "9,000 changes, 5,000 at once");
    let scores = sales::daily(&environment.redis, business_day(now, ZONE)).await.expect("redis");
    assert!(scores.len() == 90 && scores.values().all(|units| *units == 200), "{scores:?}");
    environment.end().await;
}

/// Redis came back with older data, or none: the worker sees that by itself.
#[tokio::test]
async fn i11_sales_that_redis_lost_are_counted_again() {
    let (environment, products) = shop(2).await;
    buy(&environment, products[0], 5, clock::now()).await;
    deliver_all(&environment).await;
    environment.lose_redis().await;
    let mut relay = Relay::new(&environment.database, sink(&environment));
    relay.step(clock::now()).await.expect("nothing happened since, and yet it looks");
    relay.release_lease().await;
    expect_scores_of_orders(&environment, "lost").await;
    let made = sales::window(&environment.redis, 3, 10).await.expect("redis");
    assert_eq!(made, [(products[0], 5)], "readers have their windows again");
    environment.end().await;
}

/// Two that sold the same: the lower id first, also where ids differ in length.
#[tokio::test]
async fn seed_002_3_2_2_windows_are_made_of_days_and_ties_go_to_the_lower_id() {
    let (environment, products) = shop(11).await;
    let now = clock::now();
    for (place_in_list, days_ago, quantity) in
        [(10, 0, 2), (8, 0, 2), (1, 1, 9), (0, 2, 3), (0, 0, 1), (5, 5, 50), (6, 7, 99)]
    {
        buy(&environment, products[place_in_list], quantity, now - TimeDelta::days(days_ago)).await;
    }
    deliver_all(&environment).await;
    let window = async |days| sales::window(&environment.redis, days, 10).await.expect("redis");
    assert_eq!(window(1).await, [(products[8], 2), (products[10], 2), (products[0], 1)]);
    assert_eq!(window(3).await, [(products[1], 9), (products[0], 4), (products[8], 2), (products[10], 2)]);
    assert_eq!(window(7).await.first(), Some(&(products[5], 50)));
    let place_of = async |product| sales::window_rank(&environment.redis, 3, product).await.expect("redis");
    assert_eq!(place_of(products[10]).await, Some((4, 2)));
    assert_eq!(place_of(products[5]).await, None);
    let made = sales::window_info(&environment.redis, 3).await.expect("redis").expect("made");
    assert!(made.to == business_day(now, ZONE) && made.updated_at >= now, "{made:?}");
    assert_eq!(warm(&environment.redis, ZONE, now).await.expect("redis"), WindowsBuilt::Shown { products: 5 });
    expect_scores_of_orders(&environment, "built").await;
    environment.end().await;
}
