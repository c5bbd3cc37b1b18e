//! Commands of orders, as tests send them.

use super::{FIRST, TestEnvironment};
use crate::{
    clock,
    domain::order::{Action, Command, Line},
    identifiers::{ClaimId, CommandId, PaymentId, ProductId},
    redis::{scripts, streams::OrderEntry},
};

/// A command of a user, sent now.
pub fn command(user: u64, action: Action) -> Command {
    Command { id: CommandId::generate(), user: user.try_into().expect("an id"), at: clock::now(), action, trace: None }
}

/// An order of one product, without a coupon and a payment.
pub fn place_order(user: u64, product_id: ProductId, quantity: u32) -> Command {
    let items = vec![Line { product_id, quantity }];
    command(user, Action::Place { items, coupon: None, payment: None })
}

/// The same order with a coupon.
#[must_use]
pub fn with_coupon(mut placing: Command, claim: ClaimId) -> Command {
    if let Action::Place { coupon, .. } = &mut placing.action {
        *coupon = Some(claim);
    }
    placing
}

/// The same order, paid at once.
#[must_use]
pub fn with_payment(mut placing: Command) -> Command {
    if let Action::Place { payment, .. } = &mut placing.action {
        *payment = Some(PaymentId::generate());
    }
    placing
}

/// Commands of the users who placed these orders.
pub fn cancel_all<'a>(orders: impl IntoIterator<Item = &'a Command>) -> Vec<Command> {
    let cancel = |placing: &Command| command(placing.user.get(), Action::Cancel { order: placing.order() });
    orders.into_iter().map(cancel).collect()
}

impl TestEnvironment {
    /// Appends a command to the stream of the first partition. No process waits for its outcome.
    pub async fn enqueue(&self, command: &Command) {
        let entry = OrderEntry { reply_channel: String::new(), request: "test".into(), command: command.clone() };
        let stream = self.redis.keys.order_stream(FIRST);
        scripts::enqueue(&self.redis, stream, 1_000, entry.fields().expect("fields")).await.expect("enqueued");
    }
}
