//! A shop that knows neither batches nor rows, and executes one command at a time.

use std::collections::{BTreeMap, HashMap};

use super::*;

/// What a command asks for, in numbers of the fixtures.
#[derive(Clone, Debug)]
pub(super) enum Request {
    Place { items: Vec<(usize, u32)>, coupon: Option<usize>, pay: bool },
    Pay(usize),
    Confirm(usize),
    Cancel(usize),
    Expire(usize),
}

#[derive(Clone, Debug)]
pub(super) struct ModelCommand {
    pub number: usize,
    pub user: usize,
    pub request: Request,
}

impl ModelCommand {
    pub(super) fn command(&self) -> Command {
        let action = match &self.request {
            Request::Place { items, coupon, pay } => place_action(items, *coupon, pay.then(|| payment_id(self.number))),
            Request::Pay(order) => Action::Pay { order: order_id(*order) },
            Request::Confirm(order) => Action::Confirm { order: order_id(*order) },
            Request::Cancel(order) => Action::Cancel { order: order_id(*order) },
            Request::Expire(order) => Action::Expire { order: order_id(*order) },
        };
        command(self.number, self.user, action)
    }
}

pub(super) struct ModelOrder {
    user: usize,
    items: BTreeMap<usize, i64>,
    coupon: Option<usize>,
    amount: i64,
    pub status: OrderStatus,
}

/// Unpaid orders of a user at once, in the property test.
pub(super) const UNPAID_ORDERS: u32 = 3;
/// Units of a product in them.
pub(super) const UNPAID_UNITS: u32 = 6;

pub(super) struct Model {
    /// Whether every unpaid order is overdue.
    overdue: bool,
    pub stock: [i64; 4],
    pub used: [bool; 4],
    pub balance: [i64; 3],
    pub orders: BTreeMap<usize, ModelOrder>,
    outcomes: HashMap<usize, Result<(), RejectCode>>,
}

impl Model {
    pub(super) fn new(overdue: bool) -> Self {
        let (orders, outcomes) = (BTreeMap::new(), HashMap::new());
        Self { overdue, stock: STOCKS, used: [false; 4], balance: BALANCES, orders, outcomes }
    }

    pub(super) fn execute(&mut self, command: &ModelCommand) -> Result<(), RejectCode> {
        let ModelCommand { number, user, request } = command;
        if let (Some(before), false) = (self.outcomes.get(number), matches!(request, Request::Expire(_))) {
            return *before;
        }
        let outcome = match request {
            Request::Place { items, coupon, pay } => self.place(command, items, *coupon, *pay),
            Request::Pay(order) => self.pay(*user, *order),
            Request::Confirm(order) => self.confirm(*user, *order),
            Request::Cancel(order) => self.cancel(*user, *order),
            Request::Expire(order) => self.expire(*user, *order),
        };
        self.outcomes.insert(*number, outcome);
        outcome
    }

    fn place(
        &mut self,
        command: &ModelCommand,
        items: &[(usize, u32)],
        coupon: Option<usize>,
        pay: bool,
    ) -> Result<(), RejectCode> {
        let (number, user) = (command.number, command.user);
        let priced = self.price(user, items, coupon, pay);
        let rejected =
            ModelOrder { user, items: BTreeMap::new(), coupon: None, amount: 0, status: OrderStatus::Rejected };
        self.orders.insert(number, rejected);
        let (items, amount) = priced?;
        if pay && self.balance[user] < amount {
            return Err(RejectCode::PointsInsufficient);
        }
        if !pay {
            self.check_unpaid(user, &items)?;
        }
        for (product, quantity) in &items {
            self.stock[*product] -= quantity;
        }
        if let Some(coupon) = coupon {
            self.used[coupon] = true;
        }
        let mut status = OrderStatus::DepositWait;
        if pay {
            self.balance[user] -= amount;
            status = OrderStatus::PayDone;
        }
        self.orders.insert(number, ModelOrder { user, items, coupon, amount, status });
        Ok(())
    }

    fn check_unpaid(&self, user: usize, items: &BTreeMap<usize, i64>) -> Result<(), RejectCode> {
        let is_unpaid = |order: &&ModelOrder| order.user == user && order.status == OrderStatus::DepositWait;
        let unpaid: Vec<&ModelOrder> = self.orders.values().filter(is_unpaid).collect();
        if unpaid.len() >= UNPAID_ORDERS as usize {
            return Err(RejectCode::UnpaidOrdersLimitExceeded);
        }
        for (product, quantity) in items {
            let held: i64 = unpaid.iter().filter_map(|order| order.items.get(product)).sum();
            if held + quantity > i64::from(UNPAID_UNITS) {
                return Err(RejectCode::UnpaidUnitsLimitExceeded);
            }
        }
        Ok(())
    }

    /// Units by product, and the amount to pay.
    fn price(
        &self,
        user: usize,
        items: &[(usize, u32)],
        with: Option<usize>,
        pay: bool,
    ) -> Result<(BTreeMap<usize, i64>, i64), RejectCode> {
        let terms = with.map(|index| (index, coupon(index)));
        if let Some((index, coupon)) = &terms {
            let is_usable = coupon.user == user_id(user) && coupon.valid_until > now();
            if !is_usable || self.used[*index] {
                return Err(RejectCode::CouponNotUsable);
            }
        }
        let mut merged: BTreeMap<usize, i64> = BTreeMap::new();
        for (product, quantity) in items {
            *merged.entry(*product).or_default() += i64::from(*quantity);
        }
        for (product, quantity) in &merged {
            if *product >= PRICES.len() {
                return Err(RejectCode::ProductNotFound);
            }
            if *product == STOPPED {
                return Err(RejectCode::ProductNotSelling);
            }
            if *product == PAYMENT_REQUIRED && !pay {
                return Err(RejectCode::PaymentRequired);
            }
            if self.stock[*product] < *quantity {
                return Err(RejectCode::StockInsufficient);
            }
        }
        let total: i64 = merged.iter().map(|(product, quantity)| PRICES[*product] * quantity).sum();
        let discount = match terms {
            Some((_, coupon)) if total < coupon.minimum_order_amount => return Err(RejectCode::CouponNotUsable),
            Some((1, _)) => total / 10,
            Some((_, coupon)) => coupon.discount.value.min(total),
            None => 0,
        };
        if with.is_some() && discount == 0 {
            return Err(RejectCode::CouponNotUsable);
        }
        Ok((merged, total - discount))
    }

    fn own_order(&mut self, user: usize, order: usize) -> Result<&mut ModelOrder, RejectCode> {
        self.orders.get_mut(&order).filter(|found| found.user == user).ok_or(RejectCode::OrderNotFound)
    }

    fn pay(&mut self, user: usize, number: usize) -> Result<(), RejectCode> {
        let (overdue, balance) = (self.overdue, self.balance[user]);
        let order = self.own_order(user, number)?;
        match order.status {
            OrderStatus::PayDone | OrderStatus::BuyConfirm => Ok(()),
            OrderStatus::DepositWait if overdue => Err(RejectCode::OrderStateConflict),
            OrderStatus::DepositWait if balance < order.amount => Err(RejectCode::PointsInsufficient),
            OrderStatus::DepositWait => {
                order.status = OrderStatus::PayDone;
                self.balance[user] -= self.orders[&number].amount;
                Ok(())
            }
            _ => Err(RejectCode::OrderStateConflict),
        }
    }

    fn confirm(&mut self, user: usize, number: usize) -> Result<(), RejectCode> {
        let order = self.own_order(user, number)?;
        match order.status {
            OrderStatus::PayDone | OrderStatus::BuyConfirm => {
                order.status = OrderStatus::BuyConfirm;
                Ok(())
            }
            _ => Err(RejectCode::OrderStateConflict),
        }
    }

    fn restore(&mut self, number: usize, status: OrderStatus) {
        let order = self.orders.get_mut(&number).expect("an order");
        order.status = status;
        for (product, quantity) in &order.items {
            self.stock[*product] += quantity;
        }
        if let Some(coupon) = order.coupon {
            self.used[coupon] = false;
        }
    }

    fn cancel(&mut self, user: usize, number: usize) -> Result<(), RejectCode> {
        let balance = self.balance[user];
        let order = self.own_order(user, number)?;
        let (status, amount) = (order.status, order.amount);
        match status {
            OrderStatus::Cancelled => Ok(()),
            OrderStatus::PayDone if amount > 0 && balance + amount > HOLDING_CAP => Err(RejectCode::PointsCapExceeded),
            OrderStatus::PayDone | OrderStatus::DepositWait => {
                if status == OrderStatus::PayDone {
                    self.balance[user] += amount;
                }
                self.restore(number, OrderStatus::Cancelled);
                Ok(())
            }
            _ => Err(RejectCode::OrderStateConflict),
        }
    }

    fn expire(&mut self, user: usize, number: usize) -> Result<(), RejectCode> {
        let overdue = self.overdue;
        let status = self.own_order(user, number)?.status;
        if overdue && status == OrderStatus::DepositWait {
            self.restore(number, OrderStatus::Expired);
        }
        Ok(())
    }
}
