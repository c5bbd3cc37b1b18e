use super::*;

#[test]
fn confirming_a_paid_order_moves_nothing_else() {
    let mut state = state_with(order_in(OrderStatus::PayDone));
    let before = state.clone();
    let (order, plan) = execute_one(&mut state, &command(3, 1, Action::Confirm { order: order_id(0) }));
    assert_eq!(order.map(|order| order.confirmed_at), Ok(Some(now())));
    assert_eq!((plan.changed.len(), events(&plan)), (1, vec!["order.confirmed"]));
    assert_eq!((&state.products, &state.accounts), (&before.products, &before.accounts));
}

#[test]
fn the_outcome_of_a_confirmation_has_no_balance() {
    let mut state = state_with(order_in(OrderStatus::PayDone));
    let confirm = command(3, 1, Action::Confirm { order: order_id(0) });
    let cancel = command(4, 1, Action::Cancel { order: order_id(0) });
    for (command, expected) in [(confirm, None), (cancel, Some(BALANCES[1] + 5_000))] {
        let mut state = state.clone();
        let plan = execute(&mut state, &[command], &RULES, now());
        let OrderOutcome::Done(result) = &plan.outcomes[0] else { panic!("{plan:?}") };
        assert_eq!(result.balance, expected);
    }
    state.accounts.clear();
    let plan = execute(&mut state, &[command(5, 1, Action::Cancel { order: order_id(0) })], &RULES, now());
    let OrderOutcome::Done(result) = &plan.outcomes[0] else { panic!("{plan:?}") };
    assert_eq!(result.balance, Some(5_000), "a refund opens an account");
}
