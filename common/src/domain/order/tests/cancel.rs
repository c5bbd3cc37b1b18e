use super::*;
use crate::domain::points::LedgerType;

fn cancel(number: usize) -> Command {
    command(number, 1, Action::Cancel { order: order_id(0) })
}

#[test]
fn cancelling_an_unpaid_order_restores_its_stock() {
    let mut state = state_with(order_in(OrderStatus::DepositWait));
    let (order, plan) = execute_one(&mut state, &cancel(3));
    assert_eq!(order.map(|order| order.ended_at), Ok(Some(now())));
    assert_eq!(state.products[&product_id(1)].stock, STOCKS[1] + 2);
    assert_eq!(plan.stock[&product_id(1)], StockChange { sold: 0, restored: 2 });
    assert_eq!(events(&plan), ["order.cancelled"]);
    assert!(plan.ledger.is_empty() && plan.refunded.is_empty());
}

#[test]
fn cancelling_a_paid_order_refunds_it() {
    let mut state = state_with(order_in(OrderStatus::PayDone));
    let (order, plan) = execute_one(&mut state, &cancel(3));
    assert!(order.is_ok(), "{order:?}");
    assert_eq!(state.accounts[&user_id(1)].balance, BALANCES[1] + 5_000);
    let row = &plan.ledger[0];
    assert_eq!((row.kind, row.amount, row.payment), (LedgerType::Refund, 5_000, payment_id(0)));
    assert_eq!(plan.refunded, [payment_id(0)].into());
}

/// A payment that is not in the table yet cannot be updated there.
#[test]
fn a_payment_of_the_same_batch_is_inserted_as_cancelled() {
    let mut state = state_with(order_in(OrderStatus::DepositWait));
    let pay = command(3, 1, Action::Pay { order: order_id(0) });
    let plan = execute(&mut state, &[pay, cancel(4)], &RULES, now());
    assert_eq!(plan.payments.iter().map(|payment| payment.status).collect::<Vec<_>>(), [PaymentStatus::Cancelled]);
    assert!(plan.refunded.is_empty());
    assert_eq!(plan.ledger.iter().map(|row| row.amount).collect::<Vec<_>>(), [-5_000, 5_000]);
    assert_eq!(state.accounts[&user_id(1)].balance, BALANCES[1]);
}

#[test]
fn a_refund_above_the_holding_cap_is_rejected_and_changes_nothing() {
    for (balance, expected) in
        [(HOLDING_CAP - 5_000, Ok(OrderStatus::Cancelled)), (HOLDING_CAP - 4_999, Err(RejectCode::PointsCapExceeded))]
    {
        let mut state = state_with(order_in(OrderStatus::PayDone));
        state.accounts.get_mut(&user_id(1)).expect("an account").balance = balance;
        let before = state.clone();
        let (order, plan) = execute_one(&mut state, &cancel(3));
        assert_eq!(order.map(|order| order.status), expected);
        if expected.is_err() {
            assert_eq!((&state.orders, &state.products), (&before.orders, &before.products));
            assert!(plan.changed.is_empty() && plan.ledger.is_empty() && plan.events.is_empty());
        }
    }
}

#[test]
fn a_coupon_is_issued_again_or_expired() {
    for (valid_until, status) in
        [(now() + TimeDelta::milliseconds(1), CouponStatus::Issued), (now(), CouponStatus::Expired)]
    {
        let with_coupon = Order { user_coupon_id: Some(coupon_id(2)), ..order_in(OrderStatus::DepositWait) };
        let mut state = state_with(with_coupon);
        let used = IssuedCoupon { valid_until, status: CouponStatus::Used, used_at: Some(now()), ..coupon(2) };
        state.coupons.insert(coupon_id(2), used);
        let (_, plan) = execute_one(&mut state, &cancel(3));
        let restored = &state.coupons[&coupon_id(2)];
        assert_eq!((restored.status, restored.used_at), (status, None));
        assert_eq!(plan.coupons, [coupon_id(2)].into());
        let kinds: Vec<&str> = plan.events.iter().map(|event| event.kind).collect();
        let expected = if status == CouponStatus::Expired {
            vec!["coupon.expired", "order.cancelled"]
        } else {
            vec!["order.cancelled"]
        };
        assert_eq!(kinds, expected);
    }
}
