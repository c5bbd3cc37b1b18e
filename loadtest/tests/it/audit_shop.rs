//! The audit of the shop: it finds nothing in a valid one, and every planted fault.

use std::{collections::BTreeSet, sync::Arc};

use chrono::TimeDelta;
use dibs_common::{
    clock::{self, Timestamp},
    db,
    domain::{
        charge::NewCharge,
        order::{Action, Command, Line, OrderOutcome, OrderRules},
        points::PointRules,
        ranking::{business_day, days_before},
    },
    identifiers::{ChargeId, ClaimId, CommandId, OrderId, PaymentId, ProductId},
    redis::keys::{ORDERS_GROUP, sales_member},
    testing::{FIRST, TestEnvironment},
};
use dibs_loadtest::{
    audit::{Check, Evidence, ShopSettings, audit_shop},
    record::{Expectation, ExpectedState, ShopRecord},
};
use dibs_worker::{
    jobs::{Job, Jobs},
    orders::execute_batch,
    ranking::{self, RankingSink},
    relay::{Relay, StepOutcome},
};
use fred::{
    interfaces::{KeysInterface as _, SortedSetsInterface as _, StreamsInterface as _},
    types::streams::XID,
};
use sqlx::Executor as _;
use uuid::Uuid;

use crate::audit_campaign::{broken, stores, user};

const CAP: i64 = 1_000_000;
pub const SETTINGS: ShopSettings = ShopSettings { points_holding_cap: CAP, time_zone: chrono_tz::Asia::Seoul };

/// A shop with one order in each state.
struct Shop {
    environment: TestEnvironment,
    product: ProductId,
    unpaid: OrderId,
    confirmed: OrderId,
    cancelled: OrderId,
    free: OrderId,
    rejected: OrderId,
    charge: ChargeId,
    pending: ChargeId,
}

impl Shop {
    async fn new() -> Self {
        let environment = TestEnvironment::new().await;
        let (product, coupon) = (environment.product(4_000, 100).await, coupon(&environment).await);
        let now = clock::now();
        let mut shop = Self {
            product,
            unpaid: OrderId(Uuid::nil()),
            confirmed: OrderId(Uuid::nil()),
            cancelled: OrderId(Uuid::nil()),
            free: OrderId(Uuid::nil()),
            rejected: OrderId(Uuid::nil()),
            charge: ChargeId::generate(),
            pending: ChargeId::generate(),
            environment,
        };
        shop.charge(shop.charge, 20_000).await;
        shop.charge(ChargeId::generate(), 10_000).await;
        let pending = NewCharge { id: shop.pending, user: user(1), amount: 10_000, payment_method: None };
        db::charges::begin(&shop.environment.database, &pending, rules(), now).await.expect("begun");
        shop.unpaid = shop.order(1, None, false, now).await;
        shop.confirmed = shop.order(2, None, true, now).await;
        shop.execute(Action::Confirm { order: shop.confirmed }, now).await;
        shop.cancelled = shop.order(3, None, false, now).await;
        shop.execute(Action::Pay { order: shop.cancelled }, now).await;
        shop.execute(Action::Cancel { order: shop.cancelled }, now).await;
        // The discount exceeds the total, so nothing is left to pay.
        shop.free = shop.order(1, Some(coupon), true, now).await;
        let expensive = shop.order(20, None, false, now).await;
        assert!(matches!(shop.execute(Action::Pay { order: expensive }, now).await, OrderOutcome::Rejected(_)));
        let over = now + TimeDelta::hours(1);
        shop.execute(Action::Expire { order: expensive }, over).await;
        assert!(matches!(shop.execute(place_action(product, 500, None, false), now).await, OrderOutcome::Rejected(_)));
        shop.rejected = OrderId(shop.id("SELECT order_id FROM orders WHERE status = 'REJECTED'").await);
        shop.count_sales().await;
        shop
    }

    async fn count_sales(&self) {
        apply_sales(&self.environment).await;
    }

    async fn charge(&self, id: ChargeId, amount: i64) {
        let wanted = NewCharge { id, user: user(1), amount, payment_method: None };
        db::charges::begin_approved(&self.environment.database, &wanted, rules(), clock::now()).await.expect("charged");
    }

    async fn order(&self, quantity: u32, coupon: Option<ClaimId>, pay: bool, now: Timestamp) -> OrderId {
        match self.execute(place_action(self.product, quantity, coupon, pay), now).await {
            OrderOutcome::Done(done) => done.order.order_id,
            OrderOutcome::Rejected(refusal) => panic!("{refusal}"),
        }
    }

    async fn execute(&self, action: Action, now: Timestamp) -> OrderOutcome {
        let command = Command { id: CommandId::generate(), user: user(1), at: now, action };
        let rules = OrderRules { expiry: TimeDelta::minutes(30), holding_cap: CAP };
        let mut outcomes = execute_batch(&self.environment.database, &[command], &rules, now).await.expect("executed");
        outcomes.remove(0)
    }

    async fn id(&self, sql: &'static str) -> Uuid {
        sqlx::query_scalar(sql).fetch_one(&self.environment.database.pool()).await.expect("an id")
    }

    async fn checks(&self, record: Option<&ShopRecord>) -> Vec<Check> {
        let evidence = Evidence { client: record, deliveries: None };
        audit_shop(&stores(&self.environment), SETTINGS, evidence).await.expect("an audit").checks
    }

    async fn broken(&self, record: Option<&ShopRecord>) -> Vec<&'static str> {
        let evidence = Evidence { client: record, deliveries: None };
        broken(&audit_shop(&stores(&self.environment), SETTINGS, evidence).await.expect("an audit"))
    }
}

/// Applies all events to the sales in Redis.
pub async fn apply_sales(environment: &TestEnvironment) {
    let (database, redis) = (environment.database.clone(), environment.redis.clone());
    ranking::rebuild(&database, &redis, SETTINGS.time_zone, clock::now()).await.expect("counted");
    while db::outbox::sequence_events(&database).await.expect("numbered") > 0 {}
    let mut relay = Relay::new(&database, RankingSink { database: database.clone(), redis, zone: SETTINGS.time_zone });
    while relay.step(clock::now()).await.expect("delivered") == StepOutcome::Delivered {}
    relay.release_lease().await;
}

const fn rules() -> PointRules {
    PointRules { charge_minimum: 10_000, holding_cap: CAP }
}

fn place_action(product_id: ProductId, quantity: u32, coupon: Option<ClaimId>, pay: bool) -> Action {
    Action::Place { items: vec![Line { product_id, quantity }], coupon, payment: pay.then(PaymentId::generate) }
}

/// A coupon of user 1: 5,000 won off.
async fn coupon(environment: &TestEnvironment) -> ClaimId {
    let (campaign, id) = (environment.campaign(10).await, ClaimId::generate());
    environment
        .execute(&format!(
            "INSERT INTO user_coupons (user_coupon_id, coupon_id, user_id, ordinal, per_user_limit, sequence, \
             discount_type, discount_value, minimum_order_amount, accepted_at, issued_at, valid_until) \
             VALUES (UNHEX('{}'), {}, 1, 1, 1, 1, 'FIXED', 5000, 0, NOW(3), NOW(3), NOW(3) + INTERVAL 1 DAY)",
            id.0.simple(),
            campaign.id
        ))
        .await;
    environment.execute("UPDATE coupons SET issued_quantity = 1").await;
    id
}

#[tokio::test]
async fn a_shop_without_a_fault_has_no_differences() {
    let shop = Shop::new().await;
    let checks = shop.checks(Some(&ShopRecord::default())).await;
    let wrong: Vec<&Check> = checks.iter().filter(|check| check.differences() > 0).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
    shop.environment.end().await;
}

/// Constraints of the tables that would refuse the planted faults.
const GUARDS: [(&str, &[&str]); 5] = [
    ("products", &["products_stock_adds_up", "products_stock", "products_restored"]),
    ("point_accounts", &["point_accounts_balance"]),
    ("point_histories", &["point_histories_type", "point_histories_balance"]),
    ("orders", &["orders_amounts", "orders_rejected"]),
    ("payments", &["payments_failed"]),
];

/// Planted faults, and the invariants that must have a difference. `@unpaid` and the like stand for ids.
const FAULTS: [(&str, &[&str]); 37] = [
    ("UPDATE products SET stock = stock + 1", &["I5"]),
    ("UPDATE products SET stock = -1, initial_stock = -1 - restocked + sold - restored", &["I5"]),
    ("UPDATE products SET sold = sold + 1, stock = stock - 1", &["I5"]),
    ("UPDATE products SET restored = restored + 1, stock = stock + 1", &["I5"]),
    ("INSERT INTO order_items VALUES (@rejected, 999, 'x', 1, 1)", &["I5", "I7"]),
    ("UPDATE point_accounts SET pending = 0", &["I6"]),
    ("UPDATE point_accounts SET balance = balance + 1", &["I6"]),
    ("UPDATE point_accounts SET balance = -1", &["I6", "I6"]),
    ("INSERT INTO point_accounts VALUES (9, 1000001, 0, NOW(3), NOW(3))", &["I6", "I6"]),
    ("UPDATE point_histories SET balance_after = balance_after + 1 WHERE reference_id = @charge", &["I6"]),
    ("UPDATE charges SET status = 'DECLINED' WHERE charge_id = @charge", &["I6"]),
    ("UPDATE charges SET amount = amount + 1 WHERE charge_id = @charge", &["I6"]),
    ("DELETE FROM charges WHERE charge_id = @charge", &["I6"]),
    ("UPDATE charges SET decided_at = NULL WHERE charge_id = @charge", &["I8"]),
    (
        "INSERT INTO point_histories SELECT NULL, user_id, type, amount, balance_after + amount, UNHEX(REPEAT('1', 32)), \
         order_id, created_at FROM point_histories WHERE type = 'REFUND'",
        &["I6", "I7", "I7"],
    ),
    ("DELETE FROM point_histories WHERE type = 'REFUND'", &["I6", "I7"]),
    (
        "UPDATE orders SET total_amount = total_amount + 1, pay_amount = pay_amount + 1 WHERE order_id = @unpaid",
        &["I7"],
    ),
    ("UPDATE orders SET pay_amount = pay_amount - 1 WHERE order_id = @unpaid", &["I7"]),
    ("UPDATE orders SET discount_amount = 1, pay_amount = pay_amount - 1 WHERE order_id = @unpaid", &["I7"]),
    ("UPDATE user_coupons SET discount_value = 3999", &["I7"]),
    ("UPDATE user_coupons SET minimum_order_amount = 4001", &["I7"]),
    ("UPDATE user_coupons SET user_id = 2", &["I7"]),
    ("UPDATE user_coupons SET status = 'ISSUED'", &["I7"]),
    ("UPDATE orders SET user_coupon_id = NULL WHERE order_id = @free", &["I7", "I7"]),
    ("UPDATE payments SET status = 'CANCELLED', cancelled_at = NOW(3) WHERE order_id = @free", &["I7", "I8"]),
    ("DELETE FROM payments WHERE order_id = @confirmed", &["I7", "I7"]),
    ("UPDATE payments SET amount = amount + 1 WHERE order_id = @confirmed", &["I7", "I7"]),
    ("UPDATE orders SET payment_id = UNHEX(REPEAT('1', 32)) WHERE order_id = @confirmed", &["I7"]),
    ("UPDATE payments SET cancelled_at = NULL WHERE order_id = @cancelled", &["I8"]),
    ("UPDATE orders SET confirmed_at = NULL WHERE order_id = @confirmed", &["I8"]),
    ("UPDATE orders SET ended_at = NOW(3) WHERE order_id = @unpaid", &["I8"]),
    ("UPDATE order_commands SET order_id = @unpaid WHERE type = 'CONFIRM'", &["I8"]),
    ("DELETE FROM outbox_events WHERE type = 'order.paid' LIMIT 1", &["I8"]),
    (
        "INSERT INTO outbox_events (aggregate_type, aggregate_id, type, payload, created_at) \
         SELECT aggregate_type, aggregate_id, type, payload, created_at \
         FROM outbox_events WHERE type = 'order.cancelled'",
        &["I8", "I10"],
    ),
    // The event of the placement is the last one: legal, since the order has no other events.
    ("UPDATE outbox_events SET event_id = event_id + 1000 WHERE type = 'order.created' ORDER BY event_id LIMIT 1", &[]),
    (
        "UPDATE outbox_events SET event_id = event_id + 1000 WHERE type = 'order.created' \
         AND aggregate_id = (SELECT id FROM (SELECT aggregate_id AS id FROM outbox_events \
             WHERE type = 'order.cancelled') AS e)",
        &["I8"],
    ),
    ("UPDATE outbox_events SET aggregate_id = UUID() WHERE type = 'order.expired'", &["I8", "I8"]),
];

/// Copies of the tables, to undo planted faults.
struct TableSnapshots<'p> {
    environment: &'p TestEnvironment,
}

impl<'p> TableSnapshots<'p> {
    const TABLES: [&'static str; 11] = [
        "products",
        "order_items",
        "orders",
        "point_accounts",
        "point_histories",
        "charges",
        "payments",
        "user_coupons",
        "order_commands",
        "outbox_events",
        "idempotency_keys",
    ];

    async fn of(environment: &'p TestEnvironment) -> Self {
        for table in Self::TABLES {
            environment.execute(&format!("CREATE TABLE copy_of_{table} SELECT * FROM {table}")).await;
        }
        for (table, guards) in GUARDS {
            for guard in guards {
                environment.execute(&format!("ALTER TABLE {table} DROP CONSTRAINT {guard}")).await;
            }
        }
        Self { environment }
    }

    /// Restores the table that `fault` changed.
    async fn undo(&self, fault: &str) {
        let table = fault.split_whitespace().find(|word| Self::TABLES.contains(word)).expect("a table");
        let columns = self
            .environment
            .texts(&format!(
                "SELECT CAST(COLUMN_NAME AS CHAR) FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = DATABASE() \
                 AND TABLE_NAME = '{table}' AND COALESCE(GENERATION_EXPRESSION, '') = ''"
            ))
            .await
            .join(", ");
        self.environment.execute(&format!("DELETE FROM {table}")).await;
        self.environment
            .execute(&format!("INSERT INTO {table} ({columns}) SELECT {columns} FROM copy_of_{table}"))
            .await;
    }
}

#[tokio::test]
async fn every_planted_fault_is_found() {
    let shop = Shop::new().await;
    let snapshots = TableSnapshots::of(&shop.environment).await;
    let id = |id: Uuid| format!("X'{}'", id.simple());
    let (mut unexpected, mut violated) = (Vec::new(), BTreeSet::new());
    for (fault, expected) in FAULTS {
        let sql = fault
            .replace("@unpaid", &id(shop.unpaid.0))
            .replace("@confirmed", &id(shop.confirmed.0))
            .replace("@cancelled", &id(shop.cancelled.0))
            .replace("@free", &id(shop.free.0))
            .replace("@rejected", &id(shop.rejected.0))
            .replace("@charge", &id(shop.charge.0));
        let planted = &shop.environment.database.pool().execute(sqlx::AssertSqlSafe(sql)).await.expect(fault);
        assert!(planted.rows_affected() > 0, "{fault}");
        let checks = shop.checks(None).await;
        let with_difference = checks.iter().enumerate().filter(|(_, check)| check.differences() > 0);
        let (places, broken): (Vec<usize>, Vec<&str>) =
            with_difference.map(|(index, check)| (index, check.invariant())).unzip();
        if broken != expected {
            unexpected.push((fault, broken));
        }
        violated.extend(places);
        snapshots.undo(fault).await;
    }
    assert!(unexpected.is_empty(), "{unexpected:#?}");
    let checks = shop.checks(None).await;
    assert!(checks.iter().all(|check| check.differences() == 0), "all faults are undone");
    // A rule that no fault violates could be wrong without notice.
    let of_tables = |check: &Check| ["I5", "I6", "I7", "I8"].contains(&check.invariant());
    let unproven = checks.iter().enumerate().filter(|(index, check)| of_tables(check) && !violated.contains(index));
    assert_eq!(unproven.collect::<Vec<_>>(), []);
    shop.environment.end().await;
}

#[tokio::test]
async fn i12_a_key_of_two_operations_is_found() {
    let shop = Shop::new().await;
    let key = |key: char, operation: Uuid, location: String| {
        format!(
            "INSERT INTO idempotency_keys (key_hash, body_hash, operation_id, status, location, created_at) VALUES \
             (UNHEX(REPEAT('{key}', 64)), UNHEX(REPEAT('0', 64)), X'{}', 201, '{location}', NOW(3))",
            operation.simple()
        )
    };
    let (order, other, charge) = (shop.unpaid.0, shop.free.0, shop.charge.0);
    shop.environment.execute(&key('1', order, format!("/orders/{order}"))).await;
    shop.environment.execute(&key('2', charge, format!("/points/charges/{charge}"))).await;
    shop.environment.execute(&key('3', Uuid::nil(), "/products/7".into())).await;
    assert_eq!(shop.broken(None).await, Vec::<&str>::new());
    shop.environment.execute(&key('4', order, format!("/orders/{order}"))).await;
    assert_eq!(shop.broken(None).await, ["I12"], "two keys of one operation");
    shop.environment.execute("DELETE FROM idempotency_keys").await;
    shop.environment.execute(&key('1', order, format!("/orders/{other}"))).await;
    assert_eq!(shop.broken(None).await, ["I12"], "another order");
    shop.environment.execute("DELETE FROM idempotency_keys").await;
    shop.environment.execute(&key('1', Uuid::from_u128(1), format!("/points/charges/{}", Uuid::from_u128(1)))).await;
    assert_eq!(shop.broken(None).await, ["I12"], "a charge that does not exist");
    shop.environment.end().await;
}

#[tokio::test]
async fn i9_sales_that_differ_from_the_orders_are_found() {
    let shop = Shop::new().await;
    let TestEnvironment { database, redis, .. } = &shop.environment;
    let (zone, expiry) = (SETTINGS.time_zone, Arc::default());
    let jobs = Jobs { database: database.clone(), redis: redis.clone(), zone, partitions: 1, expiry };
    let today = business_day(clock::now(), zone);
    // The job accepts today as an explicit day, before it has ended.
    let tomorrow = clock::now() + TimeDelta::days(1);
    jobs.run(Job::PersistDailySales, Some(today), tomorrow).await.expect("done").expect("no other run holds the lease");
    shop.environment.execute("UPDATE orders SET paid_at = paid_at - INTERVAL 1 DAY WHERE paid_at IS NOT NULL").await;
    shop.environment.execute("UPDATE product_daily_sales SET day = day - INTERVAL 1 DAY").await;
    shop.environment.execute("UPDATE job_runs SET day = day - INTERVAL 1 DAY").await;
    shop.count_sales().await;
    assert_eq!(shop.broken(None).await, Vec::<&str>::new());
    let key = redis.keys.daily_sales(days_before(today, 1));
    let more = async |units| {
        redis.client().zincrby::<f64, _, _>(&key, units, sales_member(shop.product)).await.expect("changed");
    };
    more(1.0).await;
    assert_eq!(shop.broken(None).await, ["I9"], "one more in Redis");
    more(-1.0).await;
    shop.environment.execute("UPDATE product_daily_sales SET quantity = quantity - 1").await;
    assert_eq!(shop.broken(None).await, ["I9"], "one less in the table");
    shop.environment.execute("UPDATE product_daily_sales SET quantity = quantity + 1").await;
    shop.environment
        .execute("INSERT INTO product_daily_sales SELECT day, product_id + 1, 1 FROM product_daily_sales")
        .await;
    assert_eq!(shop.broken(None).await, ["I9"], "a product without orders");
    shop.environment.lose_redis().await;
    shop.environment.end().await;
}

#[tokio::test]
async fn commands_left_on_a_stream_or_dead_lettered_are_found() {
    let shop = Shop::new().await;
    let redis = &shop.environment.redis;
    let stream = redis.keys.order_stream(FIRST);
    let left: String =
        redis.client().xadd(&stream, false, None::<()>, "*", ("type", "orders.v1")).await.expect("added");
    assert_eq!(shop.broken(None).await, ["drained"], "an entry");
    redis.client().xgroup_create::<(), _, _, _>(&stream, ORDERS_GROUP, "0", true).await.expect("a group");
    let read = redis.client().xreadgroup(ORDERS_GROUP, "worker", None, None, false, &stream, XID::NewInGroup).await;
    let _: fred::types::Value = read.expect("read");
    redis.client().xdel::<(), _, _>(&stream, left).await.expect("deleted");
    assert_eq!(shop.broken(None).await, ["drained"], "a pending delivery");
    redis.client().del::<(), _>(&stream).await.expect("deleted");
    let columns =
        "source, source_key, kind, payload, payload_bytes, redrivable, reason, attempts, status, dead_lettered_at";
    let dead = "'commands', '0/orders/1-0', 'orders.v1', '{}', 2, TRUE, 'it broke', 5, 'DEAD', NOW(3)";
    shop.environment.execute(&format!("INSERT INTO dead_letters ({columns}) VALUES ({dead})")).await;
    assert_eq!(shop.broken(None).await, ["drained"], "a dead letter");
    shop.environment.execute("DELETE FROM dead_letters").await;
    assert_eq!(shop.broken(None).await, [""; 0]);
    shop.environment.lose_redis().await;
    shop.environment.end().await;
}

#[tokio::test]
async fn every_promised_outcome_that_is_missing_is_found() {
    let shop = Shop::new().await;
    let expectation = |state, id| Expectation { id, user: user(1), state };
    let command = shop.id("SELECT command_id FROM order_commands WHERE type = 'CONFIRM'").await;
    let met = vec![
        expectation(ExpectedState::Placed, shop.unpaid.0),
        expectation(ExpectedState::PlaceAccepted, shop.rejected.0),
        expectation(ExpectedState::Paid, shop.cancelled.0),
        expectation(ExpectedState::Confirmed, shop.confirmed.0),
        expectation(ExpectedState::Cancelled, shop.cancelled.0),
        expectation(ExpectedState::CommandAccepted, command),
        expectation(ExpectedState::Charged, shop.charge.0),
        expectation(ExpectedState::ChargeAccepted, shop.charge.0),
    ];
    let record = |expectations: Vec<Expectation>| ShopRecord { expectations, ..ShopRecord::default() };
    assert_eq!(shop.broken(Some(&record(met))).await, Vec::<&str>::new());
    for broken in [
        expectation(ExpectedState::Placed, shop.rejected.0),
        expectation(ExpectedState::PlaceAccepted, Uuid::from_u128(1)),
        expectation(ExpectedState::Paid, shop.unpaid.0),
        expectation(ExpectedState::Confirmed, shop.free.0),
        expectation(ExpectedState::Cancelled, shop.free.0),
        expectation(ExpectedState::CommandAccepted, Uuid::from_u128(1)),
        expectation(ExpectedState::Charged, Uuid::from_u128(1)),
        expectation(ExpectedState::ChargeAccepted, shop.pending.0),
        Expectation { user: user(2), ..expectation(ExpectedState::Placed, shop.unpaid.0) },
    ] {
        assert_eq!(shop.broken(Some(&record(vec![broken]))).await, ["outcomes"], "{broken:?}");
    }
    let mut anomalous = ShopRecord::default();
    anomalous.anomalies.add("POST /orders: 500".into());
    anomalous.duplicates.mismatches.add("POST /orders: 201, then 422".into());
    assert_eq!(shop.broken(Some(&anomalous)).await, ["responses", "I12"]);
    shop.environment.end().await;
}
