//! Tables in memory. A batch gets copies of the rows that it locks; only the rows that its plan names are written back.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

pub(super) struct Tables {
    pub state: LockedState,
    stock_changes: BTreeMap<ProductId, StockChange>,
    ledger: Vec<LedgerRow>,
    payments: BTreeMap<PaymentId, Payment>,
}

impl Tables {
    pub(super) fn new() -> Self {
        let (state, stock_changes) = (initial_state(), BTreeMap::new());
        Self { state, stock_changes, ledger: Vec::new(), payments: BTreeMap::new() }
    }

    fn lock(&self, commands: &[Command]) -> LockedState {
        fn existing<K: Ord + Copy, V: Clone>(table: &BTreeMap<K, V>, keys: &BTreeSet<K>) -> BTreeMap<K, V> {
            keys.iter().filter_map(|key| Some((*key, table.get(key)?.clone()))).collect()
        }
        let mut rows = RequiredRows::of(commands);
        let orders = existing(&self.state.orders, &rows.orders);
        rows.add_rows_to_restore(commands, &orders);
        let decided = rows.commands.iter().filter_map(|id| Some((*id, self.state.decided.get(id)?.clone())));
        LockedState {
            products: existing(&self.state.products, &rows.products),
            coupons: existing(&self.state.coupons, &rows.coupons),
            accounts: existing(&self.state.accounts, &rows.accounts),
            unpaid: rows.unpaid_of.iter().filter_map(|user| Some((*user, self.unpaid(*user)?))).collect(),
            decided: decided.collect(),
            orders,
        }
    }

    fn unpaid(&self, user: UserId) -> Option<UnpaidOrders> {
        let mut unpaid = UnpaidOrders::default();
        let is_unpaid = |order: &&Order| order.user_id == user && order.status == OrderStatus::DepositWait;
        for order in self.state.orders.values().filter(is_unpaid) {
            unpaid.orders += 1;
            for item in &order.items {
                *unpaid.units.entry(item.product_id).or_default() += i64::from(item.quantity);
            }
        }
        (unpaid.orders > 0).then_some(unpaid)
    }

    pub(super) fn execute(&mut self, commands: &[Command], rules: &OrderRules) -> Vec<OrderOutcome> {
        let mut locked = self.lock(commands);
        let plan = execute(&mut locked, commands, rules, now());
        self.write_orders(&locked, &plan);
        for (id, StockChange { sold, restored }) in &plan.stock {
            self.state.products.get_mut(id).expect("a product").stock += restored - sold;
            let sums = self.stock_changes.entry(*id).or_default();
            *sums = StockChange { sold: sums.sold + sold, restored: sums.restored + restored };
        }
        for id in &plan.coupons {
            self.state.coupons.insert(*id, locked.coupons[id].clone());
        }
        self.write_points(&locked, &plan);
        for index in &plan.decided {
            let reason = match &plan.outcomes[*index] {
                OrderOutcome::Done(_) => None,
                OrderOutcome::Rejected(reason) => Some(reason.clone()),
            };
            let before = self.state.decided.insert(commands[*index].id, reason);
            assert_eq!(before, None, "a command is decided once");
        }
        plan.outcomes
    }

    fn write_orders(&mut self, locked: &LockedState, plan: &OrderPlan) {
        for id in &plan.placed {
            let before = self.state.orders.insert(*id, locked.orders[id].clone());
            assert_eq!(before, None, "an order is inserted once");
        }
        for id in &plan.changed {
            let after = locked.orders[id].clone();
            let before = self.state.orders.insert(*id, after.clone()).expect("a changed order was there");
            let in_two_steps = before.status == OrderStatus::DepositWait
                && matches!(after.status, OrderStatus::BuyConfirm | OrderStatus::Cancelled);
            assert!(before.status.may_become(after.status) || in_two_steps, "I8: {before:?} -> {after:?}");
        }
    }

    fn write_points(&mut self, locked: &LockedState, plan: &OrderPlan) {
        for user in &plan.accounts {
            self.state.accounts.insert(*user, locked.accounts[user]);
        }
        self.ledger.extend(plan.ledger.iter().cloned());
        for payment in &plan.payments {
            let before = self.payments.insert(payment.id, payment.clone());
            assert_eq!(before, None, "a payment is inserted once");
        }
        for id in &plan.refunded {
            let payment = self.payments.get_mut(id).expect("a payment");
            assert_eq!(payment.status, PaymentStatus::Done, "a payment is refunded once");
            payment.status = PaymentStatus::Cancelled;
        }
    }

    /// I5, I6 and I7 on the rows alone.
    pub(super) fn check(&self) {
        self.check_stock();
        self.check_balances();
        self.check_orders();
    }

    fn check_stock(&self) {
        for (index, initial) in STOCKS.into_iter().enumerate() {
            let id = product_id(index);
            let StockChange { sold, restored } = self.stock_changes.get(&id).copied().unwrap_or_default();
            let stock = self.state.products[&id].stock;
            assert!(stock >= 0 && stock == initial - sold + restored, "I5: product {index}");
        }
    }

    fn check_balances(&self) {
        for (index, initial) in BALANCES.into_iter().enumerate() {
            let balance = self.state.accounts.get(&user_id(index)).map_or(0, |account| account.balance);
            let mut rows = self.ledger.iter().filter(|row| row.user == user_id(index));
            let sum: i64 = rows.clone().map(|row| row.amount).sum();
            assert!((0..=HOLDING_CAP).contains(&balance) && balance == initial + sum, "I6: user {index}");
            assert_eq!(rows.next_back().map_or(balance, |row| row.balance_after), balance, "I6: user {index}");
        }
    }

    fn check_orders(&self) {
        let mut live = BTreeSet::new();
        for order in self.state.orders.values() {
            let total: i64 = order.items.iter().map(|item| item.unit_price * i64::from(item.quantity)).sum();
            assert_eq!((total, total - order.discount_amount), (order.total_amount, order.pay_amount), "I7: {order:?}");
            let is_live =
                matches!(order.status, OrderStatus::DepositWait | OrderStatus::PayDone | OrderStatus::BuyConfirm);
            if let Some(coupon) = order.user_coupon_id.filter(|_| is_live) {
                assert!(live.insert(coupon), "I7: a coupon is used by two live orders");
                assert_eq!(self.state.coupons[&coupon].status, CouponStatus::Used);
            }
            let moved: i64 = self.ledger.iter().filter(|row| row.order == order.order_id).map(|row| row.amount).sum();
            let is_paid = matches!(order.status, OrderStatus::PayDone | OrderStatus::BuyConfirm);
            assert_eq!(moved, if is_paid { -order.pay_amount } else { 0 }, "I7: {order:?}");
        }
    }
}
