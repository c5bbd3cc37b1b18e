use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Order;
use crate::{
    clock::Timestamp,
    domain::FieldError,
    identifiers::{ClaimId, CommandId, OrderId, PaymentId, ProductId, UserId},
};

/// The most products that an order may be for.
pub const MAX_LINES: usize = 100;
/// The most units of a product that an order may be for.
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

/// Every line that is not as expected, before they are merged.
pub fn line_errors(lines: &[Line]) -> Vec<FieldError> {
    if !(1..=MAX_LINES).contains(&lines.len()) {
        let message = format!("expected 1 to {MAX_LINES} items, got {}", lines.len());
        return vec![FieldError::new("items", message)];
    }
    let mut sums: BTreeMap<ProductId, u64> = BTreeMap::new();
    let mut errors = Vec::new();
    for (place, line) in lines.iter().enumerate() {
        let sum = sums.entry(line.product_id).or_default();
        *sum += u64::from(line.quantity);
        if line.quantity == 0 || *sum > u64::from(MAX_QUANTITY) {
            let message = format!("expected 1 to {MAX_QUANTITY} of product {} in all", line.product_id);
            errors.push(FieldError::new(format!("items[{place}].quantity"), message));
        }
    }
    errors
}

/// One line a product, by product id.
pub fn merge_lines(lines: &[Line]) -> Vec<Line> {
    let mut sums: BTreeMap<ProductId, u32> = BTreeMap::new();
    for line in lines {
        let sum = sums.entry(line.product_id).or_default();
        *sum = sum.saturating_add(line.quantity);
    }
    sums.into_iter().map(|(product_id, quantity)| Line { product_id, quantity }).collect()
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "camelCase")]
pub enum Action {
    /// Place an order, whose id is the command's.
    Place {
        /// What it is for: merged, so each product once.
        items: Vec<Line>,
        /// The coupon to use.
        coupon: Option<ClaimId>,
        /// Pay it in the same step, under this id, or do neither.
        payment: Option<PaymentId>,
    },
    /// Pay an order with points; the payment's id is the command's.
    Pay {
        /// Which one.
        order: OrderId,
    },
    /// Confirm the purchase.
    Confirm {
        /// Of which order.
        order: OrderId,
    },
    /// Cancel an order.
    Cancel {
        /// Which one.
        order: OrderId,
    },
    /// End an order that was not paid in time.
    Expire {
        /// Which one.
        order: OrderId,
    },
}

/// A change to an order, as the stream carries it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// Its id, the same at every delivery.
    pub id: CommandId,
    /// Whose order.
    pub user: UserId,
    /// When the API took it: what has to be in time is held against this.
    pub at: Timestamp,
    /// What is to be done.
    pub action: Action,
}

impl Command {
    /// The order that it places or changes.
    pub fn order(&self) -> OrderId {
        match self.action {
            Action::Place { .. } => OrderId(self.id.0),
            Action::Pay { order } | Action::Confirm { order } | Action::Cancel { order } | Action::Expire { order } => {
                order
            }
        }
    }

    /// How many lines it is for, as far as it says itself.
    pub fn lines(&self) -> usize {
        if let Action::Place { items, .. } = &self.action { items.len() } else { 1 }
    }

    /// What it is for, as the database and Redis name it.
    pub const fn kind(&self) -> &'static str {
        match self.action {
            Action::Place { .. } => "PLACE",
            Action::Pay { .. } => "PAY",
            Action::Confirm { .. } => "CONFIRM",
            Action::Cancel { .. } => "CANCEL",
            Action::Expire { .. } => "EXPIRE",
        }
    }

    /// Whether its outcome is written for itself; else the order is the outcome.
    pub const fn has_own_outcome(&self) -> bool {
        !matches!(self.action, Action::Place { .. } | Action::Expire { .. })
    }
}

/// The rows that a batch needs, table by table, in the order in which they are locked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequiredRows {
    /// Orders that are changed, or perhaps placed already.
    pub orders: BTreeSet<OrderId>,
    /// Products whose stock changes.
    pub products: BTreeSet<ProductId>,
    /// Coupons that are used or given back.
    pub coupons: BTreeSet<ClaimId>,
    /// Users whose points change.
    pub accounts: BTreeSet<UserId>,
    /// Commands whose outcome may be there already.
    pub commands: BTreeSet<CommandId>,
}

impl RequiredRows {
    /// What the commands themselves name. What the orders that they change are for is found in the orders.
    pub fn of(commands: &[Command]) -> Self {
        let mut needs = Self::default();
        for command in commands {
            needs.orders.insert(command.order());
            match &command.action {
                Action::Place { items, coupon, payment } => {
                    needs.products.extend(items.iter().map(|line| line.product_id));
                    needs.coupons.extend(coupon);
                    needs.accounts.extend(payment.map(|_| command.user));
                }
                Action::Pay { .. } | Action::Cancel { .. } => {
                    needs.accounts.insert(command.user);
                }
                Action::Confirm { .. } | Action::Expire { .. } => {}
            }
            if command.has_own_outcome() {
                needs.commands.insert(command.id);
            }
        }
        needs
    }

    /// What the orders that are to end give back; `orders` are those of [`RequiredRows::orders`] that are there.
    pub fn add_what_orders_are_for(&mut self, commands: &[Command], orders: &BTreeMap<OrderId, Order>) {
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
