use chrono::TimeDelta;

use super::{
    Action, Command, CommandResult, CouponStatus, LedgerRow, Line, LockedState, Order, OrderItem, OrderOutcome,
    OrderPlan, OrderRejectReason, OrderStatus, Payment, PaymentStatus, RejectCode,
};
use crate::{
    clock::Timestamp,
    domain::{
        campaign::MAX_AMOUNT,
        event::{Aggregate, Event},
        points::{Account, LedgerType},
        product::ProductStatus,
    },
    identifiers::{ClaimId, OrderId, PaymentId},
};

/// What a shop can set of these rules.
#[derive(Clone, Copy, Debug)]
pub struct OrderRules {
    /// How long an order may stay unpaid.
    pub expiry: TimeDelta,
    /// The most points that a user may hold, in won.
    pub holding_cap: i64,
}

/// Decides the commands, one after the other, on the rows that they need ([`super::RequiredRows`]). The rows become what they
/// are afterwards; the plan says which of them to write. A command that was decided before gets its outcome again.
pub fn execute(shop: &mut LockedState, commands: &[Command], rules: &OrderRules, now: Timestamp) -> OrderPlan {
    let mut executor = BatchExecutor { shop, plan: OrderPlan::default(), rules, now };
    for (place, command) in commands.iter().enumerate() {
        let outcome = match executor.answered(command) {
            Some(outcome) => outcome,
            None => executor.decide(place, command),
        };
        executor.plan.outcomes.push(outcome);
    }
    executor.plan
}

/// Refuses a command that cannot be carried out for a fault of its own, so that it has an outcome like any other; one
/// that was decided before keeps it.
pub fn fail_permanently(shop: &mut LockedState, command: &Command, rules: &OrderRules, now: Timestamp) -> OrderPlan {
    let mut executor = BatchExecutor { shop, plan: OrderPlan::default(), rules, now };
    let outcome = executor.answered(command).unwrap_or_else(|| {
        let detail = "It could not be carried out, by a defect; nothing was changed.";
        let refusal = OrderRejectReason::new(RejectCode::CommandFailed, detail);
        if let Action::Place { coupon, .. } = command.action {
            executor.reject(command, coupon, &refusal);
        } else if command.has_own_outcome() {
            executor.plan.decided.push(0);
        }
        OrderOutcome::Rejected(refusal)
    });
    executor.plan.outcomes.push(outcome);
    executor.plan
}

type Decision<T> = Result<T, OrderRejectReason>;

fn refuse<T>(code: RejectCode, detail: String) -> Decision<T> {
    Err(OrderRejectReason::new(code, detail))
}

/// One batch on its way.
struct BatchExecutor<'s> {
    shop: &'s mut LockedState,
    plan: OrderPlan,
    rules: &'s OrderRules,
    now: Timestamp,
}

/// What an order comes to, once everything it asks for was found to be there.
struct Quote {
    items: Vec<OrderItem>,
    total: i64,
    discount: i64,
}

impl BatchExecutor<'_> {
    /// The outcome that a command has already.
    fn answered(&self, command: &Command) -> Option<OrderOutcome> {
        let refused = match command.action {
            Action::Place { .. } => {
                let order = self.shop.orders.get(&command.order())?;
                order.code.map(|code| OrderRejectReason::new(code, order.detail.clone().unwrap_or_default()))
            }
            Action::Expire { .. } => return None,
            _ => self.shop.answered.get(&command.id)?.clone(),
        };
        Some(refused.map_or_else(|| self.done(command), OrderOutcome::Rejected))
    }

    fn decide(&mut self, place: usize, command: &Command) -> OrderOutcome {
        let decision = match &command.action {
            Action::Place { items, coupon, payment } => self.place(command, items, *coupon, *payment),
            Action::Pay { order } => self.pay(command, *order),
            Action::Confirm { order } => self.confirm(command, *order),
            Action::Cancel { order } => self.cancel(command, *order),
            Action::Expire { order } => self.expire(command, *order),
        };
        if command.has_own_outcome() {
            self.plan.decided.push(place);
            self.shop.answered.insert(command.id, decision.clone().err());
        }
        decision.map_or_else(OrderOutcome::Rejected, |()| self.done(command))
    }

    /// The outcome of a command that was carried out: the order as it is now.
    fn done(&self, command: &Command) -> OrderOutcome {
        let of_points = match command.action {
            Action::Place { payment, .. } => payment.is_some(),
            Action::Pay { .. } | Action::Cancel { .. } => true,
            Action::Confirm { .. } | Action::Expire { .. } => false,
        };
        match self.shop.orders.get(&command.order()) {
            Some(order) => {
                let balance = of_points.then(|| self.account(command).balance);
                OrderOutcome::Done(Box::new(CommandResult { order: order.clone(), balance }))
            }
            None => OrderOutcome::Rejected(not_found(command.order())),
        }
    }

    fn account(&self, command: &Command) -> Account {
        self.shop.accounts.get(&command.user).copied().unwrap_or_default()
    }

    /// 000 section 4, 001 section 1, 003 section 4: coupon, products and stock, amount, and with `payment` the points.
    fn place(
        &mut self,
        command: &Command,
        lines: &[Line],
        coupon: Option<ClaimId>,
        payment: Option<PaymentId>,
    ) -> Decision<()> {
        let id = OrderId(command.id.0);
        let quote = self.quote(command, lines, coupon);
        let quote = quote.and_then(|quote| match payment {
            Some(_) => self.can_pay(command, quote.total - quote.discount).map(|()| quote),
            None => Ok(quote),
        });
        match quote {
            Err(refusal) => {
                self.reject(command, coupon, &refusal);
                Err(refusal)
            }
            Ok(Quote { items, total, discount }) => {
                let mut order = self.blank(command, coupon);
                (order.total_amount, order.discount_amount, order.pay_amount) = (total, discount, total - discount);
                order.items = items;
                self.take(&order);
                self.tell("order.created", &order);
                self.plan.placed.insert(id);
                self.shop.orders.insert(id, order);
                if let Some(payment) = payment {
                    self.settle(command, id, payment);
                }
                Ok(())
            }
        }
    }

    /// An order of nothing.
    fn blank(&self, command: &Command, coupon: Option<ClaimId>) -> Order {
        Order {
            order_id: OrderId(command.id.0),
            user_id: command.user,
            status: OrderStatus::DepositWait,
            code: None,
            detail: None,
            items: Vec::new(),
            total_amount: 0,
            discount_amount: 0,
            pay_amount: 0,
            user_coupon_id: coupon,
            payment_id: None,
            created_at: self.now,
            expires_at: self.now + self.rules.expiry,
            paid_at: None,
            confirmed_at: None,
            ended_at: None,
        }
    }

    /// The durable outcome of a refused order is an order.
    fn reject(&mut self, command: &Command, coupon: Option<ClaimId>, refusal: &OrderRejectReason) {
        let (code, detail) = (Some(refusal.code), Some(refusal.detail.clone()));
        let order = Order { status: OrderStatus::Rejected, code, detail, ..self.blank(command, coupon) };
        self.plan.placed.insert(order.order_id);
        self.shop.orders.insert(order.order_id, order);
    }

    /// What an order would come to; refuses what it asks for and cannot have.
    fn quote(&self, command: &Command, lines: &[Line], coupon: Option<ClaimId>) -> Decision<Quote> {
        let usable = coupon.map(|coupon| self.usable(command, coupon)).transpose()?;
        let mut items = Vec::with_capacity(lines.len());
        let mut total = 0_i64;
        for Line { product_id, quantity } in lines.iter().copied() {
            let Some(product) = self.shop.products.get(&product_id) else {
                return refuse(RejectCode::ProductNotFound, format!("There is no product {product_id}."));
            };
            if product.status != ProductStatus::Selling {
                return refuse(RejectCode::ProductNotSelling, format!("Product {product_id} is not for sale now."));
            }
            if product.stock < i64::from(quantity) {
                let stock = product.stock;
                let detail = format!("Product {product_id} has {stock} in stock; {quantity} were ordered.");
                return refuse(RejectCode::StockInsufficient, detail);
            }
            let amount = product.price.checked_mul(i64::from(quantity));
            total = match amount.and_then(|amount| total.checked_add(amount)) {
                Some(total) if total <= MAX_AMOUNT => total,
                _ => {
                    let detail = format!("Expected a total of at most {MAX_AMOUNT} won.");
                    return refuse(RejectCode::ValidationFailed, detail);
                }
            };
            items.push(OrderItem { product_id, name: product.name.clone(), unit_price: product.price, quantity });
        }
        let discount = match usable {
            Some((discount, minimum)) if total >= minimum => discount.amount_off(total),
            Some((_, minimum)) => {
                let detail = format!("The coupon can be used from {minimum} won on; the order comes to {total}.");
                return refuse(RejectCode::CouponNotUsable, detail);
            }
            None => 0,
        };
        Ok(Quote { items, total, discount })
    }

    /// The discount of a coupon that the user can use now, and the smallest order total for it.
    fn usable(&self, command: &Command, id: ClaimId) -> Decision<(crate::domain::campaign::Discount, i64)> {
        let not_usable = |why: &str| OrderRejectReason::new(RejectCode::CouponNotUsable, format!("Coupon {id} {why}."));
        // Whose it is else is nobody's business.
        let coupon = self.shop.coupons.get(&id).filter(|coupon| coupon.user == command.user);
        let coupon = coupon.ok_or_else(|| not_usable("is not the user's"))?;
        match coupon.status {
            CouponStatus::Issued if command.at < coupon.valid_until => {
                Ok((coupon.discount, coupon.minimum_order_amount))
            }
            CouponStatus::Issued | CouponStatus::Expired => Err(not_usable("is no longer valid")),
            CouponStatus::Used => Err(not_usable("is used already")),
            CouponStatus::Revoked => Err(not_usable("was taken back")),
        }
    }

    fn can_pay(&self, command: &Command, amount: i64) -> Decision<()> {
        let account = self.account(command);
        if account.pay(amount).is_none() {
            let balance = account.balance;
            let detail = format!("The balance is {balance}; {amount} are to be paid.");
            return refuse(RejectCode::PointsInsufficient, detail);
        }
        Ok(())
    }

    /// Takes from the shelves, and the coupon, what an order is for.
    fn take(&mut self, order: &Order) {
        for item in &order.items {
            let quantity = i64::from(item.quantity);
            if let Some(product) = self.shop.products.get_mut(&item.product_id) {
                product.stock -= quantity;
            }
            self.plan.stock.entry(item.product_id).or_default().0 += quantity;
        }
        if let Some(id) = order.user_coupon_id
            && let Some(coupon) = self.shop.coupons.get_mut(&id)
        {
            (coupon.status, coupon.used_at) = (CouponStatus::Used, Some(self.now));
            self.plan.coupons.insert(id);
        }
    }

    /// Puts them back.
    fn put_back(&mut self, order: &Order) {
        for item in &order.items {
            let quantity = i64::from(item.quantity);
            if let Some(product) = self.shop.products.get_mut(&item.product_id) {
                product.stock += quantity;
            }
            self.plan.stock.entry(item.product_id).or_default().1 += quantity;
        }
        if let Some(id) = order.user_coupon_id
            && let Some(coupon) = self.shop.coupons.get_mut(&id)
        {
            let valid = self.now < coupon.valid_until;
            coupon.status = if valid { CouponStatus::Issued } else { CouponStatus::Expired };
            coupon.used_at = None;
            self.plan.coupons.insert(id);
        }
    }

    /// 003 section 5, 004 payment: paying twice pays once.
    fn pay(&mut self, command: &Command, id: OrderId) -> Decision<()> {
        let order = self.order(command, id)?;
        match order.status {
            OrderStatus::PayDone | OrderStatus::BuyConfirm => return Ok(()),
            OrderStatus::DepositWait if command.at < order.expires_at => {}
            OrderStatus::DepositWait => {
                let detail = format!("Order {id} was to be paid until {}.", order.expires_at);
                return refuse(RejectCode::OrderStateConflict, detail);
            }
            status => return conflict(id, status),
        }
        let payment = PaymentId(command.id.0);
        if let Err(refusal) = self.can_pay(command, order.pay_amount) {
            self.plan.payments.push(Payment {
                id: payment,
                order: id,
                user: command.user,
                amount: order.pay_amount,
                status: PaymentStatus::Fail,
                refusal: Some(refusal.clone()),
            });
            return Err(refusal);
        }
        self.settle(command, id, payment);
        Ok(())
    }

    /// Pays an order whose amount is there.
    fn settle(&mut self, command: &Command, id: OrderId, payment: PaymentId) {
        let Some(mut order) = self.shop.orders.remove(&id) else { return };
        let amount = order.pay_amount;
        self.move_points(command, -amount, (LedgerType::Payment, id, payment));
        let done = PaymentStatus::Done;
        self.plan.payments.push(Payment {
            id: payment,
            order: id,
            user: command.user,
            amount,
            status: done,
            refusal: None,
        });
        (order.payment_id, order.paid_at) = (Some(payment), Some(self.now));
        self.enter(order, OrderStatus::PayDone, "order.paid");
    }

    fn move_points(
        &mut self,
        command: &Command,
        amount: i64,
        (kind, order, payment): (LedgerType, OrderId, PaymentId),
    ) {
        if amount == 0 {
            return;
        }
        let account = self.shop.accounts.entry(command.user).or_default();
        account.balance += amount;
        let balance_after = account.balance;
        self.plan.accounts.insert(command.user);
        self.plan.ledger.push(LedgerRow { user: command.user, kind, amount, balance_after, payment, order });
    }

    /// 004: the purchase is confirmed; confirming twice confirms once.
    fn confirm(&mut self, command: &Command, id: OrderId) -> Decision<()> {
        let order = self.order(command, id)?;
        match order.status {
            OrderStatus::BuyConfirm => Ok(()),
            OrderStatus::PayDone => {
                let mut order = order.clone();
                order.confirmed_at = Some(self.now);
                self.enter(order, OrderStatus::BuyConfirm, "order.confirmed");
                Ok(())
            }
            status => conflict(id, status),
        }
    }

    /// 001 section 2: stock, coupon and money go back; cancelling twice cancels once.
    fn cancel(&mut self, command: &Command, id: OrderId) -> Decision<()> {
        let order = self.order(command, id)?;
        match order.status {
            OrderStatus::Cancelled => return Ok(()),
            OrderStatus::DepositWait | OrderStatus::PayDone => {}
            status => return conflict(id, status),
        }
        let mut order = order.clone();
        if let Some(payment) = order.payment_id {
            let (amount, cap) = (order.pay_amount, self.rules.holding_cap);
            if self.account(command).refund(amount, cap).is_none() {
                let detail = format!("At most {cap} points can be held; the refund of {amount} would exceed that.");
                return refuse(RejectCode::PointsCapExceeded, detail);
            }
            self.move_points(command, amount, (LedgerType::Refund, id, payment));
            match self.plan.payments.iter_mut().find(|made| made.id == payment) {
                Some(made) => made.status = PaymentStatus::Cancelled,
                None => drop(self.plan.refunded.insert(payment)),
            }
        }
        self.put_back(&order);
        order.ended_at = Some(self.now);
        self.enter(order, OrderStatus::Cancelled, "order.cancelled");
        Ok(())
    }

    /// An order that was not paid in time ends; any other is left as it is.
    fn expire(&mut self, command: &Command, id: OrderId) -> Decision<()> {
        let order = self.order(command, id)?;
        if order.status == OrderStatus::DepositWait && order.expires_at <= self.now {
            let mut order = order.clone();
            self.put_back(&order);
            order.ended_at = Some(self.now);
            self.enter(order, OrderStatus::Expired, "order.expired");
        }
        Ok(())
    }

    /// The user's own order.
    fn order(&self, command: &Command, id: OrderId) -> Decision<&Order> {
        let order = self.shop.orders.get(&id).filter(|order| order.user_id == command.user);
        order.ok_or_else(|| not_found(id))
    }

    /// The order is in another status from now on, and that is told.
    fn enter(&mut self, mut order: Order, status: OrderStatus, event: &'static str) {
        debug_assert!(order.status.may_become(status), "{:?} -> {status:?}", order.status);
        order.status = status;
        self.tell(event, &order);
        if !self.plan.placed.contains(&order.order_id) {
            self.plan.changed.insert(order.order_id);
        }
        self.shop.orders.insert(order.order_id, order);
    }

    fn tell(&mut self, kind: &'static str, order: &Order) {
        self.plan.events.push(Event::new(Aggregate::Order(order.order_id), kind, order));
    }
}

fn not_found(id: OrderId) -> OrderRejectReason {
    OrderRejectReason::new(RejectCode::OrderNotFound, format!("The user has no order {id}."))
}

fn conflict<T>(id: OrderId, status: OrderStatus) -> Decision<T> {
    refuse(RejectCode::OrderStateConflict, format!("Order {id} is {}; that can no longer be done.", status.into_str()))
}
