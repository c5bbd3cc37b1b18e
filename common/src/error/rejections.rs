//! The errors of what the rules reject.

use super::Error;
use crate::{
    clock,
    domain::{
        assignment_rules::AssignmentRejectReason, campaign_change::CampaignChangeRejectReason,
        points::ChargeRejectReason,
    },
};

impl From<CampaignChangeRejectReason> for Error {
    fn from(reason: CampaignChangeRejectReason) -> Self {
        match reason {
            CampaignChangeRejectReason::Invalid(errors) => Self::ValidationFailed(errors),
            CampaignChangeRejectReason::Closed => Self::CampaignClosed,
        }
    }
}

impl From<AssignmentRejectReason> for Error {
    fn from(reason: AssignmentRejectReason) -> Self {
        match reason {
            AssignmentRejectReason::Closed => Self::CampaignClosed,
            AssignmentRejectReason::ValidityOver(end) => {
                let end = clock::text(end);
                Self::field("couponId", format!("expected a coupon whose validity is not over; it ended at {end}"))
            }
            AssignmentRejectReason::BudgetExceeded(exceeded) => Self::AssignmentBudgetExceeded(exceeded),
            AssignmentRejectReason::State(status) => Self::AssignmentStateConflict(status),
            AssignmentRejectReason::OwnRequest => {
                Self::Forbidden("An assignment is approved by another administrator than the one who asked for it.")
            }
        }
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
