use super::Error;
use crate::domain::facts::Facts;

impl Error {
    /// What the error states beside its message, as fields of the problem.
    pub fn facts(&self) -> Facts {
        let none = Facts::default();
        match self {
            Self::PayloadTooLarge(bytes) => Facts { max_bytes: u64::try_from(*bytes).ok(), ..none },
            Self::ClaimNotFound { coupon, user } => Facts { coupon_id: Some(*coupon), user_id: Some(*user), ..none },
            Self::ClaimFailed(claim) => Facts { claim_id: Some(*claim), ..none },
            Self::ScopeRequired(_)
            | Self::RateLimited { .. }
            | Self::ApiKeyLimitExceeded(_)
            | Self::ApiKeyNameTaken(_)
            | Self::ApiKeyNotFound(_)
            | Self::AssignmentNotFound(_)
            | Self::AssignmentKeyReused(_)
            | Self::AssignmentBudgetExceeded(_)
            | Self::AssignmentStateConflict(_)
            | Self::RebuildNotFound(_)
            | Self::DeadLetterNotFound(_)
            | Self::DeadLetterNotRedrivable(_)
            | Self::DeadLetterRedriven(_) => self.facts_of_administration(),
            Self::CampaignNotOpen { opens_at, .. } => Facts { opens_at: Some(*opens_at), ..none },
            Self::CouponNotFound(_)
            | Self::CampaignUnavailable(_)
            | Self::UserCouponNotFound { .. }
            | Self::QuantityBelowClaimed { .. }
            | Self::OrderRejected(_)
            | Self::PaymentFailed { .. }
            | Self::ProductNotFound(_)
            | Self::StockInsufficient { .. }
            | Self::OrderNotFound(_)
            | Self::OrderPending(_)
            | Self::CommandNotFound(_)
            | Self::PaymentNotFound(_)
            | Self::ChargeNotFound(_)
            | Self::PaymentDeclined(_)
            | Self::AmountBelowMinimum(_)
            | Self::PointsCapExceeded { .. }
            | Self::PointsInsufficient { .. } => self.facts_of_shop(),
            // Listed, so that a new error cannot be forgotten here.
            Self::ValidationFailed(_)
            | Self::MalformedJson(_)
            | Self::UnsupportedMediaType
            | Self::ExpectedNdjson
            | Self::UnsupportedContentEncoding
            | Self::RequestTimeout(_)
            | Self::Unauthenticated(_)
            | Self::Forbidden(_)
            | Self::RouteNotFound
            | Self::MethodNotAllowed
            | Self::CouponAlreadyIssued(_)
            | Self::CampaignPaused
            | Self::CampaignClosed
            | Self::CouponExhausted
            | Self::PreconditionRequired
            | Self::PreconditionFailed
            | Self::IdempotencyInProgress
            | Self::IdempotencyKeyReused
            | Self::Overloaded
            | Self::DependencyUnavailable { .. }
            | Self::Setting(..)
            | Self::LeaseHeld { .. }
            | Self::Internal(_) => none,
        }
    }

    fn facts_of_shop(&self) -> Facts {
        let none = Facts::default();
        match self {
            Self::CouponNotFound(coupon) | Self::CampaignUnavailable(coupon) => {
                Facts { coupon_id: Some(*coupon), ..none }
            }
            Self::UserCouponNotFound { user, user_coupon } => {
                Facts { user_id: Some(*user), user_coupon_id: Some(*user_coupon), ..none }
            }
            Self::QuantityBelowClaimed { requested, claimed } => {
                Facts { requested: Some((*requested).into()), claimed: Some((*claimed).into()), ..none }
            }
            Self::OrderRejected(refusal) => (*refusal.facts).clone(),
            Self::PaymentFailed { payment, refusal } => {
                Facts { payment_id: Some(*payment), ..(*refusal.facts).clone() }
            }
            Self::ProductNotFound(product) => Facts { product_id: Some(*product), ..none },
            Self::StockInsufficient { product, stock, change } => Facts {
                product_id: Some(*product),
                requested: Some(change.saturating_neg()),
                available: Some(*stock),
                ..none
            },
            Self::OrderNotFound(order) | Self::OrderPending(order) => Facts { order_id: Some(*order), ..none },
            Self::CommandNotFound(command) => Facts { command_id: Some(*command), ..none },
            Self::PaymentNotFound(payment) => Facts { payment_id: Some(*payment), ..none },
            Self::ChargeNotFound(charge) | Self::PaymentDeclined(charge) => Facts { charge_id: Some(*charge), ..none },
            Self::AmountBelowMinimum(minimum) => Facts { minimum_amount: Some(*minimum), ..none },
            Self::PointsCapExceeded { cap, held } => Facts { limit: Some(*cap), held: Some(*held), ..none },
            Self::PointsInsufficient { balance, required } => {
                Facts { balance: Some(*balance), required: Some(*required), ..none }
            }
            _ => none,
        }
    }

    fn facts_of_administration(&self) -> Facts {
        let none = Facts::default();
        match self {
            Self::AssignmentNotFound(key) | Self::AssignmentKeyReused(key) => {
                Facts { assignment_key: Some(key.clone()), ..none }
            }
            Self::AssignmentBudgetExceeded(exceeded) => Facts {
                requested: Some(exceeded.requested.into()),
                assigned: Some(exceeded.assigned.into()),
                budget: Some(exceeded.budget.into()),
                business_day: Some(exceeded.business_day),
                ..none
            },
            Self::ApiKeyLimitExceeded(limit) | Self::RateLimited { limit, .. } => {
                Facts { limit: Some(i64::from(*limit)), ..none }
            }
            Self::ScopeRequired(scope) => Facts { required_scope: Some(*scope), ..none },
            Self::ApiKeyNameTaken(name) => Facts { name: Some(name.clone()), ..none },
            Self::ApiKeyNotFound(key) => Facts { api_key_id: Some(*key), ..none },
            Self::RebuildNotFound(rebuild) => Facts { rebuild_id: Some(*rebuild), ..none },
            Self::DeadLetterNotFound(id) | Self::DeadLetterNotRedrivable(id) | Self::DeadLetterRedriven(id) => {
                Facts { dead_letter_id: Some(*id), ..none }
            }
            Self::AssignmentStateConflict(status) => Facts { assignment_status: Some(*status), ..none },
            _ => none,
        }
    }
}
