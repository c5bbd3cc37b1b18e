use super::*;
use crate::domain::points::LedgerType;

fn pay(number: usize, user: usize) -> Command {
    command(number, user, Action::Pay { order: order_id(0) })
}

#[test]
fn paying_moves_points_and_records_a_payment() {
    let mut state = state_with(order_in(OrderStatus::DepositWait));
    let (order, plan) = execute_one(&mut state, &pay(3, 1));
    let order = order.expect("paid");
    let payment = PaymentId(order_id(3).0);
    assert_eq!((order.payment_id, order.paid_at), (Some(payment), Some(now())));
    let ledger = LedgerRow {
        user: user_id(1),
        kind: LedgerType::Payment,
        amount: -5_000,
        balance_after: BALANCES[1] - 5_000,
        payment,
        order: order_id(0),
    };
    assert_eq!(plan.ledger, [ledger]);
    assert_eq!((plan.payments[0].id, plan.payments[0].status), (payment, PaymentStatus::Done));
    assert_eq!((plan.changed.len(), plan.decided.as_slice(), events(&plan)), (1, &[0][..], vec!["order.paid"]));
}

#[test]
fn a_payment_without_enough_points_is_recorded_as_failed() {
    for balance in [0, 4_999] {
        let mut state = state_with(order_in(OrderStatus::DepositWait));
        state.accounts.get_mut(&user_id(1)).expect("an account").balance = balance;
        let (rejected, plan) = execute_one(&mut state, &pay(3, 1));
        assert_eq!(rejected, Err(RejectCode::PointsInsufficient));
        assert_eq!(plan.payments.len(), 1);
        let failed = &plan.payments[0];
        assert_eq!((failed.status, failed.amount), (PaymentStatus::Fail, 5_000));
        assert_eq!(failed.reject_reason.as_ref().map(|reason| reason.code), Some(RejectCode::PointsInsufficient));
        assert_eq!(state.orders[&order_id(0)].status, OrderStatus::DepositWait, "it can be paid later");
        assert!(plan.changed.is_empty() && plan.ledger.is_empty() && plan.events.is_empty());
    }
}

#[test]
fn the_deadline_is_compared_with_the_time_of_the_request() {
    let deadline = now() - TimeDelta::seconds(10);
    for (at, expected) in [
        (deadline - TimeDelta::milliseconds(1), Ok(OrderStatus::PayDone)),
        (deadline, Err(RejectCode::OrderStateConflict)),
    ] {
        let mut state = state_with(Order { expires_at: deadline, ..order_in(OrderStatus::DepositWait) });
        let (order, _) = execute_one(&mut state, &Command { at, ..pay(3, 1) });
        assert_eq!(order.map(|order| order.status), expected, "{at}");
    }
}

#[test]
fn another_users_order_is_not_found() {
    for action in [
        Action::Pay { order: order_id(0) },
        Action::Confirm { order: order_id(0) },
        Action::Cancel { order: order_id(0) },
        Action::Expire { order: order_id(0) },
    ] {
        let mut state = state_with(order_in(OrderStatus::DepositWait));
        let (rejected, plan) = execute_one(&mut state, &command(3, 2, action));
        assert_eq!(rejected, Err(RejectCode::OrderNotFound));
        assert_eq!(state.orders[&order_id(0)], order_in(OrderStatus::DepositWait));
        assert!(plan.changed.is_empty() && plan.events.is_empty());
    }
}
