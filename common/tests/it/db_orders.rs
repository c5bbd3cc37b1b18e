use chrono::TimeDelta;
use dibs_common::{
    clock::{self, Timestamp},
    db::{
        self, DuplicateCheck,
        orders::{OrdersFilter, PlannedCommands},
    },
    domain::order::{
        Action, Command, CommandKind, CouponStatus, OrderOutcome, OrderPlan, OrderRules, OrderStatus, PaymentStatus,
        RejectCode, StockChange, execute,
    },
    identifiers::{CommandId, OrderId, PaymentId, ProductId},
    testing::{
        TestEnvironment,
        commands::{command, place_order, with_coupon},
        open_terms,
    },
};

use crate::support::{connection, issue, product, user};

const RULES: OrderRules = OrderRules { holding_cap: 1_000_000, ..OrderRules::DEFAULT };

/// Executes a batch as the worker does.
async fn run_at(
    environment: &TestEnvironment,
    commands: &[Command],
    check: DuplicateCheck,
    now: Timestamp,
) -> Result<Vec<OrderOutcome>, sqlx::Error> {
    let mut transaction = environment.database.begin().await?;
    let mut state = db::orders::lock_state(&mut transaction, commands, &RULES, check).await?;
    let plan = execute(&mut state, commands, &RULES, now);
    let batch = PlannedCommands { state: &state, commands, plan: &plan };
    db::orders::write_plan(&mut transaction, batch, now, environment.database.statement_bytes()).await?;
    transaction.commit().await?;
    Ok(plan.outcomes)
}

async fn run(environment: &TestEnvironment, commands: &[Command]) -> Vec<OrderOutcome> {
    run_at(environment, commands, DuplicateCheck::Optimistic, clock::now()).await.expect("executed")
}

/// An environment, a product with so many units, and an order for two of them.
async fn with_order(stock: i64) -> (TestEnvironment, ProductId, Command) {
    let environment = TestEnvironment::new().await;
    let tea = environment.product(12_000, stock).await;
    (environment, tea, place_order(1, tea, 2))
}

#[tokio::test]
async fn an_order_is_written_with_its_items_coupon_payment_and_ledger() {
    let environment = TestEnvironment::new().await;
    environment.points(1, 50_000).await;
    let tea = environment.product(12_000, 5).await;
    let campaign = environment.campaign_in_database(open_terms()).await;
    let coupon = issue(&environment, &campaign, &[1]).await[0].record.claim_id;
    let placing = with_coupon(place_order(1, tea, 2), coupon);
    let order = placing.order();
    run(&environment, std::slice::from_ref(&placing)).await;
    let pay = command(1, Action::Pay { order });
    run(&environment, std::slice::from_ref(&pay)).await;
    let found = db::orders::find(&environment.database.pool(), order).await.expect("read").expect("it exists");
    assert_eq!((found.status, found.total_amount, found.discount_amount), (OrderStatus::PayDone, 24_000, 1_000));
    assert_eq!((found.items.len(), found.items[0].quantity, found.items[0].unit_price), (1, 2, 12_000));
    assert_eq!(found.user_coupon_id, Some(coupon));
    let payment = PaymentId(pay.id.0);
    let paid = db::orders::find_payment(&environment.database.pool(), payment).await.expect("read").expect("it exists");
    assert_eq!((paid.status, paid.amount, paid.order_id), (PaymentStatus::Done, 23_000, order));
    run(&environment, &[command(1, Action::Cancel { order })]).await;
    let refunded =
        db::orders::find_payment(&environment.database.pool(), payment).await.expect("read").expect("it exists");
    assert_eq!(refunded.status, PaymentStatus::Cancelled);
    assert!(refunded.cancelled_at.is_some());
    assert_eq!(environment.texts("SELECT status FROM user_coupons").await, ["ISSUED"]);
    assert_eq!(db::points::find_balance(&environment.database.pool(), user(1)).await.expect("read"), 50_000);
    environment.expect_consistent_rows().await;
    let unknown = db::orders::find(&environment.database.pool(), OrderId::generate()).await.expect("read");
    assert!(unknown.is_none());
    assert!(
        db::orders::find_payment(&environment.database.pool(), PaymentId::generate()).await.expect("read").is_none()
    );
    environment.end().await;
}

#[tokio::test]
async fn a_rejected_order_and_a_failed_payment_keep_their_reason() {
    let (environment, tea, placing) = with_order(1).await;
    run(&environment, std::slice::from_ref(&placing)).await;
    let order =
        db::orders::find(&environment.database.pool(), placing.order()).await.expect("read").expect("it exists");
    assert_eq!((order.status, order.code), (OrderStatus::Rejected, Some(RejectCode::StockInsufficient)));
    assert!(order.items.is_empty() && order.detail.is_some_and(|detail| !detail.is_empty()));
    let one = place_order(1, tea, 1);
    let pay = command(1, Action::Pay { order: one.order() });
    run(&environment, &[one, pay.clone()]).await;
    let outcome =
        db::orders::find_command_outcome(&environment.database.pool(), pay.id).await.expect("read").expect("decided");
    assert_eq!(outcome.kind, CommandKind::Pay);
    let reason = outcome.refusal.expect("rejected");
    assert_eq!(reason.code, RejectCode::PointsInsufficient);
    let payment = PaymentId(pay.id.0);
    let payment =
        db::orders::find_payment(&environment.database.pool(), payment).await.expect("read").expect("it exists");
    assert_eq!((payment.status, payment.code), (PaymentStatus::Fail, Some(RejectCode::PointsInsufficient)));
    assert!(
        db::orders::find_command_outcome(&environment.database.pool(), CommandId::generate())
            .await
            .expect("read")
            .is_none()
    );
    environment.end_consistent().await;
}

#[tokio::test]
async fn a_command_that_was_decided_fails_optimistically_and_gets_its_outcome_explicitly() {
    let (environment, _, placing) = with_order(9).await;
    let cancel = command(1, Action::Cancel { order: placing.order() });
    let commands = [placing.clone(), cancel.clone()];
    let first = run(&environment, &commands).await;
    for again in [&commands[..1], &commands[1..]] {
        let failed = run_at(&environment, again, DuplicateCheck::Optimistic, clock::now()).await;
        assert!(failed.as_ref().is_err_and(db::is_duplicate), "{failed:?}");
    }
    let again = run_at(&environment, &commands, DuplicateCheck::Explicit, clock::now()).await.expect("executed");
    assert_eq!(again.len(), first.len());
    environment.expect_counts([("SELECT COUNT(*) FROM orders", 1), ("SELECT stock FROM products", 9)]).await;
    environment.end_consistent().await;
}

#[tokio::test]
async fn a_plan_that_does_not_match_the_rows_is_rolled_back() {
    let (environment, tea, _) = with_order(9).await;
    let mut transaction = environment.database.begin().await.expect("begun");
    let state = db::orders::lock_state(&mut transaction, &[], &RULES, DuplicateCheck::Explicit).await.expect("locked");
    let change = StockChange { sold: 2, restored: 0 };
    let stock = [(tea, change), (product(tea.get() + 1), change)].into();
    let plan = OrderPlan { stock, ..OrderPlan::default() };
    let batch = PlannedCommands { state: &state, commands: &[], plan: &plan };
    let failed = db::orders::write_plan(&mut transaction, batch, clock::now(), 16_000).await;
    assert!(matches!(failed, Err(sqlx::Error::Encode(_))), "{failed:?}");
    transaction.rollback().await.expect("rolled back");
    assert_eq!(environment.count("SELECT stock FROM products").await, 9);
    environment.end().await;
}

#[tokio::test]
async fn a_cancelled_order_gives_its_coupon_to_an_order_of_the_same_batch() {
    let environment = TestEnvironment::new().await;
    let tea = environment.product(12_000, 9).await;
    let campaign = environment.campaign_in_database(open_terms()).await;
    let coupon = issue(&environment, &campaign, &[1]).await[0].record.claim_id;
    let first = with_coupon(place_order(1, tea, 2), coupon);
    run(&environment, std::slice::from_ref(&first)).await;
    let second = with_coupon(place_order(1, tea, 2), coupon);
    run(&environment, &[command(1, Action::Cancel { order: first.order() }), second.clone()]).await;
    environment
        .expect_counts([
            ("SELECT COUNT(*) FROM orders", 2),
            ("SELECT COUNT(*) FROM orders WHERE live_user_coupon_id IS NOT NULL", 1),
        ])
        .await;
    assert_eq!(environment.texts("SELECT status FROM user_coupons").await, ["USED"]);
    environment.end_consistent().await;
}

#[tokio::test]
async fn locked_rows_are_those_that_the_commands_need() {
    let environment = TestEnvironment::new().await;
    environment.points(1, 50_000).await;
    let (tea, _other) = (environment.product(12_000, 5).await, environment.product(1_000, 5).await);
    let campaign = environment.campaign_in_database(open_terms()).await;
    let coupon = issue(&environment, &campaign, &[1]).await[0].record.claim_id;
    let placing = with_coupon(place_order(1, tea, 2), coupon);
    run(&environment, std::slice::from_ref(&placing)).await;
    let mut transaction = environment.database.begin().await.expect("begun");
    let commands = [command(1, Action::Cancel { order: placing.order() })];
    let state =
        db::orders::lock_state(&mut transaction, &commands, &RULES, DuplicateCheck::Optimistic).await.expect("locked");
    assert_eq!(state.orders[&placing.order()].items.len(), 1);
    assert_eq!(state.products.keys().copied().collect::<Vec<_>>(), [tea]);
    assert_eq!(state.coupons[&coupon].status, CouponStatus::Used);
    let mut other = connection(&environment).await;
    let free: Vec<u64> = sqlx::query_scalar("SELECT product_id FROM products FOR UPDATE SKIP LOCKED")
        .fetch_all(&mut *other)
        .await
        .expect("read");
    assert_eq!(free.len(), 1, "the other product is not locked");
    drop(other);
    transaction.rollback().await.expect("rolled back");
    environment.end().await;
}

#[tokio::test]
async fn orders_of_a_user_are_listed_newest_first_page_by_page() {
    let environment = TestEnvironment::new().await;
    let tea = environment.product(12_000, 99).await;
    let placed: Vec<Command> = (0..3).map(|_| place_order(1, tea, 2)).collect();
    run(&environment, &placed).await;
    run(&environment, &[place_order(2, tea, 2)]).await;
    let page = async |before, limit| -> Vec<OrderId> {
        let filter = OrdersFilter { user: Some(user(1)), before, limit, ..OrdersFilter::default() };
        let orders = db::orders::list(&environment.database.pool(), &filter).await.expect("read").found;
        assert!(orders.iter().all(|order| order.items.len() == 1));
        orders.iter().map(|order| order.order_id).collect()
    };
    let ids: Vec<OrderId> = placed.iter().map(Command::order).collect();
    for (before, expected) in [(None, &[ids[2], ids[1]][..]), (Some(ids[1]), &ids[..1]), (Some(ids[0]), &[])] {
        assert_eq!(page(before, 2).await, expected);
    }
    environment.end().await;
}

#[tokio::test]
async fn overdue_orders_are_listed_by_expiry_after_a_position() {
    let environment = TestEnvironment::new().await;
    let tea = environment.product(12_000, 99).await;
    let now = clock::now();
    let mut ids = Vec::new();
    for age in [10, 30, 20] {
        let placing = place_order(1, tea, 2);
        let placed_at = now - RULES.expiry - TimeDelta::seconds(age);
        run_at(&environment, std::slice::from_ref(&placing), DuplicateCheck::Optimistic, placed_at)
            .await
            .expect("placed");
        ids.push(placing.order());
    }
    run(&environment, &[place_order(1, tea, 2)]).await;
    let page = async |after, limit| {
        db::orders::list_overdue(&environment.database.pool(), now, after, limit).await.expect("read")
    };
    let all = page(None, 10).await;
    assert_eq!(all.iter().map(|overdue| overdue.order).collect::<Vec<_>>(), [ids[1], ids[2], ids[0]]);
    assert_eq!(page(None, 1).await, all[..1]);
    assert_eq!(page(Some((all[0].expires_at, all[0].order)), 10).await, all[1..]);
    run(&environment, &[command(1, Action::Cancel { order: ids[1] })]).await;
    assert_eq!(page(None, 10).await, all[1..], "a cancelled order is not overdue");
    environment.end().await;
}

#[tokio::test]
async fn a_purge_deletes_the_oldest_outcomes_up_to_its_limit() {
    let environment = TestEnvironment::new().await;
    let now = clock::now();
    for age in [3, 2, 1] {
        let pay = command(1, Action::Pay { order: OrderId::generate() });
        run_at(&environment, &[pay], DuplicateCheck::Optimistic, now - TimeDelta::days(age)).await.expect("rejected");
    }
    let purge = async |limit| {
        let before = now - TimeDelta::hours(36);
        db::orders::purge_commands(&environment.database.pool(), before, limit).await.expect("purged")
    };
    assert_eq!((purge(1).await, purge(10).await, purge(10).await), (1, 1, 0));
    assert_eq!(environment.count("SELECT COUNT(*) FROM order_commands").await, 1);
    environment.end().await;
}
