use super::Error;

impl Error {
    /// The error of a call or query that several share, for one more of its callers. Errors are not `Clone`: their
    /// causes are not.
    #[must_use]
    pub fn shared(&self) -> Self {
        match self {
            Self::DependencyUnavailable { dependency, cause } => Self::unavailable(*dependency, cause.to_string()),
            Self::CouponNotFound(coupon) => Self::CouponNotFound(*coupon),
            other => Self::internal(other.chain()),
        }
    }
}
