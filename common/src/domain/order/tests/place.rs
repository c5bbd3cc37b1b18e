use super::*;
use crate::domain::{
    campaign::MAX_AMOUNT,
    facts::{CouponRefusal, Facts},
};

#[test]
fn a_placed_order_reserves_its_items_at_their_prices() {
    let mut state = initial_state();
    let command = command(7, 1, place_action(&[(1, 2), (0, 1), (1, 1)], None, None));
    let (order, plan) = execute_one(&mut state, &command);
    let order = order.expect("placed");
    assert_eq!((order.order_id, order.user_id, order.status), (order_id(7), user_id(1), OrderStatus::DepositWait));
    assert_eq!((order.total_amount, order.discount_amount, order.pay_amount), (8_500, 0, 8_500));
    assert_eq!((order.created_at, order.expires_at), (now(), now() + RULES.expiry));
    let items: Vec<(ProductId, u32)> = order.items.iter().map(|item| (item.product_id, item.quantity)).collect();
    assert_eq!(items, [(product_id(0), 1), (product_id(1), 3)], "one item for each product");
    assert_eq!([0, 1].map(|index| state.products[&product_id(index)].stock), [STOCKS[0] - 1, STOCKS[1] - 3]);
    assert_eq!(plan.stock[&product_id(1)], StockChange { sold: 3, restored: 0 });
    assert_eq!(plan.placed, [order.order_id].into());
    assert_eq!((events(&plan), plan.ledger, plan.payments), (vec!["order.created"], vec![], vec![]));
}

#[test]
fn a_coupon_reduces_the_amount_and_becomes_used() {
    for (user, coupon, items, discount) in [
        (0, 0, [(0, 5)], 3_000),
        // Never more than the total.
        (0, 0, [(0, 2)], 2_000),
        (0, 1, [(0, 5)], 500),
        // Exactly the minimum of the coupon.
        (1, 2, [(0, 10)], 10_000),
    ] {
        let mut state = initial_state();
        let (order, plan) = execute_one(&mut state, &command(0, user, place_action(&items, Some(coupon), None)));
        let order = order.expect("placed");
        assert_eq!((order.discount_amount, order.pay_amount), (discount, order.total_amount - discount));
        let used = &state.coupons[&coupon_id(coupon)];
        assert_eq!((used.status, used.used_at), (CouponStatus::Used, Some(now())));
        assert_eq!(plan.coupons, [coupon_id(coupon)].into());
    }
}

#[test]
fn an_order_is_paid_in_the_same_step() {
    let mut state = initial_state();
    let (order, plan) = execute_one(&mut state, &command(0, 1, place_action(&[(0, 3)], None, Some(payment_id(5)))));
    let order = order.expect("placed");
    assert_eq!((order.status, order.payment_id), (OrderStatus::PayDone, Some(payment_id(5))));
    assert_eq!(state.accounts[&user_id(1)].balance, BALANCES[1] - 3_000);
    assert_eq!(events(&plan), ["order.created", "order.paid"]);
    assert!(plan.placed.contains(&order.order_id) && plan.changed.is_empty(), "the row is inserted as paid");
}

#[test]
fn an_order_of_nothing_to_pay_writes_no_ledger_row() {
    let mut state = initial_state();
    let action = place_action(&[(0, 2)], Some(0), Some(payment_id(5)));
    let (order, plan) = execute_one(&mut state, &command(0, 0, action));
    assert_eq!(order.map(|order| (order.status, order.pay_amount)), Ok((OrderStatus::PayDone, 0)));
    assert_eq!((plan.ledger, plan.accounts.len(), plan.payments.len()), (vec![], 0, 1));
}

/// Each rule, with the user, items, coupon, and whether the order is to be paid at once.
#[test]
fn a_placement_that_breaks_a_rule_is_rejected() {
    let no_such_product = 4;
    for (code, user, items, coupon, pay) in [
        (RejectCode::ProductNotFound, 1, [(no_such_product, 1)], None, false),
        (RejectCode::ProductNotSelling, 1, [(STOPPED, 1)], None, false),
        (RejectCode::StockInsufficient, 1, [(1, 6)], None, false),
        // Another user's coupon.
        (RejectCode::CouponNotUsable, 1, [(0, 1)], Some(0), false),
        // Below the minimum of the coupon.
        (RejectCode::CouponNotUsable, 1, [(0, 9)], Some(2), false),
        // The validity ends at this moment.
        (RejectCode::CouponNotUsable, 2, [(0, 1)], Some(3), false),
        (RejectCode::PaymentRequired, 1, [(PAYMENT_REQUIRED, 1)], None, false),
        (RejectCode::UnpaidUnitsLimitExceeded, 1, [(0, 11)], None, false),
        (RejectCode::PointsInsufficient, 0, [(0, 1)], None, true),
        (RejectCode::PointsInsufficient, 1, [(2, 3)], None, true),
    ] {
        let mut state = initial_state();
        let action = place_action(&items, coupon, pay.then(|| payment_id(5)));
        let (rejected, plan) = execute_one(&mut state, &command(0, user, action));
        assert_eq!(rejected, Err(code), "{items:?}");
        expect_only_a_rejected_order(&state, &plan, code);
    }
}

/// What a placement by `user` of `items` with this coupon is rejected with.
fn facts_of(user: usize, items: &[(usize, u32)], coupon: Option<usize>, pay: bool) -> Facts {
    let mut state = initial_state();
    let action = place_action(items, coupon, pay.then(|| payment_id(5)));
    let plan = execute(&mut state, &[command(0, user, action)], &RULES, now());
    let OrderOutcome::Rejected(reason) = &plan.outcomes[0] else { panic!("{plan:?}") };
    let stored = state.orders[&order_id(0)].reject_reason();
    assert_eq!(stored.as_ref(), Some(reason), "the order keeps the facts");
    (*reason.facts).clone()
}

#[test]
fn a_rejection_states_its_facts() {
    let none = Facts::default();
    let product = |number| Some(product_id(number));
    let stock = Facts { product_id: product(1), requested: Some(6), available: Some(5), ..none.clone() };
    assert_eq!(facts_of(1, &[(1, 6)], None, false), stock);
    let (held, requested, limit) = (Some(0), Some(11), Some(10));
    let units = Facts { product_id: product(0), held, requested, limit, ..none.clone() };
    assert_eq!(facts_of(1, &[(0, 11)], None, false), units);
    let points = facts_of(0, &[(0, 1)], None, true);
    assert_eq!((points.balance, points.required), (Some(0), Some(PRICES[0])));
    let coupon =
        |number, reason| Facts { user_coupon_id: Some(coupon_id(number)), reason: Some(reason), ..none.clone() };
    assert_eq!(facts_of(1, &[(0, 1)], Some(0), false), coupon(0, CouponRefusal::NotOwned));
    assert_eq!(facts_of(2, &[(0, 1)], Some(3), false), coupon(3, CouponRefusal::Expired));
    let total = Some(9 * PRICES[0]);
    let minimum_order_amount = Some(initial_state().coupons[&coupon_id(2)].minimum_order_amount);
    let minimum = Facts { minimum_order_amount, total_amount: total, ..coupon(2, CouponRefusal::MinimumNotReached) };
    assert_eq!(facts_of(1, &[(0, 9)], Some(2), false), minimum);
}

/// The rejection is durable as an order. Nothing else changes.
fn expect_only_a_rejected_order(state: &LockedState, plan: &OrderPlan, code: RejectCode) {
    let order = &state.orders[&order_id(0)];
    assert_eq!((order.status, order.code, order.items.len()), (OrderStatus::Rejected, Some(code), 0));
    assert!(order.detail.as_ref().is_some_and(|detail| detail.ends_with('.')), "{:?}", order.detail);
    assert_eq!(plan.placed, [order_id(0)].into());
    let untouched = initial_state();
    assert_eq!(state.products, untouched.products);
    assert_eq!(state.coupons, untouched.coupons);
    assert_eq!(state.accounts, untouched.accounts);
    assert!(plan.stock.is_empty() && plan.events.is_empty() && plan.ledger.is_empty() && plan.payments.is_empty());
}

#[test]
fn a_coupon_that_takes_nothing_off_is_not_spent() {
    let mut state = initial_state();
    // 10 percent of 9 won is less than 1 won.
    state.products.get_mut(&product_id(0)).expect("a product").price = 9;
    let (rejected, plan) = execute_one(&mut state, &command(0, 0, place_action(&[(0, 1)], Some(1), None)));
    assert_eq!(rejected, Err(RejectCode::CouponNotUsable));
    assert_eq!(state.coupons[&coupon_id(1)], coupon(1));
    assert!(plan.coupons.is_empty() && plan.stock.is_empty());
}

#[test]
fn only_an_issued_coupon_is_usable() {
    for (status, word, refusal) in [
        (CouponStatus::Used, "used already", CouponRefusal::Used),
        (CouponStatus::Expired, "no longer valid", CouponRefusal::Expired),
        (CouponStatus::Revoked, "taken back", CouponRefusal::Revoked),
    ] {
        let mut state = initial_state();
        state.coupons.get_mut(&coupon_id(0)).expect("a coupon").status = status;
        let plan = execute(&mut state, &[command(0, 0, place_action(&[(0, 1)], Some(0), None))], &RULES, now());
        let OrderOutcome::Rejected(reason) = &plan.outcomes[0] else { panic!("{plan:?}") };
        assert_eq!(reason.code, RejectCode::CouponNotUsable);
        assert!(reason.detail.contains(word), "{reason}");
        assert_eq!(reason.facts.reason, Some(refusal));
    }
}

/// The time of the request counts: the order may wait in the stream until the coupon is over.
#[test]
fn a_coupon_that_ends_while_the_order_waits_is_usable() {
    let mut state = initial_state();
    let in_time =
        Command { at: now() - TimeDelta::seconds(1), ..command(0, 2, place_action(&[(0, 1)], Some(3), None)) };
    let (order, _) = execute_one(&mut state, &in_time);
    assert_eq!(order.map(|order| order.discount_amount), Ok(500));
}

#[test]
fn a_total_above_the_largest_amount_is_rejected() {
    for items in [&[(0, 10_000)][..], &[(0, 1), (1, 1)]] {
        let mut state = initial_state();
        for product in state.products.values_mut() {
            (product.price, product.stock) = (MAX_AMOUNT, i64::MAX);
        }
        let (rejected, _) = execute_one(&mut state, &command(0, 1, place_action(items, None, None)));
        assert_eq!(rejected, Err(RejectCode::ValidationFailed));
    }
}

/// Unpaid orders of earlier batches and those of this batch are counted together.
#[test]
fn unpaid_orders_of_a_user_are_limited_within_a_batch_and_with_those_before_it() {
    let rules = OrderRules { unpaid_orders_limit: 3, unpaid_units_limit: 4, ..RULES };
    let mut state = initial_state();
    let units = [(product_id(1), 1)].into();
    state.unpaid.insert(user_id(1), UnpaidOrders { orders: 1, units });
    let order = |number: usize, user: usize, quantity: u32, pay: bool| {
        command(number, user, place_action(&[(1, quantity)], None, pay.then(|| payment_id(number))))
    };
    let cancelled = order_id(1);
    let commands = [
        order(0, 1, 4, false),
        order(1, 1, 2, false),
        order(2, 1, 2, false),
        // Another user has nothing unpaid.
        order(3, 0, 1, false),
        order(4, 1, 1, false),
        order(5, 1, 1, false),
        command(6, 1, Action::Cancel { order: cancelled }),
        order(7, 1, 1, false),
    ];
    let plan = execute(&mut state, &commands, &rules, now());
    let outcomes: Vec<Result<(), RejectCode>> =
        plan.outcomes.iter().map(|decided| outcome(decided).map(drop)).collect();
    let (orders, units) = (RejectCode::UnpaidOrdersLimitExceeded, RejectCode::UnpaidUnitsLimitExceeded);
    assert_eq!(outcomes, [Err(units), Ok(()), Err(units), Ok(()), Ok(()), Err(orders), Ok(()), Ok(())]);
    let held = UnpaidOrders { orders: 3, units: [(product_id(1), 3)].into() };
    assert_eq!(state.unpaid[&user_id(1)], held);
}

#[test]
fn paid_orders_and_a_limit_of_0_are_not_limited() {
    let no_limit = OrderRules { unpaid_orders_limit: 0, unpaid_units_limit: 0, ..RULES };
    let held = UnpaidOrders { orders: 99, units: [(product_id(0), 99)].into() };
    for (rules, payment) in [(no_limit, None), (RULES, Some(payment_id(5)))] {
        let mut state = initial_state();
        state.unpaid.insert(user_id(1), held.clone());
        let plan = execute(&mut state, &[command(0, 1, place_action(&[(0, 12)], None, payment))], &rules, now());
        assert!(outcome(&plan.outcomes[0]).is_ok(), "{plan:?}");
    }
}
