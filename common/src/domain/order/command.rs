use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use strum::{EnumDiscriminants, EnumString, IntoStaticStr, VariantArray};
use utoipa::ToSchema;

use super::Order;
use crate::{
    clock::Timestamp,
    domain::{
        FieldError,
        trace_context::{self, TraceContext},
    },
    identifiers::{ClaimId, CommandId, OrderId, PaymentId, ProductId, UserId},
};

/// The most products of one order.
pub const MAX_LINES: usize = 100;
/// The most units of one product in one order.
pub const MAX_QUANTITY: u32 = 10_000;

/// So many units of a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Line {
    /// Which product.
    pub product_id: ProductId,
    /// How many units, 1 to 10,000; of all lines of that product together.
    #[schema(minimum = 1, maximum = 10_000)]
    pub quantity: u32,
}

/// The invalid fields of lines that are not merged yet.
pub fn line_errors(lines: &[Line]) -> Vec<FieldError> {
    // Without a look at each line: there may be thousands.
    if !(1..=MAX_LINES).contains(&lines.len()) {
        let message = format!("expected 1 to {MAX_LINES} items, got {}", lines.len());
        return vec![FieldError::new("items", message)];
    }
    let mut sums: BTreeMap<ProductId, u64> = BTreeMap::new();
    let mut errors = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        let sum = sums.entry(line.product_id).or_default();
        *sum += u64::from(line.quantity);
        if line.quantity == 0 || *sum > u64::from(MAX_QUANTITY) {
            let message = format!("expected 1 to {MAX_QUANTITY} of product {} in all", line.product_id);
            errors.push(FieldError::new(format!("items[{index}].quantity"), message));
        }
    }
    errors
}

/// One line for each product, in the order of their ids.
pub fn merge_lines(lines: &[Line]) -> Vec<Line> {
    let mut sums: BTreeMap<ProductId, u32> = BTreeMap::new();
    for line in lines {
        let sum = sums.entry(line.product_id).or_default();
        *sum = sum.saturating_add(line.quantity);
    }
    sums.into_iter().map(|(product_id, quantity)| Line { product_id, quantity }).collect()
}

/// What a command asks for. The entry of a stream holds it as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, EnumDiscriminants)]
#[serde(tag = "do", rename_all = "camelCase")]
#[strum_discriminants(
    name(CommandKind),
    doc = "The kind of action of a command, as the database and Redis spell it.",
    derive(EnumString, IntoStaticStr, VariantArray),
    strum(serialize_all = "UPPERCASE", const_into_str)
)]
pub enum Action {
    /// Place an order. Its id is the command's.
    Place {
        /// Merged: each product once.
        items: Vec<Line>,
        coupon: Option<ClaimId>,
        /// Pay the order under this id in the same step; if the payment fails, the order is rejected.
        payment: Option<PaymentId>,
    },
    /// Pay an order with points. The payment's id is the command's.
    Pay {
        order: OrderId,
    },
    Confirm {
        order: OrderId,
    },
    Cancel {
        order: OrderId,
    },
    Expire {
        order: OrderId,
    },
}

/// A change to an order, as the stream carries it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// The same at every delivery.
    pub id: CommandId,
    pub user: UserId,
    /// When the API accepted it. Deadlines are compared with this time, not with the time of execution.
    #[serde(serialize_with = "crate::clock::serialize")]
    pub at: Timestamp,
    pub action: Action,
    /// The request that it comes from, when that is sampled.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "trace_context::lenient")]
    pub trace: Option<TraceContext>,
}

impl Command {
    /// The order that the command places or changes.
    pub fn order(&self) -> OrderId {
        match self.action {
            Action::Place { .. } => OrderId(self.id.0),
            Action::Pay { order } | Action::Confirm { order } | Action::Cancel { order } | Action::Expire { order } => {
                order
            }
        }
    }

    /// How many order lines the command itself carries; at least 1. The size of a batch is limited by their sum.
    pub fn lines(&self) -> usize {
        if let Action::Place { items, .. } = &self.action { items.len() } else { 1 }
    }

    pub fn kind(&self) -> CommandKind {
        (&self.action).into()
    }

    /// Whether the outcome is a row of its own. Otherwise the order is the outcome.
    pub const fn has_own_outcome(&self) -> bool {
        !matches!(self.action, Action::Place { .. } | Action::Expire { .. })
    }
}

/// The keys of the rows that a batch locks. Tables are locked in the order of the fields.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequiredRows {
    /// Orders that change, and those of placements, which an earlier delivery may have placed.
    pub orders: BTreeSet<OrderId>,
    pub products: BTreeSet<ProductId>,
    pub coupons: BTreeSet<ClaimId>,
    pub accounts: BTreeSet<UserId>,
    /// Users who place an order without paying: what their unpaid orders hold is counted, and not locked.
    pub unpaid_of: BTreeSet<UserId>,
    /// Commands that an earlier delivery may have decided.
    pub commands: BTreeSet<CommandId>,
}

impl RequiredRows {
    /// The rows that the commands name. [`Self::add_rows_to_restore`] adds those that only the orders name.
    pub fn of(commands: &[Command]) -> Self {
        let mut rows = Self::default();
        for command in commands {
            rows.orders.insert(command.order());
            match &command.action {
                Action::Place { items, coupon, payment } => {
                    rows.products.extend(items.iter().map(|line| line.product_id));
                    rows.coupons.extend(coupon);
                    // Paying changes the account. What unpaid orders hold is only counted.
                    let users = if payment.is_some() { &mut rows.accounts } else { &mut rows.unpaid_of };
                    users.insert(command.user);
                }
                Action::Pay { .. } | Action::Cancel { .. } => {
                    rows.accounts.insert(command.user);
                }
                Action::Confirm { .. } | Action::Expire { .. } => {}
            }
            if command.has_own_outcome() {
                rows.commands.insert(command.id);
            }
        }
        rows
    }

    /// Adds the products and coupons of the orders that the commands end. `orders` are the existing ones of
    /// [`Self::orders`].
    pub fn add_rows_to_restore(&mut self, commands: &[Command], orders: &BTreeMap<OrderId, Order>) {
        for command in commands {
            if let Action::Cancel { order } | Action::Expire { order } = command.action
                && let Some(order) = orders.get(&order)
            {
                self.products.extend(order.items.iter().map(|item| item.product_id));
                self.coupons.extend(order.user_coupon_id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(product: u64, quantity: u32) -> Line {
        Line { product_id: product.try_into().expect("an id"), quantity }
    }

    #[test]
    fn lines_of_a_product_are_one() {
        assert_eq!(merge_lines(&[line(2, 1), line(1, 2), line(2, 3)]), [line(1, 2), line(2, 4)]);
    }

    #[test]
    fn wrong_lines_are_named() {
        let fields = |lines: &[Line]| line_errors(lines).into_iter().map(|e| e.field.into_owned()).collect::<Vec<_>>();
        assert_eq!(fields(&[line(1, 1)]), Vec::<String>::new());
        assert_eq!(fields(&[]), ["items"]);
        assert_eq!(fields(&vec![line(1, 1); 10_000]), ["items"]);
        assert_eq!(fields(&[line(1, 0)]), ["items[0].quantity"]);
        assert_eq!(fields(&[line(1, 9_999), line(1, 2)]), ["items[1].quantity"]);
        assert_eq!(fields(&[line(1, u32::MAX)]), ["items[0].quantity"]);
    }
}
