use super::*;

/// One command of each kind, and an order on which it succeeds.
fn commands() -> Vec<(LockedState, Command)> {
    let unpaid = || state_with(order_in(OrderStatus::DepositWait));
    let paid = || state_with(order_in(OrderStatus::PayDone));
    let overdue = state_with(Order { expires_at: now(), ..order_in(OrderStatus::DepositWait) });
    let order = order_id(0);
    vec![
        (initial_state(), command(7, 1, place_action(&[(0, 1)], None, None))),
        (unpaid(), command(3, 1, Action::Pay { order })),
        (paid(), command(3, 1, Action::Confirm { order })),
        (paid(), command(3, 1, Action::Cancel { order })),
        (overdue, command(3, 1, Action::Expire { order })),
    ]
}

#[test]
fn i12_a_command_that_is_delivered_again_changes_nothing() {
    for (mut state, command) in commands() {
        let (first, plan) = execute_one(&mut state, &command);
        assert_eq!(plan.events.len(), 1, "{command:?}");
        let (second, plan) = execute_one(&mut state, &command);
        assert_eq!(first, second, "{command:?}");
        assert!(plan.placed.is_empty() && plan.changed.is_empty() && plan.decided.is_empty(), "{plan:?}");
        assert!(plan.events.is_empty() && plan.ledger.is_empty() && plan.payments.is_empty(), "{plan:?}");
    }
}

#[test]
fn i12_a_command_that_comes_twice_in_a_batch_is_executed_once() {
    for (mut state, command) in commands() {
        let plan = execute(&mut state, &[command.clone(), command.clone()], &RULES, now());
        assert_eq!(plan.outcomes[0], plan.outcomes[1]);
        assert_eq!(plan.events.len(), 1, "{command:?}");
    }
}

#[test]
fn i12_a_rejection_keeps_its_reason_when_the_command_comes_again() {
    let rejected = [
        command(7, 1, place_action(&[(STOPPED, 1)], None, None)),
        command(3, 1, Action::Confirm { order: order_id(0) }),
    ];
    for command in rejected {
        let mut state = state_with(order_in(OrderStatus::DepositWait));
        let first = execute(&mut state, std::slice::from_ref(&command), &RULES, now()).outcomes;
        // What was missing is there now.
        state.products.get_mut(&product_id(STOPPED)).expect("a product").status = ProductStatus::Selling;
        state.orders.insert(order_id(0), order_in(OrderStatus::PayDone));
        let plan = execute(&mut state, std::slice::from_ref(&command), &RULES, now());
        assert_eq!(plan.outcomes, first);
        assert!(plan.changed.is_empty() && plan.events.is_empty(), "{plan:?}");
    }
}

#[test]
fn a_command_that_fails_permanently_is_rejected_and_changes_nothing() {
    for (before, command) in commands() {
        let mut state = before.clone();
        let plan = fail_permanently(&mut state, &command, &RULES, now());
        assert_eq!(outcome(&plan.outcomes[0]), Err(RejectCode::CommandFailed));
        assert_eq!((&state.products, &state.accounts), (&before.products, &before.accounts));
        assert!(plan.events.is_empty() && plan.ledger.is_empty() && plan.changed.is_empty());
        // The outcome is durable: the rejected order of a placement, or a row of the command.
        let is_placement = matches!(command.action, Action::Place { .. });
        assert_eq!(plan.placed.len(), usize::from(is_placement));
        assert_eq!(plan.decided.len(), usize::from(command.has_own_outcome()));
    }
}

#[test]
fn a_decided_command_keeps_its_outcome_when_it_fails_permanently() {
    for (mut state, command) in commands() {
        let (first, _) = execute_one(&mut state, &command);
        let plan = fail_permanently(&mut state, &command, &RULES, now());
        if !matches!(command.action, Action::Expire { .. }) {
            assert_eq!(outcome(&plan.outcomes[0]), first, "{command:?}");
        }
        assert!(plan.placed.is_empty() && plan.decided.is_empty() && plan.changed.is_empty(), "{plan:?}");
    }
}
