use super::{BatchExecutor, Decision, PointsMovement, reject, status_conflict};
use crate::{
    domain::{
        claim::CouponExpired,
        facts::Facts,
        order::{Command, CouponStatus, Order, OrderStatus, PaymentStatus, RejectCode},
        points::LedgerType,
        ranking::business_day,
    },
    identifiers::{OrderId, PaymentId},
};

impl BatchExecutor<'_> {
    /// Cancels an order that is not confirmed: stock, coupon and points are restored. Cancelling twice cancels once.
    ///
    /// Source: 001 section 2.
    pub(super) fn cancel(&mut self, command: &Command, id: OrderId) -> Decision<()> {
        let order = self.own_order(command, id)?;
        match order.status {
            OrderStatus::Cancelled => return Ok(()),
            OrderStatus::DepositWait | OrderStatus::PayDone => {}
            OrderStatus::BuyConfirm | OrderStatus::Expired | OrderStatus::Rejected => return status_conflict(order),
        }
        let mut order = order.clone();
        // The refund can be refused, so it comes before any change.
        if let Some(payment) = order.payment_id {
            self.refund(command, &order, payment)?;
        }
        self.restore(&order);
        order.ended_at = Some(self.now);
        // An order that an older version paid may have no day yet.
        let day_of_payment = order.paid_at.map(|at| business_day(at, self.rules.time_zone));
        order.paid_on = order.paid_on.or(day_of_payment);
        self.transition(order, OrderStatus::Cancelled, "order.cancelled");
        Ok(())
    }

    fn refund(&mut self, command: &Command, order: &Order, payment: PaymentId) -> Decision<()> {
        let (amount, cap) = (order.pay_amount, self.rules.holding_cap);
        let account = self.account(command);
        if account.refund(amount, cap).is_none() {
            let detail = format!("At most {cap} points can be held; the refund of {amount} would exceed that.");
            let held = Some(account.balance + account.pending);
            let facts = Facts { held, limit: Some(cap), requested: Some(amount), ..Facts::default() };
            return reject(RejectCode::PointsCapExceeded, detail, facts);
        }
        let movement = PointsMovement { kind: LedgerType::Refund, amount, order: order.order_id, payment };
        self.move_points(command, movement);
        // A payment of this batch is not in the table yet: it is inserted as cancelled.
        match self.plan.payments.iter_mut().find(|inserted| inserted.id == payment) {
            Some(inserted) => inserted.status = PaymentStatus::Cancelled,
            None => drop(self.plan.refunded.insert(payment)),
        }
        Ok(())
    }

    /// Puts the units of an ended order back in stock, and gives the coupon back. A coupon whose validity is over is
    /// expired then.
    pub(super) fn restore(&mut self, order: &Order) {
        for item in &order.items {
            let quantity = i64::from(item.quantity);
            if let Some(product) = self.state.products.get_mut(&item.product_id) {
                product.stock += quantity;
            }
            self.plan.stock.entry(item.product_id).or_default().restored += quantity;
        }
        if let Some(id) = order.user_coupon_id
            && let Some(coupon) = self.state.coupons.get_mut(&id)
        {
            let is_valid = self.now < coupon.valid_until;
            coupon.status = if is_valid { CouponStatus::Issued } else { CouponStatus::Expired };
            coupon.used_at = None;
            self.plan.coupons.insert(id);
            if !is_valid {
                let (coupon_id, user_id) = (coupon.campaign, coupon.user);
                let expired = CouponExpired { user_coupon_id: id, coupon_id, user_id, expired_at: self.now };
                self.plan.events.push(expired.event());
            }
        }
    }
}
