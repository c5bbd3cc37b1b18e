use dibs_common::{domain::campaign::Campaign, identifiers::UserId};
use strum::EnumIter;
use uuid::Uuid;

/// What is struck.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumIter)]
pub enum Operation {
    Claim,
    /// Placed with a coupon.
    Order,
    Payment,
    /// Of a paid order: stock, coupon and points go back.
    Cancellation,
    Assignment,
    /// Sequencing of events, and their delivery to the ranking.
    Relay,
    /// Of a campaign in Redis.
    Rebuild,
}

/// Whom an operation is about.
pub struct Subject {
    pub user: UserId,
    pub campaign: Campaign,
    /// A coupon of the user that can be spent.
    pub user_coupon: Option<Uuid>,
    pub order: Option<Uuid>,
}

impl Operation {
    /// What is durable after the operation, whatever was struck.
    pub const fn expected(self) -> &'static str {
        match self {
            Self::Claim | Self::Rebuild => "coupon ISSUED",
            Self::Order => "coupon USED, order DEPOSIT_WAIT, paid 0 times, refunded 0 times",
            Self::Payment | Self::Relay => "coupon USED, order PAY_DONE, paid 1 times, refunded 0 times",
            Self::Cancellation => "coupon ISSUED, order CANCELLED, paid 1 times, refunded 1 times",
            Self::Assignment => "coupon ISSUED, assignment DONE",
        }
    }

    /// Whether the user has an order before it.
    pub const fn needs_order(self) -> bool {
        matches!(self, Self::Payment | Self::Cancellation | Self::Relay)
    }

    /// Whether that order is paid before it.
    pub const fn needs_payment(self) -> bool {
        matches!(self, Self::Cancellation | Self::Relay)
    }

    /// Whether the user has a coupon before it.
    pub const fn needs_coupon(self) -> bool {
        matches!(self, Self::Order | Self::Rebuild) || self.needs_order()
    }
}
