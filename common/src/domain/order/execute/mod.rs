//! One file for each [`Action`]; what they share is here.

mod cancel;
mod confirm;
mod expire;
mod pay;
mod place;

use chrono::TimeDelta;
use chrono_tz::Tz;

use super::{
    Action, Command, CommandResult, LedgerRow, LockedState, Order, OrderOutcome, OrderPlan, OrderRejectReason,
    OrderStatus, RejectCode,
};
use crate::{
    clock::Timestamp,
    domain::{
        event::{Aggregate, Event},
        facts::Facts,
        points::{Account, LedgerType},
    },
    identifiers::{OrderId, PaymentId},
};

/// Settings of the shop.
#[derive(Clone, Copy, Debug)]
pub struct OrderRules {
    /// How long an order may stay unpaid.
    pub expiry: TimeDelta,
    /// The most points that a user may hold, in won.
    pub holding_cap: i64,
    /// Where a business day begins.
    pub time_zone: Tz,
    /// How many unpaid orders a user may have at once; 0: any number.
    pub unpaid_orders_limit: u32,
    /// How many units of one product a user's unpaid orders may hold; 0: any number.
    pub unpaid_units_limit: u32,
}

impl OrderRules {
    /// Those of the settings' defaults.
    pub const DEFAULT: Self = Self {
        expiry: TimeDelta::minutes(30),
        holding_cap: 10_000_000,
        time_zone: chrono_tz::Asia::Seoul,
        unpaid_orders_limit: 5,
        unpaid_units_limit: 10,
    };

    /// Whether unpaid orders have to be counted.
    pub const fn limits_unpaid_orders(&self) -> bool {
        self.unpaid_orders_limit > 0 || self.unpaid_units_limit > 0
    }
}

/// Decides the commands one after the other on the rows that they need ([`super::RequiredRows`]).
///
/// `state` becomes the rows after the batch; the plan names those to write. A command that has an outcome keeps it.
pub fn execute(state: &mut LockedState, commands: &[Command], rules: &OrderRules, now: Timestamp) -> OrderPlan {
    let mut executor = BatchExecutor { state, plan: OrderPlan::default(), rules, now };
    for (index, command) in commands.iter().enumerate() {
        let before = executor.plan.events.len();
        let outcome = match executor.existing_outcome(command) {
            Some(outcome) => outcome,
            None => executor.decide(index, command),
        };
        executor.plan.outcomes.push(outcome);
        if let Some(trace) = command.trace {
            executor.plan.events.iter_mut().skip(before).for_each(|event| _ = event.traces.insert(0, trace));
        }
    }
    executor.plan
}

/// Rejects a command that fails at every attempt, so that its caller gets an outcome. A command that has an outcome
/// keeps it.
pub fn fail_permanently(state: &mut LockedState, command: &Command, rules: &OrderRules, now: Timestamp) -> OrderPlan {
    let mut executor = BatchExecutor { state, plan: OrderPlan::default(), rules, now };
    let outcome = executor.existing_outcome(command).unwrap_or_else(|| {
        let detail = "It could not be executed, by a defect; nothing was changed.";
        let facts = Facts { command_id: Some(command.id), ..Facts::default() };
        let reason = OrderRejectReason::new(RejectCode::CommandFailed, detail).with(facts);
        if let Action::Place { coupon, .. } = command.action {
            executor.insert_rejected(command, coupon, &reason);
        } else if command.has_own_outcome() {
            // The batch is this one command.
            executor.plan.decided.push(0);
        }
        OrderOutcome::Rejected(reason)
    });
    executor.plan.outcomes.push(outcome);
    executor.plan
}

type Decision<T> = Result<T, OrderRejectReason>;

fn reject<T>(code: RejectCode, detail: String, facts: Facts) -> Decision<T> {
    Err(OrderRejectReason::new(code, detail).with(facts))
}

fn not_found(id: OrderId) -> OrderRejectReason {
    let facts = Facts { order_id: Some(id), ..Facts::default() };
    OrderRejectReason::new(RejectCode::OrderNotFound, format!("The user has no order {id}.")).with(facts)
}

fn state_of(order: &Order) -> Facts {
    Facts { order_id: Some(order.order_id), order_status: Some(order.status), ..Facts::default() }
}

fn status_conflict<T>(order: &Order) -> Decision<T> {
    let (id, status) = (order.order_id, order.status.into_str());
    let detail = format!("Order {id} is {status}; that can no longer be done.");
    reject(RejectCode::OrderStateConflict, detail, state_of(order))
}

/// The state of one batch while its commands are decided. Each command sees the changes of those before it.
struct BatchExecutor<'s> {
    state: &'s mut LockedState,
    plan: OrderPlan,
    rules: &'s OrderRules,
    now: Timestamp,
}

/// A change of a user's balance for an order.
#[derive(Clone, Copy)]
struct PointsMovement {
    kind: LedgerType,
    /// In won; negative when points are spent.
    amount: i64,
    order: OrderId,
    payment: PaymentId,
}

impl BatchExecutor<'_> {
    /// The outcome that a redelivered command has already.
    fn existing_outcome(&self, command: &Command) -> Option<OrderOutcome> {
        let rejected = match command.action {
            // The order is the outcome of its placement: no other row is written for it.
            Action::Place { .. } => {
                let order = self.state.orders.get(&command.order())?;
                order.reject_reason()
            }
            // Expiring twice expires once, so it needs no outcome of its own.
            Action::Expire { .. } => return None,
            Action::Pay { .. } | Action::Confirm { .. } | Action::Cancel { .. } => {
                self.state.decided.get(&command.id)?.clone()
            }
        };
        Some(rejected.map_or_else(|| self.current_result(command), OrderOutcome::Rejected))
    }

    fn decide(&mut self, index: usize, command: &Command) -> OrderOutcome {
        let decision = match &command.action {
            Action::Place { items, coupon, payment } => self.place(command, items, *coupon, *payment),
            Action::Pay { order } => self.pay(command, *order),
            Action::Confirm { order } => self.confirm(command, *order),
            Action::Cancel { order } => self.cancel(command, *order),
            Action::Expire { order } => self.expire(command, *order),
        };
        if command.has_own_outcome() {
            self.plan.decided.push(index);
            // A second delivery of the command in this batch finds its outcome here.
            self.state.decided.insert(command.id, decision.clone().err());
        }
        decision.map_or_else(OrderOutcome::Rejected, |()| self.current_result(command))
    }

    /// The outcome of a command that succeeded: the order and the balance as they are now.
    fn current_result(&self, command: &Command) -> OrderOutcome {
        let moves_points = match command.action {
            Action::Place { payment, .. } => payment.is_some(),
            Action::Pay { .. } | Action::Cancel { .. } => true,
            Action::Confirm { .. } | Action::Expire { .. } => false,
        };
        match self.state.orders.get(&command.order()) {
            Some(order) => {
                let balance = moves_points.then(|| self.account(command).balance);
                OrderOutcome::Done(Box::new(CommandResult { order: order.clone(), balance }))
            }
            None => OrderOutcome::Rejected(not_found(command.order())),
        }
    }

    /// The user's account. A user who never charged points has no row.
    fn account(&self, command: &Command) -> Account {
        self.state.accounts.get(&command.user).copied().unwrap_or_default()
    }

    /// The order, when it is the user's. Another user's order is reported like one that does not exist.
    fn own_order(&self, command: &Command, id: OrderId) -> Decision<&Order> {
        let order = self.state.orders.get(&id).filter(|order| order.user_id == command.user);
        order.ok_or_else(|| not_found(id))
    }

    fn move_points(&mut self, command: &Command, movement: PointsMovement) {
        let PointsMovement { kind, amount, order, payment } = movement;
        // The ledger takes no rows of 0: an order that a coupon covers moves no points.
        if amount == 0 {
            return;
        }
        let account = self.state.accounts.entry(command.user).or_default();
        account.balance += amount;
        let balance_after = account.balance;
        self.plan.accounts.insert(command.user);
        self.plan.ledger.push(LedgerRow { user: command.user, kind, amount, balance_after, payment, order });
    }

    /// Moves the order to `status` and records the event.
    fn transition(&mut self, mut order: Order, status: OrderStatus, event: &'static str) {
        debug_assert!(order.status.may_become(status), "{:?} -> {status:?}", order.status);
        if order.status == OrderStatus::DepositWait {
            self.count_unpaid(&order, -1);
        }
        order.status = status;
        self.record_event(event, &order);
        // An order that this batch placed is inserted in its last state; an UPDATE would find no row.
        if !self.plan.placed.contains(&order.order_id) {
            self.plan.changed.insert(order.order_id);
        }
        self.state.orders.insert(order.order_id, order);
    }

    /// Counts an unpaid order that begins (1) or ends (-1), so that the next command of the batch finds the right
    /// numbers.
    fn count_unpaid(&mut self, order: &Order, change: i64) {
        // The rows of a user who places no unpaid order in this batch were not read, and are not needed.
        let Some(held) = self.state.unpaid.get_mut(&order.user_id) else { return };
        held.orders += change;
        for item in &order.items {
            *held.units.entry(item.product_id).or_default() += change * i64::from(item.quantity);
        }
    }

    fn record_event(&mut self, kind: &'static str, order: &Order) {
        self.plan.events.push(Event::new(Aggregate::Order(order.order_id), kind, order));
    }
}
