//! The one error of Dibs: closed, each kind with a stable code and status for the outside, a cause for the inside.

use std::{borrow::Cow, error::Error as StdError};

use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    clock::Timestamp,
    domain::{
        FieldError,
        claim::ClaimRecord,
        order::{OrderRejectReason, RejectCode},
        points::ChargeRejectReason,
    },
    identifiers::{AssignmentId, ChargeId, CommandId, CouponId, DeadLetterId, OrderId, PaymentId, ProductId, UserId},
};

/// A result whose error is [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The cause of an error, for the log.
pub type Cause = Box<dyn StdError + Send + Sync>;

/// What Dibs cannot work without.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Dependency {
    /// The source of truth.
    MySql,
    /// What admits claims.
    Redis,
}

impl Dependency {
    /// The name that answers and metrics use.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::MySql => "mysql",
            Self::Redis => "redis",
        }
    }
}

/// Everything that can go wrong with a call.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Fields of the request are not as expected.
    #[error("{}", first_message(.0))]
    ValidationFailed(Vec<FieldError>),
    /// The body is not JSON.
    #[error("The body is not JSON: {0}.")]
    MalformedJson(String),
    /// The body is longer than allowed.
    #[error("The body is longer than {0} bytes.")]
    PayloadTooLarge(usize),
    /// The body is declared as something else than JSON.
    #[error("Expected a body of content type application/json.")]
    UnsupportedMediaType,
    /// No or wrong credentials.
    #[error("Expected 'Authorization: Bearer' with the administrator's token.")]
    Unauthenticated,
    /// The call is not for this caller.
    #[error("{0}")]
    Forbidden(&'static str),
    /// There is no such route.
    #[error("There is nothing at this path; /docs lists the calls.")]
    RouteNotFound,
    /// The route exists, the method does not.
    #[error("This path does not take that method; /docs lists the calls.")]
    MethodNotAllowed,
    /// There is no such campaign.
    #[error("There is no coupon {0}.")]
    CouponNotFound(CouponId),
    /// The user has not claimed this coupon.
    #[error("User {user} has no claim on coupon {coupon}.")]
    ClaimNotFound {
        /// The campaign asked about.
        coupon: CouponId,
        /// The user asked about.
        user: UserId,
    },
    /// The coupon has no such assignment.
    #[error("There is no assignment {0} of this coupon.")]
    AssignmentNotFound(AssignmentId),
    /// There is no such dead letter.
    #[error("There is no dead letter {0}.")]
    DeadLetterNotFound(DeadLetterId),
    /// The dead letter cannot be sent again as it is.
    #[error("Dead letter {0} cannot be sent again: it was never readable, or was too long to be kept whole.")]
    DeadLetterNotRedrivable(DeadLetterId),
    /// The user is at the campaign's limit.
    #[error("The user has claimed this coupon already; 'claim' is the first claim.")]
    CouponAlreadyIssued(ClaimRecord),
    /// The window has not begun.
    #[error("This coupon opens at {opens_at}.")]
    CampaignNotOpen {
        /// When it begins.
        opens_at: Timestamp,
        /// Redis's clock when it refused.
        now: Timestamp,
    },
    /// An administrator paused the campaign.
    #[error("This coupon is paused; try again later.")]
    CampaignPaused,
    /// The window is over, or an administrator closed the campaign.
    #[error("This coupon is closed.")]
    CampaignClosed,
    /// No seat is left.
    #[error("All of this coupon is taken.")]
    CouponExhausted,
    /// Redis does not hold the campaign yet.
    #[error("Coupon {0} is being made ready; try again shortly.")]
    CampaignUnavailable(CouponId),
    /// There is no such product.
    #[error("There is no product {0}.")]
    ProductNotFound(ProductId),
    /// More would be taken out of stock than is there.
    #[error("Product {product} has {stock} in stock; {change} would leave less than nothing.")]
    StockInsufficient {
        /// Which product.
        product: ProductId,
        /// What is there.
        stock: i64,
        /// What was to be added, negative.
        change: i64,
    },
    /// There is no such order.
    #[error("There is no order {0}.")]
    OrderNotFound(OrderId),
    /// There is no such command.
    #[error("There is no command {0}.")]
    CommandNotFound(CommandId),
    /// There is no such payment.
    #[error("There is no payment {0}.")]
    PaymentNotFound(PaymentId),
    /// There is no such charge.
    #[error("There is no charge {0}.")]
    ChargeNotFound(ChargeId),
    /// A charge is smaller than allowed.
    #[error("Expected a charge of at least {0} won.")]
    AmountBelowMinimum(i64),
    /// A charge would lift the balance above the cap.
    #[error("At most {cap} points can be held; {held} are there or on their way.")]
    PointsCapExceeded {
        /// The holding cap.
        cap: i64,
        /// Balance and pending charges.
        held: i64,
    },
    /// The payment gateway declined a charge.
    #[error("The payment of charge {0} was declined.")]
    PaymentDeclined(ChargeId),
    /// A command was not carried out, for a reason of the shop.
    #[error("{0}")]
    OrderRejected(OrderRejectReason),
    /// The order is still being placed.
    #[error("Order {0} is still being placed; try again shortly.")]
    OrderPending(OrderId),
    /// A payment failed, and is recorded so.
    #[error("{refusal}")]
    PaymentFailed {
        /// Which one.
        payment: PaymentId,
        /// Why.
        refusal: OrderRejectReason,
    },
    /// The first request with this idempotency key is still in progress.
    #[error("The first request with this Idempotency-Key is still in progress; try again shortly.")]
    IdempotencyInProgress,
    /// The idempotency key came before, with another body.
    #[error("This Idempotency-Key came before with another body; expected the same body, or a new key.")]
    IdempotencyKeyReused,
    /// More requests wait than the process takes.
    #[error("Too many requests are waiting; try again shortly.")]
    Overloaded,
    /// Redis or `MySQL` did not answer in time.
    #[error("{} cannot be used now; try again shortly.", .dependency.as_str())]
    DependencyUnavailable {
        /// Which one.
        dependency: Dependency,
        /// What its client said.
        #[source]
        cause: Cause,
    },
    /// A setting with which the process cannot start.
    #[error("{0}: {1}")]
    Setting(&'static str, String),
    /// A defect of Dibs.
    #[error("Something went wrong inside; the request id finds it in the log.")]
    Internal(#[source] Cause),
}

/// What a caller can tell errors apart by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    /// Its name, which never changes.
    pub code: &'static str,
    /// The same in words.
    pub title: &'static str,
    /// The HTTP status.
    pub status: u16,
}

const fn kind(code: &'static str, title: &'static str, status: u16) -> Kind {
    Kind { code, title, status }
}

const fn refused(code: RejectCode) -> Kind {
    let (title, status) = match code {
        RejectCode::ProductNotFound => ("product not found", 404),
        RejectCode::ProductNotSelling => ("product not selling", 422),
        RejectCode::StockInsufficient => ("stock insufficient", 422),
        RejectCode::CouponNotUsable => ("coupon not usable", 422),
        RejectCode::ValidationFailed => ("validation failed", 400),
        RejectCode::PointsInsufficient => ("points insufficient", 422),
        RejectCode::PointsCapExceeded => ("points cap exceeded", 422),
        RejectCode::OrderNotFound => ("order not found", 404),
        RejectCode::OrderStateConflict => ("order state conflict", 409),
        RejectCode::CommandFailed => ("command failed", 500),
    };
    kind(code.as_str(), title, status)
}

fn first_message(errors: &[FieldError]) -> String {
    match errors {
        [] => "The request is not as expected.".into(),
        [one] => format!("{}: {}.", one.field, one.message),
        [first, rest @ ..] => format!("{}: {}, and {} more.", first.field, first.message, rest.len()),
    }
}

impl Error {
    /// One wrong field.
    pub fn field(field: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self::ValidationFailed(vec![FieldError::new(field, message)])
    }

    /// A defect of Dibs, with its cause.
    pub fn internal(cause: impl Into<Cause>) -> Self {
        Self::Internal(cause.into())
    }

    /// `dependency` did not do what was asked in time.
    pub fn unavailable(dependency: Dependency, cause: impl Into<Cause>) -> Self {
        Self::DependencyUnavailable { dependency, cause: cause.into() }
    }

    /// Its kind.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::ValidationFailed(_) => kind("VALIDATION_FAILED", "validation failed", 400),
            Self::MalformedJson(_) => kind("MALFORMED_JSON", "malformed json", 400),
            Self::PayloadTooLarge(_) => kind("PAYLOAD_TOO_LARGE", "payload too large", 413),
            Self::UnsupportedMediaType => kind("UNSUPPORTED_MEDIA_TYPE", "unsupported media type", 415),
            Self::Unauthenticated => kind("UNAUTHENTICATED", "unauthenticated", 401),
            Self::Forbidden(_) => kind("FORBIDDEN", "forbidden", 403),
            Self::RouteNotFound => kind("ROUTE_NOT_FOUND", "route not found", 404),
            Self::MethodNotAllowed => kind("METHOD_NOT_ALLOWED", "method not allowed", 405),
            Self::CouponNotFound(_) => kind("COUPON_NOT_FOUND", "coupon not found", 404),
            Self::ClaimNotFound { .. } => kind("CLAIM_NOT_FOUND", "claim not found", 404),
            Self::AssignmentNotFound(_) => kind("ASSIGNMENT_NOT_FOUND", "assignment not found", 404),
            Self::DeadLetterNotFound(_) => kind("DEAD_LETTER_NOT_FOUND", "dead letter not found", 404),
            Self::DeadLetterNotRedrivable(_) => kind("DEAD_LETTER_NOT_REDRIVABLE", "dead letter not redrivable", 409),
            Self::CouponAlreadyIssued(_) => kind("COUPON_ALREADY_ISSUED", "coupon already issued", 409),
            Self::CampaignNotOpen { .. } => kind("CAMPAIGN_NOT_OPEN", "campaign not open", 409),
            Self::CampaignPaused => kind("CAMPAIGN_PAUSED", "campaign paused", 409),
            Self::CampaignClosed => kind("CAMPAIGN_CLOSED", "campaign closed", 422),
            Self::CouponExhausted => kind("COUPON_EXHAUSTED", "coupon exhausted", 422),
            Self::CampaignUnavailable(_) => kind("CAMPAIGN_UNAVAILABLE", "campaign unavailable", 503),
            Self::ProductNotFound(_) => kind("PRODUCT_NOT_FOUND", "product not found", 404),
            Self::StockInsufficient { .. } => kind("STOCK_INSUFFICIENT", "stock insufficient", 422),
            Self::OrderNotFound(_) => kind("ORDER_NOT_FOUND", "order not found", 404),
            Self::CommandNotFound(_) => kind("COMMAND_NOT_FOUND", "command not found", 404),
            Self::PaymentNotFound(_) => kind("PAYMENT_NOT_FOUND", "payment not found", 404),
            Self::ChargeNotFound(_) => kind("CHARGE_NOT_FOUND", "charge not found", 404),
            Self::AmountBelowMinimum(_) => kind("AMOUNT_BELOW_MINIMUM", "amount below minimum", 400),
            Self::PointsCapExceeded { .. } => kind("POINTS_CAP_EXCEEDED", "points cap exceeded", 422),
            Self::PaymentDeclined(_) => kind("PAYMENT_DECLINED", "payment declined", 422),
            Self::OrderPending(_) => kind("ORDER_STATE_CONFLICT", "order state conflict", 409),
            Self::OrderRejected(refusal) | Self::PaymentFailed { refusal, .. } => refused(refusal.code),
            Self::IdempotencyInProgress => kind("IDEMPOTENCY_IN_PROGRESS", "idempotency in progress", 409),
            Self::IdempotencyKeyReused => kind("IDEMPOTENCY_KEY_REUSED", "idempotency key reused", 422),
            Self::Overloaded => kind("OVERLOADED", "overloaded", 503),
            Self::DependencyUnavailable { .. } => kind("DEPENDENCY_UNAVAILABLE", "dependency unavailable", 503),
            Self::Setting(..) | Self::Internal(_) => kind("INTERNAL", "internal", 500),
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

    /// Seconds after which the same call may do better; none when it will not.
    pub fn retry_after(&self) -> Option<i64> {
        match self {
            Self::CampaignNotOpen { opens_at, now } => {
                Some(((*opens_at - *now).num_milliseconds().max(0) + 999) / 1000)
            }
            Self::CampaignUnavailable(_)
            | Self::Overloaded
            | Self::CampaignPaused
            | Self::IdempotencyInProgress
            | Self::OrderPending(_)
            | Self::DependencyUnavailable { .. } => Some(1),
            _ => None,
        }
    }

    /// Whether trying again, as it is, can do better: the fault is a dependency's, not the work's.
    pub const fn is_transient(&self) -> bool {
        matches!(self, Self::DependencyUnavailable { .. } | Self::CampaignUnavailable(_) | Self::Overloaded)
    }
}

impl From<ChargeRejectReason> for Error {
    fn from(refusal: ChargeRejectReason) -> Self {
        match refusal {
            ChargeRejectReason::BelowMinimum(minimum) => Self::AmountBelowMinimum(minimum),
            ChargeRejectReason::CapExceeded { cap, held } => Self::PointsCapExceeded { cap, held },
        }
    }
}
