use strum::VariantArray as _;

use super::{OrderStatus as S, *};

const CONFLICT: Result<S, RejectCode> = Err(RejectCode::OrderStateConflict);

/// Each status, and what pay, confirm, cancel and expire make of an order in it. The order is not overdue for a
/// payment, as the request came in time, and overdue for the expiry.
const TABLE: [(S, [Result<S, RejectCode>; 4]); 6] = [
    (S::DepositWait, [Ok(S::PayDone), CONFLICT, Ok(S::Cancelled), Ok(S::Expired)]),
    (S::PayDone, [Ok(S::PayDone), Ok(S::BuyConfirm), Ok(S::Cancelled), Ok(S::PayDone)]),
    (S::BuyConfirm, [Ok(S::BuyConfirm), Ok(S::BuyConfirm), CONFLICT, Ok(S::BuyConfirm)]),
    (S::Cancelled, [CONFLICT, CONFLICT, Ok(S::Cancelled), Ok(S::Cancelled)]),
    (S::Expired, [CONFLICT, CONFLICT, CONFLICT, Ok(S::Expired)]),
    (S::Rejected, [CONFLICT, CONFLICT, CONFLICT, Ok(S::Rejected)]),
];

#[test]
fn i8_every_action_on_every_status_does_what_the_table_says() {
    assert_eq!(TABLE.map(|(status, _)| status), S::VARIANTS, "every status has a row");
    let order = order_id(0);
    let actions =
        [Action::Pay { order }, Action::Confirm { order }, Action::Cancel { order }, Action::Expire { order }];
    for (status, expected) in TABLE {
        for (action, expected) in actions.iter().zip(expected) {
            let before = Order { expires_at: now(), ..order_in(status) };
            let mut state = state_with(before.clone());
            let request = Command { at: now() - TimeDelta::seconds(1), ..command(3, 1, action.clone()) };
            let (after, plan) = execute_one(&mut state, &request);
            assert_eq!(after.map(|order| order.status), expected, "{status:?} {action:?}");
            let is_changed = expected.is_ok_and(|after| after != status);
            assert_eq!(plan.events.len(), usize::from(is_changed), "an event for each change, and only then");
            assert_eq!(state.orders[&order] == before, !is_changed, "{status:?} {action:?}");
        }
    }
}

#[test]
fn i8_only_the_transitions_of_the_table_are_allowed() {
    for (from, row) in TABLE {
        for to in S::VARIANTS {
            assert_eq!(from.may_become(*to), *to != from && row.contains(&Ok(*to)), "{from:?} -> {to:?}");
        }
    }
}
