//! The one error type of Dibs. Callers see its code, status and message; the log has its cause too.

mod code;
mod credentials;
mod facts;
mod rejections;
mod shared;

pub use code::ErrorCode;
pub use credentials::CredentialFault;
use std::{borrow::Cow, error::Error as StdError, time::Duration};

use serde::Serialize;
use strum::IntoStaticStr;
use utoipa::ToSchema;

use crate::{
    clock::{self, Timestamp},
    domain::{
        FieldError,
        access::Scope,
        assignment::{AssignmentKey, AssignmentStatus},
        assignment_rules::BudgetExceeded,
        claim::ClaimRecord,
        order::OrderRejectReason,
    },
    identifiers::{
        ApiKeyId, ChargeId, ClaimId, CommandId, CouponId, DeadLetterId, OrderId, PaymentId, ProductId, RebuildId,
        UserId,
    },
};

pub type Result<T, E = Error> = std::result::Result<T, E>;

pub type Cause = Box<dyn StdError + Send + Sync>;

/// A server without which Dibs does not work. Answers and metric labels spell it in lower case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, ToSchema, IntoStaticStr)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase", const_into_str)]
pub enum Dependency {
    MySql,
    Redis,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{}", first_message(.0))]
    ValidationFailed(Vec<FieldError>),
    #[error("The body is not JSON: {0}.")]
    MalformedJson(String),
    #[error("The body is longer than {0} bytes.")]
    PayloadTooLarge(usize),
    #[error("Expected a body of content type application/json.")]
    UnsupportedMediaType,
    #[error("Expected a body of content type application/x-ndjson: a user a line.")]
    ExpectedNdjson,
    #[error("Expected a body without a content coding.")]
    UnsupportedContentEncoding,
    /// Seconds.
    #[error("The body did not arrive within {0} seconds.")]
    RequestTimeout(u64),
    #[error("{0}")]
    Unauthenticated(CredentialFault),
    #[error("{0}")]
    Forbidden(&'static str),
    #[error("This call needs a credential with the scope '{0}'.")]
    ScopeRequired(Scope),
    #[error("There is a key with the name {0} already, or there was.")]
    ApiKeyNameTaken(String),
    #[error("There is no API key {0}.")]
    ApiKeyNotFound(ApiKeyId),
    #[error("There are {0} keys that count, which is the limit; revoke one first.")]
    ApiKeyLimitExceeded(u32),
    #[error("There is nothing at this path; /docs lists the calls.")]
    RouteNotFound,
    #[error("This path does not take that method; /docs lists the calls.")]
    MethodNotAllowed,
    #[error("There is no coupon {0}.")]
    CouponNotFound(CouponId),
    #[error("User {user} has no coupon {user_coupon}.")]
    UserCouponNotFound { user: UserId, user_coupon: ClaimId },
    #[error("User {user} has no claim on coupon {coupon}.")]
    ClaimNotFound { coupon: CouponId, user: UserId },
    #[error("There is no assignment {0} of this coupon.")]
    AssignmentNotFound(AssignmentKey),
    #[error("Assignment {0} has another list of users; expected the same list, or a new key.")]
    AssignmentKeyReused(AssignmentKey),
    #[error(
        "{} of this coupon are assigned on {}, and {} more would exceed the budget of {} a day.",
        .0.assigned, .0.business_day, .0.requested, .0.budget
    )]
    AssignmentBudgetExceeded(BudgetExceeded),
    #[error("The assignment is {}; only one that awaits approval can be approved or rejected.", .0.into_str())]
    AssignmentStateConflict(AssignmentStatus),
    #[error("There is no rebuild {0} of this coupon.")]
    RebuildNotFound(RebuildId),
    #[error("There is no dead letter {0}.")]
    DeadLetterNotFound(DeadLetterId),
    #[error("Dead letter {0} cannot be redriven: its reason says why, or it was dropped.")]
    DeadLetterNotRedrivable(DeadLetterId),
    #[error("Dead letter {0} is being redriven; it can be dropped when that has failed.")]
    DeadLetterRedriven(DeadLetterId),
    #[error("Claim {0} could not be processed.")]
    ClaimFailed(ClaimId),
    #[error("The user has claimed this coupon already; 'claim' is the first claim.")]
    CouponAlreadyIssued(ClaimRecord),
    #[error("This coupon opens at {}.", clock::text(*.opens_at))]
    CampaignNotOpen {
        opens_at: Timestamp,
        /// By the clock of Redis.
        now: Timestamp,
    },
    #[error("This coupon is paused; try again later.")]
    CampaignPaused,
    #[error("This coupon is closed.")]
    CampaignClosed,
    #[error("{claimed} of this coupon are claimed; {requested} is less.")]
    QuantityBelowClaimed { requested: u32, claimed: u32 },
    #[error("Expected 'If-Match' with the ETag of the version that is changed.")]
    PreconditionRequired,
    #[error("It was changed since that version; read it again.")]
    PreconditionFailed,
    #[error("All of this coupon is taken.")]
    CouponExhausted,
    /// Redis does not hold the campaign yet.
    #[error("Coupon {0} is being rebuilt; try again shortly.")]
    CampaignUnavailable(CouponId),
    #[error("There is no product {0}.")]
    ProductNotFound(ProductId),
    #[error("Product {product} has {stock} in stock; {change} would leave less than nothing.")]
    StockInsufficient {
        product: ProductId,
        stock: i64,
        /// Negative: what would leave the stock.
        change: i64,
    },
    #[error("There is no order {0}.")]
    OrderNotFound(OrderId),
    #[error("There is no command {0}.")]
    CommandNotFound(CommandId),
    #[error("There is no payment {0}.")]
    PaymentNotFound(PaymentId),
    #[error("There is no charge {0}.")]
    ChargeNotFound(ChargeId),
    #[error("Expected a charge of at least {0} won.")]
    AmountBelowMinimum(i64),
    #[error("At most {cap} points can be held; {held} are there or on their way.")]
    PointsCapExceeded {
        cap: i64,
        /// Balance and pending charges, in won.
        held: i64,
    },
    #[error("The user has {balance} points; {required} are more.")]
    PointsInsufficient { balance: i64, required: i64 },
    #[error("The payment of charge {0} was declined.")]
    PaymentDeclined(ChargeId),
    #[error("{0}")]
    OrderRejected(OrderRejectReason),
    #[error("Order {0} is still being placed; try again shortly.")]
    OrderPending(OrderId),
    #[error("{refusal}")]
    PaymentFailed { payment: PaymentId, refusal: OrderRejectReason },
    #[error("The first request with this Idempotency-Key is still in progress; try again shortly.")]
    IdempotencyInProgress,
    #[error("This Idempotency-Key came before with another JSON value or query; expected the same ones, or a new key.")]
    IdempotencyKeyReused,
    #[error("At most {limit} claims a minute are allowed for each {scope}; try again in {retry_after} s.")]
    RateLimited {
        /// What is counted by: `user` or `address`.
        scope: &'static str,
        limit: u32,
        /// Seconds.
        retry_after: i64,
    },
    #[error("Too many requests are waiting; try again shortly.")]
    Overloaded,
    #[error("{} cannot be used now; try again shortly.", .dependency.into_str())]
    DependencyUnavailable {
        dependency: Dependency,
        #[source]
        cause: Cause,
    },
    /// The name of a setting with which the process cannot start, and what was expected of it.
    #[error("{0}: {1}")]
    Setting(&'static str, String),
    /// A command of an operator that could do nothing.
    #[error("{undone}: after {} s another process still holds its lease", .waited.as_secs())]
    LeaseHeld { undone: String, waited: Duration },
    /// A defect of Dibs. Callers do not see the cause.
    #[error("Something went wrong inside; the request id finds it in the log.")]
    Internal(#[source] Cause),
}

fn first_message(errors: &[FieldError]) -> String {
    match errors {
        [] => "The request is not as expected.".into(),
        [one] => format!("{}: {}.", one.field, one.message),
        [first, rest @ ..] => format!("{}: {}, and {} more.", first.field, first.message, rest.len()),
    }
}

impl Error {
    pub fn field(field: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self::ValidationFailed(vec![FieldError::new(field, message)])
    }

    pub fn internal(cause: impl Into<Cause>) -> Self {
        Self::Internal(cause.into())
    }

    pub fn unavailable(dependency: Dependency, cause: impl Into<Cause>) -> Self {
        Self::DependencyUnavailable { dependency, cause: cause.into() }
    }

    pub fn code(&self) -> ErrorCode {
        match self {
            Self::ValidationFailed(_) => ErrorCode::ValidationFailed,
            Self::MalformedJson(_) => ErrorCode::MalformedJson,
            Self::PayloadTooLarge(_) => ErrorCode::PayloadTooLarge,
            Self::UnsupportedMediaType | Self::ExpectedNdjson | Self::UnsupportedContentEncoding => {
                ErrorCode::UnsupportedMediaType
            }
            Self::RequestTimeout(_) => ErrorCode::RequestTimeout,
            Self::Unauthenticated(_) => ErrorCode::Unauthenticated,
            Self::Forbidden(_) | Self::ScopeRequired(_) => ErrorCode::Forbidden,
            Self::ApiKeyNameTaken(_) => ErrorCode::ApiKeyNameTaken,
            Self::ApiKeyNotFound(_) => ErrorCode::ApiKeyNotFound,
            Self::ApiKeyLimitExceeded(_) => ErrorCode::ApiKeyLimitExceeded,
            Self::RouteNotFound => ErrorCode::RouteNotFound,
            Self::MethodNotAllowed => ErrorCode::MethodNotAllowed,
            Self::CouponNotFound(_) | Self::UserCouponNotFound { .. } => ErrorCode::CouponNotFound,
            Self::ClaimNotFound { .. } => ErrorCode::ClaimNotFound,
            Self::AssignmentNotFound(_) => ErrorCode::AssignmentNotFound,
            Self::AssignmentKeyReused(_) => ErrorCode::AssignmentKeyReused,
            Self::AssignmentBudgetExceeded(_) => ErrorCode::AssignmentBudgetExceeded,
            Self::AssignmentStateConflict(_) => ErrorCode::AssignmentStateConflict,
            Self::RebuildNotFound(_) => ErrorCode::RebuildNotFound,
            Self::DeadLetterNotFound(_) => ErrorCode::DeadLetterNotFound,
            Self::DeadLetterNotRedrivable(_) | Self::DeadLetterRedriven(_) => ErrorCode::DeadLetterNotRedrivable,
            Self::ClaimFailed(_) => ErrorCode::ClaimFailed,
            Self::CouponAlreadyIssued(_) => ErrorCode::CouponAlreadyIssued,
            Self::CampaignNotOpen { .. } => ErrorCode::CampaignNotOpen,
            Self::CampaignPaused => ErrorCode::CampaignPaused,
            Self::CampaignClosed => ErrorCode::CampaignClosed,
            Self::QuantityBelowClaimed { .. } => ErrorCode::QuantityBelowClaimed,
            Self::PreconditionRequired => ErrorCode::PreconditionRequired,
            Self::PreconditionFailed => ErrorCode::PreconditionFailed,
            Self::CouponExhausted => ErrorCode::CouponExhausted,
            Self::CampaignUnavailable(_) => ErrorCode::CampaignUnavailable,
            Self::ProductNotFound(_) => ErrorCode::ProductNotFound,
            Self::StockInsufficient { .. } => ErrorCode::StockInsufficient,
            Self::OrderNotFound(_) => ErrorCode::OrderNotFound,
            Self::CommandNotFound(_) => ErrorCode::CommandNotFound,
            Self::PaymentNotFound(_) => ErrorCode::PaymentNotFound,
            Self::ChargeNotFound(_) => ErrorCode::ChargeNotFound,
            Self::AmountBelowMinimum(_) => ErrorCode::AmountBelowMinimum,
            Self::PointsCapExceeded { .. } => ErrorCode::PointsCapExceeded,
            Self::PointsInsufficient { .. } => ErrorCode::PointsInsufficient,
            Self::PaymentDeclined(_) => ErrorCode::PaymentDeclined,
            Self::OrderPending(_) => ErrorCode::OrderStateConflict,
            Self::OrderRejected(refusal) | Self::PaymentFailed { refusal, .. } => refusal.code.into(),
            Self::IdempotencyInProgress => ErrorCode::IdempotencyInProgress,
            Self::IdempotencyKeyReused => ErrorCode::IdempotencyKeyReused,
            Self::RateLimited { .. } => ErrorCode::RateLimited,
            Self::Overloaded => ErrorCode::Overloaded,
            Self::DependencyUnavailable { .. } => ErrorCode::DependencyUnavailable,
            Self::Setting(..) | Self::LeaseHeld { .. } | Self::Internal(_) => ErrorCode::Internal,
        }
    }

    /// The error and its causes on one line, for the log.
    pub fn chain(&self) -> String {
        let mut line = self.to_string();
        let mut cause = self.source();
        while let Some(inner) = cause {
            line = format!("{line} {inner}");
            cause = inner.source();
        }
        line
    }

    /// Seconds after which the same call may succeed; none when it will not.
    pub fn retry_after(&self) -> Option<i64> {
        match self {
            Self::CampaignNotOpen { opens_at, now } => {
                // Rounded up: a caller that follows a time rounded down comes too early. By the clock of Redis, which
                // decides.
                Some(((*opens_at - *now).num_milliseconds().max(0) + 999) / 1000)
            }
            Self::RateLimited { retry_after, .. } => Some(*retry_after),
            Self::CampaignUnavailable(_)
            | Self::Overloaded
            | Self::CampaignPaused
            | Self::IdempotencyInProgress
            | Self::OrderPending(_)
            | Self::DependencyUnavailable { .. } => Some(1),
            _ => None,
        }
    }

    /// Whether a retry can succeed: the fault is a dependency's, not the request's.
    pub const fn is_transient(&self) -> bool {
        matches!(self, Self::DependencyUnavailable { .. } | Self::CampaignUnavailable(_) | Self::Overloaded)
    }
}
