use strum::{EnumString, IntoStaticStr, VariantArray};

use crate::domain::order::RejectCode;

/// Every code by which a caller distinguishes errors. A code never changes its name or its status.
///
/// This is the one list: the pages of `docs/errors/` and the snapshots of problems are compared with [`Self::ALL`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, EnumString, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "SCREAMING_SNAKE_CASE", const_into_str)]
pub enum ErrorCode {
    ValidationFailed,
    MalformedJson,
    PayloadTooLarge,
    UnsupportedMediaType,
    RequestTimeout,
    Unauthenticated,
    Forbidden,
    ApiKeyNameTaken,
    ApiKeyNotFound,
    ApiKeyLimitExceeded,
    RouteNotFound,
    MethodNotAllowed,
    CouponNotFound,
    ClaimNotFound,
    ClaimFailed,
    AssignmentNotFound,
    AssignmentKeyReused,
    AssignmentBudgetExceeded,
    AssignmentStateConflict,
    RebuildNotFound,
    DeadLetterNotFound,
    DeadLetterNotRedrivable,
    CouponAlreadyIssued,
    CampaignNotOpen,
    CampaignPaused,
    CampaignClosed,
    QuantityBelowClaimed,
    CouponExhausted,
    CampaignUnavailable,
    ProductNotFound,
    ProductNotSelling,
    StockInsufficient,
    CouponNotUsable,
    PaymentRequired,
    UnpaidOrdersLimitExceeded,
    UnpaidUnitsLimitExceeded,
    OrderNotFound,
    OrderStateConflict,
    CommandNotFound,
    CommandFailed,
    PaymentNotFound,
    PaymentDeclined,
    ChargeNotFound,
    AmountBelowMinimum,
    PointsInsufficient,
    PointsCapExceeded,
    IdempotencyInProgress,
    IdempotencyKeyReused,
    PreconditionFailed,
    PreconditionRequired,
    RateLimited,
    Overloaded,
    DependencyUnavailable,
    Internal,
}

impl ErrorCode {
    pub const ALL: &'static [Self] = Self::VARIANTS;

    /// The `title` and the `status` of a problem (RFC 9457).
    const fn title_and_status(self) -> (&'static str, u16) {
        match self {
            Self::ValidationFailed => ("validation failed", 400),
            Self::MalformedJson => ("malformed json", 400),
            Self::AmountBelowMinimum => ("amount below minimum", 400),
            Self::Unauthenticated => ("unauthenticated", 401),
            Self::Forbidden => ("forbidden", 403),
            Self::ApiKeyNotFound => ("api key not found", 404),
            Self::RouteNotFound => ("route not found", 404),
            Self::CouponNotFound => ("coupon not found", 404),
            Self::ClaimNotFound => ("claim not found", 404),
            Self::AssignmentNotFound => ("assignment not found", 404),
            Self::RebuildNotFound => ("rebuild not found", 404),
            Self::DeadLetterNotFound => ("dead letter not found", 404),
            Self::ProductNotFound => ("product not found", 404),
            Self::OrderNotFound => ("order not found", 404),
            Self::CommandNotFound => ("command not found", 404),
            Self::PaymentNotFound => ("payment not found", 404),
            Self::ChargeNotFound => ("charge not found", 404),
            Self::MethodNotAllowed => ("method not allowed", 405),
            Self::RequestTimeout => ("request timeout", 408),
            Self::DeadLetterNotRedrivable => ("dead letter not redrivable", 409),
            Self::AssignmentStateConflict => ("assignment state conflict", 409),
            Self::ApiKeyNameTaken => ("api key name taken", 409),
            Self::CouponAlreadyIssued => ("coupon already issued", 409),
            Self::CampaignNotOpen => ("campaign not open", 409),
            Self::CampaignPaused => ("campaign paused", 409),
            Self::OrderStateConflict => ("order state conflict", 409),
            Self::IdempotencyInProgress => ("idempotency in progress", 409),
            Self::PreconditionFailed => ("precondition failed", 412),
            Self::PayloadTooLarge => ("payload too large", 413),
            Self::UnsupportedMediaType => ("unsupported media type", 415),
            // 422 and not 409: it does not pass, so a retry is of no use.
            Self::CampaignClosed => ("campaign closed", 422),
            Self::ApiKeyLimitExceeded => ("api key limit exceeded", 422),
            Self::CouponExhausted => ("coupon exhausted", 422),
            Self::ProductNotSelling => ("product not selling", 422),
            Self::StockInsufficient => ("stock insufficient", 422),
            Self::CouponNotUsable => ("coupon not usable", 422),
            Self::PaymentRequired => ("payment required", 422),
            Self::UnpaidOrdersLimitExceeded => ("unpaid orders limit exceeded", 422),
            Self::UnpaidUnitsLimitExceeded => ("unpaid units limit exceeded", 422),
            Self::PaymentDeclined => ("payment declined", 422),
            Self::PointsInsufficient => ("points insufficient", 422),
            Self::PointsCapExceeded => ("points cap exceeded", 422),
            Self::AssignmentKeyReused => ("assignment key reused", 422),
            Self::AssignmentBudgetExceeded => ("assignment budget exceeded", 422),
            Self::IdempotencyKeyReused => ("idempotency key reused", 422),
            Self::QuantityBelowClaimed => ("quantity below claimed", 422),
            Self::PreconditionRequired => ("precondition required", 428),
            Self::RateLimited => ("rate limited", 429),
            // Both are outcomes of a defect, found after the acceptance. The caller has done nothing wrong.
            Self::ClaimFailed => ("claim failed", 500),
            Self::CommandFailed => ("command failed", 500),
            Self::Internal => ("internal", 500),
            Self::CampaignUnavailable => ("campaign unavailable", 503),
            Self::Overloaded => ("overloaded", 503),
            Self::DependencyUnavailable => ("dependency unavailable", 503),
        }
    }

    pub const fn title(self) -> &'static str {
        self.title_and_status().0
    }

    pub const fn status(self) -> u16 {
        self.title_and_status().1
    }
}

impl From<RejectCode> for ErrorCode {
    fn from(code: RejectCode) -> Self {
        match code {
            RejectCode::ProductNotFound => Self::ProductNotFound,
            RejectCode::ProductNotSelling => Self::ProductNotSelling,
            RejectCode::StockInsufficient => Self::StockInsufficient,
            RejectCode::CouponNotUsable => Self::CouponNotUsable,
            RejectCode::ValidationFailed => Self::ValidationFailed,
            RejectCode::PaymentRequired => Self::PaymentRequired,
            RejectCode::UnpaidOrdersLimitExceeded => Self::UnpaidOrdersLimitExceeded,
            RejectCode::UnpaidUnitsLimitExceeded => Self::UnpaidUnitsLimitExceeded,
            RejectCode::PointsInsufficient => Self::PointsInsufficient,
            RejectCode::PointsCapExceeded => Self::PointsCapExceeded,
            RejectCode::OrderNotFound => Self::OrderNotFound,
            RejectCode::OrderStateConflict => Self::OrderStateConflict,
            RejectCode::CommandFailed => Self::CommandFailed,
        }
    }
}

#[cfg(test)]
mod tests {
    use strum::VariantArray as _;

    use super::*;

    #[test]
    fn titles_are_the_words_of_the_codes() {
        for code in ErrorCode::ALL {
            assert_eq!(code.title(), code.into_str().to_lowercase().replace('_', " "));
            assert_eq!(code.into_str().parse(), Ok(*code));
        }
    }

    #[test]
    fn statuses_are_those_of_errors() {
        for code in ErrorCode::ALL {
            assert!((400..=599).contains(&code.status()), "{code:?}");
        }
    }

    /// An order's refusal is an HTTP refusal of the same code.
    #[test]
    fn reject_codes_keep_their_spelling() {
        for code in RejectCode::VARIANTS {
            assert_eq!(ErrorCode::from(*code).into_str(), code.into_str());
        }
    }
}
