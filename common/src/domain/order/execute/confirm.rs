use super::{BatchExecutor, Decision, reject, state_of, status_conflict};
use crate::{
    domain::order::{Command, OrderStatus, RejectCode},
    identifiers::OrderId,
};

impl BatchExecutor<'_> {
    /// Confirms the purchase of a paid order. Confirming twice confirms once.
    ///
    /// Source: 004.
    pub(super) fn confirm(&mut self, command: &Command, id: OrderId) -> Decision<()> {
        let order = self.own_order(command, id)?;
        match order.status {
            OrderStatus::BuyConfirm => Ok(()),
            OrderStatus::PayDone => {
                let mut order = order.clone();
                order.confirmed_at = Some(self.now);
                self.transition(order, OrderStatus::BuyConfirm, "order.confirmed");
                Ok(())
            }
            OrderStatus::DepositWait => {
                let detail = format!("Order {id} is DEPOSIT_WAIT; it must be paid first.");
                reject(RejectCode::OrderStateConflict, detail, state_of(order))
            }
            OrderStatus::Cancelled | OrderStatus::Expired | OrderStatus::Rejected => status_conflict(order),
        }
    }
}
