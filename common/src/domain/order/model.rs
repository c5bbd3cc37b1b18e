//! The rules held against a model: a shop that knows neither batches nor rows, and does one command at a time.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use chrono::TimeDelta;
use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::{
    clock::{Timestamp, from_millis},
    domain::{
        campaign::{Discount, DiscountType},
        points::Account,
        product::{Product, ProductStatus},
    },
    identifiers::CommandId,
};

const CAP: i64 = 60_000;
const PRICES: [i64; 4] = [1_000, 2_500, 7_000, 1];
const STOCKS: [i64; 4] = [12, 5, 100, 3];
/// The last product is not for sale.
const STOPPED: usize = 3;
const BALANCES: [i64; 3] = [0, 20_000, 50_000];

fn now() -> Timestamp {
    from_millis(1_000_000_000)
}

fn order_id(number: usize) -> OrderId {
    OrderId(Uuid::from_u128(number as u128 + 1))
}

fn product_id(place: usize) -> ProductId {
    (place as u64 + 1).try_into().expect("an id")
}

fn user_id(place: usize) -> UserId {
    (place as u64 + 1).try_into().expect("an id")
}

/// Coupons: 0 and 1 are of user 0, 2 of user 1 and for orders from 10,000 won on, 3 of user 2 and over.
fn coupon(place: usize) -> (ClaimId, IssuedCoupon) {
    let (owner, kind, value, minimum_order_amount, valid) = [
        (0, DiscountType::Fixed, 3_000, 0, true),
        (0, DiscountType::Percent, 10, 0, true),
        (1, DiscountType::Fixed, 100_000, 10_000, true),
        (2, DiscountType::Fixed, 500, 0, false),
    ][place];
    let issued = IssuedCoupon {
        user: user_id(owner),
        discount: Discount { kind, value, max_amount: None },
        minimum_order_amount,
        valid_until: if valid { now() + TimeDelta::days(1) } else { now() },
        status: CouponStatus::Issued,
        used_at: None,
    };
    (ClaimId(Uuid::from_u128(1_000 + place as u128)), issued)
}

/// What the model is told.
#[derive(Clone, Debug)]
enum Wish {
    Place { items: Vec<(usize, u32)>, coupon: Option<usize>, pay: bool },
    Pay(usize),
    Confirm(usize),
    Cancel(usize),
    Expire(usize),
}

#[derive(Clone, Debug)]
struct Told {
    number: usize,
    user: usize,
    wish: Wish,
}

impl Told {
    fn command(&self) -> Command {
        let action = match &self.wish {
            Wish::Place { items, coupon: used, pay } => {
                let lines: Vec<Line> = items
                    .iter()
                    .map(|(product, quantity)| Line { product_id: product_id(*product), quantity: *quantity })
                    .collect();
                let payment = PaymentId(Uuid::from_u128(10_000 + self.number as u128));
                Action::Place {
                    items: merge_lines(&lines),
                    coupon: used.map(|place| coupon(place).0),
                    payment: pay.then_some(payment),
                }
            }
            Wish::Pay(order) => Action::Pay { order: order_id(*order) },
            Wish::Confirm(order) => Action::Confirm { order: order_id(*order) },
            Wish::Cancel(order) => Action::Cancel { order: order_id(*order) },
            Wish::Expire(order) => Action::Expire { order: order_id(*order) },
        };
        Command { id: CommandId(order_id(self.number).0), user: user_id(self.user), at: now(), action }
    }
}

struct ModelOrder {
    user: usize,
    items: BTreeMap<usize, i64>,
    coupon: Option<usize>,
    amount: i64,
    status: OrderStatus,
}

/// The shop, as one would explain it to somebody.
struct Model {
    overdue: bool,
    stock: [i64; 4],
    used: [bool; 4],
    balance: [i64; 3],
    orders: BTreeMap<usize, ModelOrder>,
    told: HashMap<usize, Result<(), RejectCode>>,
}

impl Model {
    fn tell(&mut self, told: &Told) -> Result<(), RejectCode> {
        if let (Some(before), false) = (self.told.get(&told.number), matches!(told.wish, Wish::Expire(_))) {
            return *before;
        }
        let answer = match &told.wish {
            Wish::Place { items, coupon, pay } => self.place(told, items, *coupon, *pay),
            Wish::Pay(order) => self.pay(told.user, *order),
            Wish::Confirm(order) => self.change(told.user, *order, OrderStatus::BuyConfirm),
            Wish::Cancel(order) => self.cancel(told.user, *order),
            Wish::Expire(order) => self.expire(told.user, *order),
        };
        self.told.insert(told.number, answer);
        answer
    }

    fn place(&mut self, told: &Told, items: &[(usize, u32)], with: Option<usize>, pay: bool) -> Result<(), RejectCode> {
        let answer = self.priced(told.user, items, with);
        let rejected = ModelOrder {
            user: told.user,
            items: BTreeMap::new(),
            coupon: None,
            amount: 0,
            status: OrderStatus::Rejected,
        };
        self.orders.insert(told.number, rejected);
        let (items, amount) = answer?;
        if pay && self.balance[told.user] < amount {
            return Err(RejectCode::PointsInsufficient);
        }
        for (product, quantity) in &items {
            self.stock[*product] -= quantity;
        }
        if let Some(place) = with {
            self.used[place] = true;
        }
        let mut status = OrderStatus::DepositWait;
        if pay {
            self.balance[told.user] -= amount;
            status = OrderStatus::PayDone;
        }
        self.orders.insert(told.number, ModelOrder { user: told.user, items, coupon: with, amount, status });
        Ok(())
    }

    fn priced(
        &self,
        user: usize,
        items: &[(usize, u32)],
        with: Option<usize>,
    ) -> Result<(BTreeMap<usize, i64>, i64), RejectCode> {
        let terms = with.map(|place| (place, coupon(place).1));
        if let Some((place, coupon)) = &terms {
            let theirs = coupon.user == user_id(user) && coupon.valid_until > now();
            if !theirs || self.used[*place] {
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
            if self.stock[*product] < *quantity {
                return Err(RejectCode::StockInsufficient);
            }
        }
        let total: i64 = merged.iter().map(|(product, quantity)| PRICES[*product] * quantity).sum();
        let off = match terms {
            Some((_, coupon)) if total < coupon.minimum_order_amount => return Err(RejectCode::CouponNotUsable),
            Some((1, _)) => total / 10,
            Some((_, coupon)) => coupon.discount.value.min(total),
            None => 0,
        };
        Ok((merged, total - off))
    }

    fn theirs(&mut self, user: usize, order: usize) -> Result<&mut ModelOrder, RejectCode> {
        self.orders.get_mut(&order).filter(|found| found.user == user).ok_or(RejectCode::OrderNotFound)
    }

    fn pay(&mut self, user: usize, number: usize) -> Result<(), RejectCode> {
        let (overdue, balance) = (self.overdue, self.balance[user]);
        let order = self.theirs(user, number)?;
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

    fn change(&mut self, user: usize, number: usize, status: OrderStatus) -> Result<(), RejectCode> {
        let order = self.theirs(user, number)?;
        match order.status {
            before if before == status => Ok(()),
            OrderStatus::PayDone => {
                order.status = status;
                Ok(())
            }
            _ => Err(RejectCode::OrderStateConflict),
        }
    }

    fn give_back(&mut self, number: usize, status: OrderStatus) {
        let order = self.orders.get_mut(&number).expect("an order");
        order.status = status;
        for (product, quantity) in &order.items {
            self.stock[*product] += quantity;
        }
        if let Some(place) = order.coupon {
            self.used[place] = false;
        }
    }

    fn cancel(&mut self, user: usize, number: usize) -> Result<(), RejectCode> {
        let balance = self.balance[user];
        let order = self.theirs(user, number)?;
        let (status, amount) = (order.status, order.amount);
        match status {
            OrderStatus::Cancelled => Ok(()),
            OrderStatus::PayDone if amount > 0 && balance + amount > CAP => Err(RejectCode::PointsCapExceeded),
            OrderStatus::PayDone | OrderStatus::DepositWait => {
                if status == OrderStatus::PayDone {
                    self.balance[user] += amount;
                }
                self.give_back(number, OrderStatus::Cancelled);
                Ok(())
            }
            _ => Err(RejectCode::OrderStateConflict),
        }
    }

    fn expire(&mut self, user: usize, number: usize) -> Result<(), RejectCode> {
        let overdue = self.overdue;
        let status = self.theirs(user, number)?.status;
        if overdue && status == OrderStatus::DepositWait {
            self.give_back(number, OrderStatus::Expired);
        }
        Ok(())
    }
}

/// The tables: what a batch reads is copied out, what its plan names is written back, and nothing else.
struct Tables {
    shop: LockedState,
    sold: BTreeMap<ProductId, (i64, i64)>,
    ledger: Vec<LedgerRow>,
    payments: BTreeMap<PaymentId, Payment>,
}

impl Tables {
    fn new() -> Self {
        let mut shop = LockedState::default();
        for place in 0..PRICES.len() {
            let product = Product {
                id: product_id(place),
                name: format!("product {place}"),
                price: PRICES[place],
                stock: STOCKS[place],
                status: if place == STOPPED { ProductStatus::Stopped } else { ProductStatus::Selling },
            };
            shop.products.insert(product.id, product);
            let (id, issued) = coupon(place);
            shop.coupons.insert(id, issued);
        }
        // The first user never charged any points.
        for (place, balance) in BALANCES.into_iter().enumerate().skip(1) {
            shop.accounts.insert(user_id(place), Account { balance, pending: 0 });
        }
        Self { shop, sold: BTreeMap::new(), ledger: Vec::new(), payments: BTreeMap::new() }
    }

    fn lock(&self, commands: &[Command]) -> LockedState {
        fn some<K: Ord + Copy, V: Clone>(rows: &BTreeMap<K, V>, keys: &BTreeSet<K>) -> BTreeMap<K, V> {
            keys.iter().filter_map(|key| Some((*key, rows.get(key)?.clone()))).collect()
        }
        let mut needs = RequiredRows::of(commands);
        let orders = some(&self.shop.orders, &needs.orders);
        needs.add_what_orders_are_for(commands, &orders);
        LockedState {
            products: some(&self.shop.products, &needs.products),
            coupons: some(&self.shop.coupons, &needs.coupons),
            accounts: some(&self.shop.accounts, &needs.accounts),
            answered: needs.commands.iter().filter_map(|id| Some((*id, self.shop.answered.get(id)?.clone()))).collect(),
            orders,
        }
    }

    fn execute(&mut self, commands: &[Command], rules: &OrderRules) -> Vec<OrderOutcome> {
        let mut shop = self.lock(commands);
        let plan = execute(&mut shop, commands, rules, now());
        for id in &plan.placed {
            let before = self.shop.orders.insert(*id, shop.orders[id].clone());
            assert_eq!(before, None, "an order is added once");
        }
        for id in &plan.changed {
            let after = shop.orders[id].clone();
            let before = self.shop.orders.insert(*id, after.clone()).expect("a changed order was there");
            let two_steps = before.status == OrderStatus::DepositWait
                && matches!(after.status, OrderStatus::BuyConfirm | OrderStatus::Cancelled);
            assert!(before.status.may_become(after.status) || two_steps, "I8: {before:?} -> {after:?}");
        }
        for (id, (sold, restored)) in &plan.stock {
            self.shop.products.get_mut(id).expect("a product").stock += restored - sold;
            let sums = self.sold.entry(*id).or_default();
            *sums = (sums.0 + sold, sums.1 + restored);
        }
        for id in &plan.coupons {
            self.shop.coupons.insert(*id, shop.coupons[id].clone());
        }
        for user in &plan.accounts {
            self.shop.accounts.insert(*user, shop.accounts[user]);
        }
        self.ledger.extend(plan.ledger.iter().cloned());
        for payment in plan.payments {
            assert!(self.payments.insert(payment.id, payment).is_none(), "a payment is made once");
        }
        for id in &plan.refunded {
            let payment = self.payments.get_mut(id).expect("a payment");
            assert_eq!(payment.status, PaymentStatus::Done, "a payment is refunded once");
            payment.status = PaymentStatus::Cancelled;
        }
        for place in &plan.decided {
            let refusal = match &plan.outcomes[*place] {
                OrderOutcome::Done(_) => None,
                OrderOutcome::Rejected(refusal) => Some(refusal.clone()),
            };
            let before = self.shop.answered.insert(commands[*place].id, refusal);
            assert_eq!(before, None, "a command is decided once");
        }
        plan.outcomes
    }

    /// I5, I6 and I7 on the rows alone.
    fn check(&self) {
        for (place, initial) in STOCKS.into_iter().enumerate() {
            let id = product_id(place);
            let (sold, restored) = self.sold.get(&id).copied().unwrap_or_default();
            let stock = self.shop.products[&id].stock;
            assert!(stock >= 0 && stock == initial - sold + restored, "I5: product {place}");
        }
        for (place, initial) in BALANCES.into_iter().enumerate() {
            let balance = self.shop.accounts.get(&user_id(place)).map_or(0, |account| account.balance);
            let mut rows = self.ledger.iter().filter(|row| row.user == user_id(place));
            let sum: i64 = rows.clone().map(|row| row.amount).sum();
            assert!((0..=CAP).contains(&balance) && balance == initial + sum, "I6: user {place}");
            assert_eq!(rows.next_back().map_or(balance, |row| row.balance_after), balance, "I6: user {place}");
        }
        let mut live = BTreeSet::new();
        for order in self.shop.orders.values() {
            let total: i64 = order.items.iter().map(|item| item.unit_price * i64::from(item.quantity)).sum();
            assert_eq!((total, total - order.discount_amount), (order.total_amount, order.pay_amount), "I7: {order:?}");
            let alive =
                matches!(order.status, OrderStatus::DepositWait | OrderStatus::PayDone | OrderStatus::BuyConfirm);
            if let Some(coupon) = order.user_coupon_id.filter(|_| alive) {
                assert!(live.insert(coupon), "I7: a coupon is used by two live orders");
                assert_eq!(self.shop.coupons[&coupon].status, CouponStatus::Used);
            }
            let moved: i64 = self.ledger.iter().filter(|row| row.order == order.order_id).map(|row| row.amount).sum();
            let paid = matches!(order.status, OrderStatus::PayDone | OrderStatus::BuyConfirm);
            assert_eq!(moved, if paid { -order.pay_amount } else { 0 }, "I7: {order:?}");
        }
    }
}

fn wish() -> impl Strategy<Value = Wish> {
    let item = prop_oneof![8 => 0..3_usize, 1 => Just(STOPPED), 1 => Just(4)];
    let place = (prop::collection::vec((item, 1..5_u32), 1..4), prop::option::of(0..4_usize), any::<bool>())
        .prop_map(|(items, coupon, pay)| Wish::Place { items, coupon, pay });
    prop_oneof![
        3 => place,
        2 => (0..12_usize).prop_map(Wish::Pay),
        1 => (0..12_usize).prop_map(Wish::Confirm),
        2 => (0..12_usize).prop_map(Wish::Cancel),
        1 => (0..12_usize).prop_map(Wish::Expire),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// I5 to I8 and I12 for any commands, in any order, delivered any number of times, in any batches: outcomes and
    /// shop are those of the model.
    #[test]
    fn any_cut_into_batches_does_what_the_model_does_one_at_a_time(
        wishes in prop::collection::vec((0..3_usize, wish()), 1..40),
        deliveries in prop::collection::vec(any::<prop::sample::Index>(), 1..80),
        cuts in prop::collection::vec(1..9_usize, 1..30),
        overdue in prop::bool::weighted(0.2),
    ) {
        let told: Vec<Told> = wishes
            .into_iter()
            .enumerate()
            .map(|(number, (user, wish))| Told { number, user, wish })
            .collect();
        // Each once in order, with deliveries of any of them, again or early, in between.
        let again: Vec<Told> = deliveries.iter().map(|index| index.get(&told).clone()).collect();
        let mut delivered: Vec<Told> = Vec::new();
        for (place, one) in told.iter().enumerate() {
            delivered.push(one.clone());
            delivered.extend(again.iter().skip(place * 2).take(2).cloned());
        }
        let mut model = Model {
            overdue,
            stock: STOCKS,
            used: [false; 4],
            balance: BALANCES,
            orders: BTreeMap::new(),
            told: HashMap::new(),
        };
        let expected: Vec<Result<(), RejectCode>> = delivered.iter().map(|told| model.tell(told)).collect();

        let expiry = if overdue { TimeDelta::zero() } else { TimeDelta::minutes(30) };
        let rules = OrderRules { expiry, holding_cap: CAP };
        let commands: Vec<Command> = delivered.iter().map(Told::command).collect();
        let mut tables = Tables::new();
        let (mut outcomes, mut rest, mut cuts) = (Vec::new(), &commands[..], cuts.into_iter().cycle());
        while !rest.is_empty() {
            let (batch, after) = rest.split_at(cuts.next().unwrap_or(1).min(rest.len()));
            outcomes.extend(tables.execute(batch, &rules));
            tables.check();
            rest = after;
        }
        let outcomes: Vec<Result<(), RejectCode>> = outcomes
            .into_iter()
            .map(|outcome| match outcome {
                OrderOutcome::Done(_) => Ok(()),
                OrderOutcome::Rejected(refusal) => Err(refusal.code),
            })
            .collect();
        prop_assert_eq!(outcomes, expected);
        for (place, stock) in model.stock.into_iter().enumerate() {
            prop_assert_eq!(tables.shop.products[&product_id(place)].stock, stock);
        }
        for (place, balance) in model.balance.into_iter().enumerate() {
            let found = tables.shop.accounts.get(&user_id(place)).map_or(0, |account| account.balance);
            prop_assert_eq!(found, balance);
        }
        for (place, used) in model.used.into_iter().enumerate() {
            prop_assert_eq!(tables.shop.coupons[&coupon(place).0].status == CouponStatus::Used, used);
        }
        let statuses: BTreeMap<OrderId, OrderStatus> =
            tables.shop.orders.iter().map(|(id, order)| (*id, order.status)).collect();
        let expected: BTreeMap<OrderId, OrderStatus> =
            model.orders.iter().map(|(number, order)| (order_id(*number), order.status)).collect();
        prop_assert_eq!(statuses, expected);
    }
}

#[test]
fn an_order_of_more_money_than_can_be_counted_is_refused() {
    let mut tables = Tables::new();
    for place in [0, 1] {
        let product = tables.shop.products.get_mut(&product_id(place)).expect("a product");
        (product.price, product.stock) = (crate::domain::campaign::MAX_AMOUNT, i64::MAX);
    }
    let rules = OrderRules { expiry: TimeDelta::minutes(30), holding_cap: CAP };
    for items in [vec![(0, 10_000)], vec![(0, 1), (1, 1)]] {
        let wish = Wish::Place { items, coupon: None, pay: false };
        let command = Told { number: tables.shop.orders.len(), user: 1, wish }.command();
        let outcomes = tables.execute(&[command], &rules);
        assert!(
            matches!(&outcomes[..], [OrderOutcome::Rejected(refusal)] if refusal.code == RejectCode::ValidationFailed)
        );
    }
}
