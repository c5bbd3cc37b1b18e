//! The audit of the shop: it finds nothing in a valid one, and every planted fault.

mod planted;

use std::sync::Arc;

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
    settings::Retention,
};
use fred::{
    interfaces::{KeysInterface as _, SortedSetsInterface as _, StreamsInterface as _},
    types::streams::XID,
};
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
        let command = Command { id: CommandId::generate(), user: user(1), at: now, action, trace: None };
        let rules = OrderRules { holding_cap: CAP, unpaid_units_limit: 0, ..OrderRules::DEFAULT };
        let mut outcomes =
            execute_batch(&self.environment.database, &[command], &rules, || now).await.expect("executed");
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
    Box::pin(ranking::rebuild(&database, &redis, SETTINGS.time_zone, clock::now())).await.expect("counted");
    while Box::pin(db::outbox::sequence_events(&database)).await.expect("numbered") > 0 {}
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
    let jobs = Jobs {
        database: database.clone(),
        redis: redis.clone(),
        zone,
        partitions: 1,
        retention: Retention::DEFAULT,
        expiry,
    };
    let today = business_day(clock::now(), zone);
    // The job accepts today as an explicit day, before it has ended.
    let tomorrow = clock::now() + TimeDelta::days(1);
    jobs.run(Job::PersistDailySales, Some(today), tomorrow).await.expect("done").expect("no other run holds the lease");
    let yesterday = "UPDATE orders SET paid_at = paid_at - INTERVAL 1 DAY, paid_on = paid_on - INTERVAL 1 DAY \
        WHERE paid_at IS NOT NULL";
    shop.environment.execute(yesterday).await;
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
    let window = redis.keys.sales_window(7);
    let in_window = async |units| {
        redis.client().zincrby::<f64, _, _>(&window, units, sales_member(shop.product)).await.expect("changed");
    };
    in_window(-1.0).await;
    assert_eq!(shop.broken(None).await, ["I9"], "one more in a window");
    in_window(1.0).await;
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
