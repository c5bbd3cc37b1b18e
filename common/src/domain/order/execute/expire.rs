use super::{BatchExecutor, Decision};
use crate::{
    domain::order::{Command, OrderStatus},
    identifiers::OrderId,
};

impl BatchExecutor<'_> {
    /// Ends an order that was not paid in time. Any other order stays unchanged: it may have been paid or cancelled
    /// since the expiry job listed it.
    pub(super) fn expire(&mut self, command: &Command, id: OrderId) -> Decision<()> {
        let order = self.own_order(command, id)?;
        if order.status == OrderStatus::DepositWait && order.expires_at <= self.now {
            let mut order = order.clone();
            self.restore(&order);
            order.ended_at = Some(self.now);
            self.transition(order, OrderStatus::Expired, "order.expired");
        }
        Ok(())
    }
}
