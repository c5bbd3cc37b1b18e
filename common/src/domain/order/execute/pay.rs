use super::{BatchExecutor, Decision, PointsMovement, reject, state_of, status_conflict};
use crate::{
    clock,
    domain::{
        facts::Facts,
        order::{Command, OrderStatus, Payment, PaymentStatus, RejectCode},
        points::LedgerType,
        ranking::business_day,
    },
    identifiers::{OrderId, PaymentId},
};

impl BatchExecutor<'_> {
    /// Pays an order with the user's points. Paying twice pays once. A payment that fails for lack of points is
    /// recorded.
    ///
    /// Source: 003 section 5, 004 payment.
    pub(super) fn pay(&mut self, command: &Command, id: OrderId) -> Decision<()> {
        let order = self.own_order(command, id)?;
        match order.status {
            OrderStatus::PayDone | OrderStatus::BuyConfirm => return Ok(()),
            // Compared with the time of the request: waiting in the stream does not make a payment late.
            OrderStatus::DepositWait if command.at < order.expires_at => {}
            OrderStatus::DepositWait => {
                let detail = format!("Order {id} was to be paid until {}.", clock::text(order.expires_at));
                let facts = Facts { expires_at: Some(order.expires_at), ..state_of(order) };
                return reject(RejectCode::OrderStateConflict, detail, facts);
            }
            OrderStatus::Cancelled | OrderStatus::Expired | OrderStatus::Rejected => return status_conflict(order),
        }
        let (payment, amount) = (PaymentId(command.id.0), order.pay_amount);
        if let Err(reason) = self.check_balance(command, amount) {
            let (user, status) = (command.user, PaymentStatus::Fail);
            let reject_reason = Some(reason.clone());
            self.plan.payments.push(Payment { id: payment, order: id, user, amount, status, reject_reason });
            return Err(reason);
        }
        self.complete_payment(command, id, payment);
        Ok(())
    }

    pub(super) fn check_balance(&self, command: &Command, amount: i64) -> Decision<()> {
        let account = self.account(command);
        if account.pay(amount).is_none() {
            let balance = account.balance;
            let detail = format!("The balance is {balance}; {amount} are to be paid.");
            let facts = Facts { balance: Some(balance), required: Some(amount), ..Facts::default() };
            return reject(RejectCode::PointsInsufficient, detail, facts);
        }
        Ok(())
    }

    /// Pays an order whose amount [`Self::check_balance`] found.
    pub(super) fn complete_payment(&mut self, command: &Command, id: OrderId, payment: PaymentId) {
        let Some(mut order) = self.state.orders.remove(&id) else { return };
        let amount = order.pay_amount;
        let movement = PointsMovement { kind: LedgerType::Payment, amount: -amount, order: id, payment };
        self.move_points(command, movement);
        let (user, status) = (command.user, PaymentStatus::Done);
        self.plan.payments.push(Payment { id: payment, order: id, user, amount, status, reject_reason: None });
        (order.payment_id, order.paid_at) = (Some(payment), Some(self.now));
        order.paid_on = Some(business_day(self.now, self.rules.time_zone));
        self.transition(order, OrderStatus::PayDone, "order.paid");
    }
}
