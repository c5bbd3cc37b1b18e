use super::*;

#[test]
fn an_order_expires_once_its_deadline_is_reached() {
    for (expires_at, expected) in [
        (now() + TimeDelta::milliseconds(1), OrderStatus::DepositWait),
        (now(), OrderStatus::Expired),
        (now() - TimeDelta::days(1), OrderStatus::Expired),
    ] {
        let mut state = state_with(Order { expires_at, ..order_in(OrderStatus::DepositWait) });
        let (order, plan) = execute_one(&mut state, &command(3, 1, Action::Expire { order: order_id(0) }));
        assert_eq!(order.map(|order| order.status), Ok(expected), "{expires_at}");
        let is_expired = expected == OrderStatus::Expired;
        let restored = if is_expired { 2 } else { 0 };
        assert_eq!(state.products[&product_id(1)].stock, STOCKS[1] + restored);
        assert_eq!(plan.events.len(), usize::from(is_expired));
        assert!(plan.decided.is_empty(), "an expiry writes no outcome of its own");
    }
}
