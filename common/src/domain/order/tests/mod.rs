//! Examples for each action, the table of transitions (I8), and a property test that compares [`super::execute`] with a
//! model that executes one command at a time.

mod cancel;
mod confirm;
mod expire;
mod model;
mod pay;
mod place;
mod property;
mod redelivery;
mod tables;
mod transitions;

use chrono::TimeDelta;
use uuid::Uuid;

use super::*;
use crate::{
    clock::{Timestamp, from_millis},
    domain::{
        campaign::{Discount, DiscountType},
        points::Account,
        product::{Product, ProductStatus},
        ranking::business_day,
    },
    identifiers::{CommandId, CouponId},
};

const HOLDING_CAP: i64 = 60_000;
const RULES: OrderRules = OrderRules { holding_cap: HOLDING_CAP, ..OrderRules::DEFAULT };
const PRICES: [i64; 4] = [1_000, 2_500, 7_000, 1];
const STOCKS: [i64; 4] = [12, 5, 100, 3];
/// An order with this product has to be paid in the same step.
const PAYMENT_REQUIRED: usize = 2;
/// The last product is not for sale.
const STOPPED: usize = 3;
/// Won by user. The first user never charged points, and has no account.
const BALANCES: [i64; 3] = [0, 20_000, 50_000];
/// The first payment of a fixture, so that it is not the id of a command.
const FIRST_PAYMENT: u128 = 10_000;

fn now() -> Timestamp {
    from_millis(1_000_000_000)
}

fn order_id(number: usize) -> OrderId {
    OrderId(Uuid::from_u128(number as u128 + 1))
}

fn payment_id(number: usize) -> PaymentId {
    PaymentId(Uuid::from_u128(FIRST_PAYMENT + number as u128))
}

fn product_id(index: usize) -> ProductId {
    (index as u64 + 1).try_into().expect("an id")
}

fn user_id(index: usize) -> UserId {
    (index as u64 + 1).try_into().expect("an id")
}

fn coupon_id(index: usize) -> ClaimId {
    ClaimId(Uuid::from_u128(1_000 + index as u128))
}

/// Coupons 0 and 1 belong to user 0. Coupon 2 belongs to user 1 and needs a total of 10,000 won. Coupon 3 belongs to
/// user 2, and its validity is over.
fn coupon(index: usize) -> IssuedCoupon {
    let (owner, kind, value, minimum_order_amount, is_valid) = [
        (0, DiscountType::Fixed, 3_000, 0, true),
        (0, DiscountType::Percent, 10, 0, true),
        (1, DiscountType::Fixed, 100_000, 10_000, true),
        (2, DiscountType::Fixed, 500, 0, false),
    ][index];
    IssuedCoupon {
        campaign: CouponId::try_from(1).expect("an id"),
        user: user_id(owner),
        discount: Discount { kind, value, max_amount: None },
        minimum_order_amount,
        valid_until: if is_valid { now() + TimeDelta::days(1) } else { now() },
        status: CouponStatus::Issued,
        used_at: None,
    }
}

/// All rows before the first command.
fn initial_state() -> LockedState {
    let mut state = LockedState::default();
    for (index, (price, stock)) in PRICES.into_iter().zip(STOCKS).enumerate() {
        let status = if index == STOPPED { ProductStatus::Stopped } else { ProductStatus::Selling };
        let (id, name, payment_required) = (product_id(index), format!("product {index}"), index == PAYMENT_REQUIRED);
        let product = Product { id, name, price, stock, status, payment_required };
        state.products.insert(product.id, product);
        state.coupons.insert(coupon_id(index), coupon(index));
    }
    for (index, balance) in BALANCES.into_iter().enumerate().skip(1) {
        state.accounts.insert(user_id(index), Account { balance, pending: 0 });
    }
    state
}

fn command(number: usize, user: usize, action: Action) -> Command {
    Command { id: CommandId(order_id(number).0), user: user_id(user), at: now(), action, trace: None }
}

fn place_action(items: &[(usize, u32)], coupon: Option<usize>, payment: Option<PaymentId>) -> Action {
    let line = |(product, quantity): &(usize, u32)| Line { product_id: product_id(*product), quantity: *quantity };
    let lines: Vec<Line> = items.iter().map(line).collect();
    Action::Place { items: merge_lines(&lines), coupon: coupon.map(coupon_id), payment }
}

/// An order of user 1 for two units of product 1, which is 5,000 won, in this status.
fn order_in(status: OrderStatus) -> Order {
    let is_paid = matches!(status, OrderStatus::PayDone | OrderStatus::BuyConfirm);
    let item = OrderItem { product_id: product_id(1), name: "product 1".into(), unit_price: PRICES[1], quantity: 2 };
    Order {
        order_id: order_id(0),
        user_id: user_id(1),
        status,
        code: None,
        detail: None,
        facts: None,
        items: vec![item],
        total_amount: 5_000,
        discount_amount: 0,
        pay_amount: 5_000,
        user_coupon_id: None,
        payment_id: is_paid.then(|| payment_id(0)),
        created_at: now() - TimeDelta::minutes(1),
        expires_at: now() + TimeDelta::minutes(29),
        paid_at: is_paid.then(now),
        paid_on: is_paid.then(|| business_day(now(), RULES.time_zone)),
        confirmed_at: None,
        ended_at: None,
    }
}

fn state_with(order: Order) -> LockedState {
    let mut state = initial_state();
    state.orders.insert(order.order_id, order);
    state
}

/// Executes one command. Its outcome: the order after it, or the code of its rejection.
fn execute_one(state: &mut LockedState, command: &Command) -> (Result<Order, RejectCode>, OrderPlan) {
    let plan = execute(state, std::slice::from_ref(command), &RULES, now());
    (outcome(&plan.outcomes[0]), plan)
}

fn outcome(outcome: &OrderOutcome) -> Result<Order, RejectCode> {
    match outcome {
        OrderOutcome::Done(result) => Ok(result.order.clone()),
        OrderOutcome::Rejected(reason) => Err(reason.code),
    }
}

fn events(plan: &OrderPlan) -> Vec<&'static str> {
    plan.events.iter().map(|event| event.kind).collect()
}
