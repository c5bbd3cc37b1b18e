use super::{BatchExecutor, Decision, reject};
use crate::{
    domain::{
        campaign::MAX_AMOUNT,
        facts::{CouponRefusal, Facts},
        order::{
            Command, CouponStatus, IssuedCoupon, Line, Order, OrderItem, OrderRejectReason, OrderRules, OrderStatus,
            RejectCode, UnpaidOrders,
        },
        product::ProductStatus,
    },
    identifiers::{ClaimId, OrderId, PaymentId},
};

/// The items of an order at the prices of its placement. Amounts are won.
struct Pricing {
    items: Vec<OrderItem>,
    total: i64,
    discount: i64,
}

impl BatchExecutor<'_> {
    /// Checks coupon, products, stock, amount, and then with `payment` the points, without it what the user's unpaid
    /// orders hold. In this order.
    ///
    /// Source: 000 section 4, 001 section 1, 003 section 4.
    pub(super) fn place(
        &mut self,
        command: &Command,
        lines: &[Line],
        coupon: Option<ClaimId>,
        payment: Option<PaymentId>,
    ) -> Decision<()> {
        match self.price(command, lines, coupon, payment.is_some()) {
            Err(reason) => {
                self.insert_rejected(command, coupon, &reason);
                Err(reason)
            }
            Ok(Pricing { items, total, discount }) => {
                let order = Order {
                    items,
                    total_amount: total,
                    discount_amount: discount,
                    pay_amount: total - discount,
                    ..self.empty_order(command, coupon)
                };
                let id = order.order_id;
                self.reserve(&order);
                // A user without unpaid orders has no entry yet, and the next command of the batch counts this one.
                self.state.unpaid.entry(order.user_id).or_default();
                self.count_unpaid(&order, 1);
                self.record_event("order.created", &order);
                self.plan.placed.insert(id);
                self.state.orders.insert(id, order);
                if let Some(payment) = payment {
                    // The price was compared with the balance before anything was taken.
                    self.complete_payment(command, id, payment);
                }
                Ok(())
            }
        }
    }

    fn empty_order(&self, command: &Command, coupon: Option<ClaimId>) -> Order {
        Order {
            order_id: OrderId(command.id.0),
            user_id: command.user,
            status: OrderStatus::DepositWait,
            code: None,
            detail: None,
            facts: None,
            items: Vec::new(),
            total_amount: 0,
            discount_amount: 0,
            pay_amount: 0,
            user_coupon_id: coupon,
            payment_id: None,
            created_at: self.now,
            expires_at: self.now + self.rules.expiry,
            paid_at: None,
            paid_on: None,
            confirmed_at: None,
            ended_at: None,
        }
    }

    /// The durable outcome of a rejected placement is an order without items.
    pub(super) fn insert_rejected(&mut self, command: &Command, coupon: Option<ClaimId>, reason: &OrderRejectReason) {
        let order = Order {
            status: OrderStatus::Rejected,
            code: Some(reason.code),
            detail: Some(reason.detail.clone()),
            facts: (!reason.facts.is_empty()).then(|| reason.facts.clone()),
            ..self.empty_order(command, coupon)
        };
        self.plan.placed.insert(order.order_id);
        self.state.orders.insert(order.order_id, order);
    }

    fn price(&self, command: &Command, lines: &[Line], coupon: Option<ClaimId>, pay: bool) -> Decision<Pricing> {
        let coupon = coupon.map(|id| Ok((id, self.usable_coupon(command, id)?))).transpose()?;
        let mut items = Vec::with_capacity(lines.len());
        let mut total = 0;
        for line in lines {
            let item = self.price_line(*line, pay)?;
            total = match item.amount().and_then(|amount| amount.checked_add(total)) {
                Some(total) if total <= MAX_AMOUNT => total,
                _ => {
                    let detail = format!("Expected a total of at most {MAX_AMOUNT} won.");
                    return reject(RejectCode::ValidationFailed, detail, Facts::default());
                }
            };
            items.push(item);
        }
        let discount = coupon.map_or(Ok(0), |(id, coupon)| discount_of(id, coupon, total))?;
        if pay {
            self.check_balance(command, total - discount)?;
        } else {
            self.check_unpaid(command, &items)?;
        }
        Ok(Pricing { items, total, discount })
    }

    /// Unpaid orders hold stock. Without a bound, one user could hold all of it, again at each expiry.
    fn check_unpaid(&self, command: &Command, items: &[OrderItem]) -> Decision<()> {
        let none = UnpaidOrders::default();
        let UnpaidOrders { orders, units } = self.state.unpaid.get(&command.user).unwrap_or(&none);
        let OrderRules { unpaid_orders_limit: orders_limit, unpaid_units_limit: units_limit, .. } = *self.rules;
        if orders_limit > 0 && *orders >= i64::from(orders_limit) {
            let detail = format!("The user has {orders} unpaid orders; at most {orders_limit} are allowed at once.");
            let facts = Facts { held: Some(*orders), limit: Some(i64::from(orders_limit)), ..Facts::default() };
            return reject(RejectCode::UnpaidOrdersLimitExceeded, detail, facts);
        }
        for OrderItem { product_id, quantity, .. } in items {
            let held = units.get(product_id).copied().unwrap_or(0);
            if units_limit > 0 && held + i64::from(*quantity) > i64::from(units_limit) {
                let detail = format!(
                    "At most {units_limit} units of product {product_id} can be in a user's unpaid orders; {held} are, \
                     {quantity} were ordered."
                );
                let facts = Facts {
                    product_id: Some(*product_id),
                    held: Some(held),
                    requested: Some(i64::from(*quantity)),
                    limit: Some(i64::from(units_limit)),
                    ..Facts::default()
                };
                return reject(RejectCode::UnpaidUnitsLimitExceeded, detail, facts);
            }
        }
        Ok(())
    }

    fn price_line(&self, Line { product_id, quantity }: Line, pay: bool) -> Decision<OrderItem> {
        let facts = Facts { product_id: Some(product_id), ..Facts::default() };
        let Some(product) = self.state.products.get(&product_id) else {
            return reject(RejectCode::ProductNotFound, format!("There is no product {product_id}."), facts);
        };
        if product.status != ProductStatus::Selling {
            return reject(RejectCode::ProductNotSelling, format!("Product {product_id} is not for sale now."), facts);
        }
        if product.payment_required && !pay {
            let detail = format!("An order with product {product_id} has to be paid in the same step, by 'pay': true.");
            return reject(RejectCode::PaymentRequired, detail, facts);
        }
        if product.stock < i64::from(quantity) {
            let stock = product.stock;
            let detail = format!("Product {product_id} has {stock} in stock; {quantity} were ordered.");
            let facts = Facts { requested: Some(i64::from(quantity)), available: Some(stock), ..facts };
            return reject(RejectCode::StockInsufficient, detail, facts);
        }
        Ok(OrderItem { product_id, name: product.name.clone(), unit_price: product.price, quantity })
    }

    /// The coupon, when the user can use it now.
    fn usable_coupon(&self, command: &Command, id: ClaimId) -> Decision<&IssuedCoupon> {
        // The owner of another user's coupon is not disclosed, nor that the coupon exists.
        let coupon = self.state.coupons.get(&id).filter(|coupon| coupon.user == command.user);
        let coupon = coupon.ok_or_else(|| not_usable(id, CouponRefusal::NotOwned, "is not the user's"))?;
        match coupon.status {
            // Compared with the time of the request: a coupon does not end while its order waits in the stream.
            CouponStatus::Issued if command.at < coupon.valid_until => Ok(coupon),
            CouponStatus::Issued | CouponStatus::Expired => {
                Err(not_usable(id, CouponRefusal::Expired, "is no longer valid"))
            }
            CouponStatus::Used => Err(not_usable(id, CouponRefusal::Used, "is used already")),
            CouponStatus::Revoked => Err(not_usable(id, CouponRefusal::Revoked, "was taken back")),
        }
    }

    /// Takes the order's units out of stock, and marks its coupon as used.
    fn reserve(&mut self, order: &Order) {
        for item in &order.items {
            let quantity = i64::from(item.quantity);
            if let Some(product) = self.state.products.get_mut(&item.product_id) {
                product.stock -= quantity;
            }
            self.plan.stock.entry(item.product_id).or_default().sold += quantity;
        }
        if let Some(id) = order.user_coupon_id
            && let Some(coupon) = self.state.coupons.get_mut(&id)
        {
            (coupon.status, coupon.used_at) = (CouponStatus::Used, Some(self.now));
            self.plan.coupons.insert(id);
        }
    }
}

fn not_usable(id: ClaimId, reason: CouponRefusal, why: &str) -> OrderRejectReason {
    let facts = Facts { user_coupon_id: Some(id), reason: Some(reason), ..Facts::default() };
    OrderRejectReason::new(RejectCode::CouponNotUsable, format!("Coupon {id} {why}.")).with(facts)
}

/// What a usable coupon takes off an order of this total.
fn discount_of(id: ClaimId, coupon: &IssuedCoupon, total: i64) -> Decision<i64> {
    let refuse = |reason, detail| {
        let facts = Facts {
            user_coupon_id: Some(id),
            reason: Some(reason),
            minimum_order_amount: Some(coupon.minimum_order_amount),
            total_amount: Some(total),
            ..Facts::default()
        };
        reject(RejectCode::CouponNotUsable, detail, facts)
    };
    let minimum = coupon.minimum_order_amount;
    if total < minimum {
        let detail = format!("The coupon can be used from {minimum} won on; the order comes to {total}.");
        return refuse(CouponRefusal::MinimumNotReached, detail);
    }
    match coupon.discount.amount_for(total) {
        // A small percentage of a small total rounds down to nothing. The coupon would be spent for it.
        0 => refuse(CouponRefusal::NoDiscount, format!("The coupon takes nothing off an order of {total} won.")),
        discount => Ok(discount),
    }
}
