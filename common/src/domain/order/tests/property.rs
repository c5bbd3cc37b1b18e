use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{
    model::{Model, ModelCommand, Request, UNPAID_ORDERS, UNPAID_UNITS},
    tables::Tables,
    *,
};

fn request() -> impl Strategy<Value = Request> {
    let no_such_product = PRICES.len();
    let item = prop_oneof![8 => 0..3_usize, 1 => Just(STOPPED), 1 => Just(no_such_product)];
    let place = (prop::collection::vec((item, 1..5_u32), 1..4), prop::option::of(0..4_usize), any::<bool>())
        .prop_map(|(items, coupon, pay)| Request::Place { items, coupon, pay });
    prop_oneof![
        3 => place,
        2 => (0..12_usize).prop_map(Request::Pay),
        1 => (0..12_usize).prop_map(Request::Confirm),
        2 => (0..12_usize).prop_map(Request::Cancel),
        1 => (0..12_usize).prop_map(Request::Expire),
    ]
}

/// Each command once in order. Up to two deliveries of any command, again or early, follow each.
fn deliveries(requests: Vec<(usize, Request)>, extra: &[prop::sample::Index]) -> Vec<ModelCommand> {
    let commands: Vec<ModelCommand> = requests
        .into_iter()
        .enumerate()
        .map(|(number, (user, request))| ModelCommand { number, user, request })
        .collect();
    let extra: Vec<ModelCommand> = extra.iter().map(|index| index.get(&commands).clone()).collect();
    let with_extra = |(index, command): (usize, &ModelCommand)| {
        let extra = extra.iter().skip(index * 2).take(2).cloned();
        std::iter::once(command.clone()).chain(extra).collect::<Vec<_>>()
    };
    commands.iter().enumerate().flat_map(with_extra).collect()
}

/// Executes the commands in batches of these sizes, and checks the tables after each.
fn execute_in_batches(
    tables: &mut Tables,
    commands: &[Command],
    sizes: &[usize],
    rules: &OrderRules,
) -> Vec<Result<(), RejectCode>> {
    let (mut outcomes, mut rest, mut sizes) = (Vec::new(), commands, sizes.iter().cycle());
    while !rest.is_empty() {
        let (batch, after) = rest.split_at(sizes.next().map_or(1, |size| *size).min(rest.len()));
        outcomes.extend(tables.execute(batch, rules).iter().map(|decided| outcome(decided).map(drop)));
        tables.check();
        rest = after;
    }
    outcomes
}

fn assert_same_shop(tables: &Tables, model: &Model) {
    let state = &tables.state;
    for (index, stock) in model.stock.into_iter().enumerate() {
        assert_eq!(state.products[&product_id(index)].stock, stock);
    }
    for (index, balance) in model.balance.into_iter().enumerate() {
        assert_eq!(state.accounts.get(&user_id(index)).map_or(0, |account| account.balance), balance);
    }
    for (index, used) in model.used.into_iter().enumerate() {
        assert_eq!(state.coupons[&coupon_id(index)].status == CouponStatus::Used, used);
    }
    let statuses: BTreeMap<OrderId, OrderStatus> = state.orders.iter().map(|(id, order)| (*id, order.status)).collect();
    let expected: BTreeMap<OrderId, OrderStatus> =
        model.orders.iter().map(|(number, order)| (order_id(*number), order.status)).collect();
    assert_eq!(statuses, expected);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// I5 to I8 and I12 for any commands, in any order, delivered any number of times, in batches of any sizes:
    /// outcomes and rows are those of the model.
    #[test]
    fn batches_of_any_size_do_what_the_model_does_one_command_at_a_time(
        requests in prop::collection::vec((0..3_usize, request()), 1..40),
        extra in prop::collection::vec(any::<prop::sample::Index>(), 1..80),
        sizes in prop::collection::vec(1..9_usize, 1..30),
        overdue in prop::bool::weighted(0.2),
    ) {
        let delivered = deliveries(requests, &extra);
        let mut model = Model::new(overdue);
        let expected: Vec<Result<(), RejectCode>> = delivered.iter().map(|command| model.execute(command)).collect();

        let expiry = if overdue { TimeDelta::zero() } else { RULES.expiry };
        let (unpaid_orders_limit, unpaid_units_limit) = (UNPAID_ORDERS, UNPAID_UNITS);
        let rules = OrderRules { expiry, unpaid_orders_limit, unpaid_units_limit, ..RULES };
        let commands: Vec<Command> = delivered.iter().map(ModelCommand::command).collect();
        let mut tables = Tables::new();
        let outcomes = execute_in_batches(&mut tables, &commands, &sizes, &rules);
        prop_assert_eq!(outcomes, expected);
        assert_same_shop(&tables, &model);
    }
}
