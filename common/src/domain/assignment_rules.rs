//! What an assignment may: the budget of a day, and the approval by a second administrator.

use chrono::{NaiveDate, TimeDelta};
use chrono_tz::Tz;

use super::{
    assignment::AssignmentStatus,
    campaign::{Campaign, CampaignState},
    ranking::business_day,
};
use crate::clock::Timestamp;

/// As settings have them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AssignmentRules {
    /// Users of all assignments of a campaign that take effect on a business day.
    pub daily_budget: u32,
    /// An assignment of more users needs an approval.
    pub approval_threshold: u32,
    /// How long an approval is awaited.
    pub approval_timeout: TimeDelta,
    pub time_zone: Tz,
}

impl AssignmentRules {
    /// An assignment that is asked for at `now`: its first status, and until when it can be approved.
    pub fn initial_status(&self, users: u32, now: Timestamp) -> (AssignmentStatus, Option<Timestamp>) {
        if users > self.approval_threshold {
            (AssignmentStatus::AwaitingApproval, Some(now + self.approval_timeout))
        } else {
            (AssignmentStatus::Pending, None)
        }
    }

    pub fn business_day(&self, now: Timestamp) -> NaiveDate {
        business_day(now, self.time_zone)
    }
}

/// Why an assignment is refused as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AssignmentRejectReason {
    /// An administrator closed the campaign.
    Closed,
    /// Issued now, it would be expired at once, and still count against the quantity and each user's limit.
    ValidityOver(Timestamp),
    BudgetExceeded(BudgetExceeded),
    /// It is not in a state in which that can be done.
    State(AssignmentStatus),
    /// The administrator who asked for it approves it.
    OwnRequest,
}

/// A budget that an assignment would exceed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BudgetExceeded {
    pub requested: u32,
    /// What has been assigned on that day.
    pub assigned: u32,
    pub budget: u32,
    pub business_day: NaiveDate,
}

/// Whether the campaign can be assigned now.
pub fn check_campaign(campaign: &Campaign, now: Timestamp) -> Result<(), AssignmentRejectReason> {
    if campaign.state == CampaignState::Closed {
        return Err(AssignmentRejectReason::Closed);
    }
    let valid_until = campaign.terms.validity.end(now);
    if valid_until <= now { Err(AssignmentRejectReason::ValidityOver(valid_until)) } else { Ok(()) }
}

/// Whether the budget of a day, of which `assigned` is used, has room for so many users.
pub fn check_budget(
    rules: &AssignmentRules,
    assigned: u32,
    requested: u32,
    business_day: NaiveDate,
) -> Result<(), AssignmentRejectReason> {
    let budget = rules.daily_budget;
    if assigned.checked_add(requested).is_some_and(|after| after <= budget) {
        Ok(())
    } else {
        let exceeded = BudgetExceeded { requested, assigned, budget, business_day };
        Err(AssignmentRejectReason::BudgetExceeded(exceeded))
    }
}

/// What an administrator decides on an assignment that awaits an approval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApprovalDecision {
    Approve,
    Reject,
}

impl ApprovalDecision {
    /// The name of the action.
    pub const fn action(self) -> &'static str {
        match self {
            Self::Approve => "assignment.approve",
            Self::Reject => "assignment.reject",
        }
    }
}

/// What the approval of an assignment depends on.
#[derive(Clone, Copy, Debug)]
pub struct ApprovalState<'a> {
    pub status: AssignmentStatus,
    pub requested_by: Option<&'a str>,
    pub decided_by: Option<&'a str>,
    pub expires_at: Option<Timestamp>,
}

/// The status after a decision of `actor`; none when the same decision was made before.
pub fn decide_approval(
    state: ApprovalState<'_>,
    decision: ApprovalDecision,
    actor: &str,
    now: Timestamp,
) -> Result<Option<AssignmentStatus>, AssignmentRejectReason> {
    use AssignmentStatus::{AwaitingApproval, Done, Expired, Pending, Rejected};
    let is_expired = state.expires_at.is_some_and(|expires_at| expires_at <= now);
    match (state.status, decision) {
        // The worker marks it soon. It cannot be decided meanwhile.
        (AwaitingApproval, _) if is_expired => Err(AssignmentRejectReason::State(Expired)),
        (AwaitingApproval, ApprovalDecision::Approve) if state.requested_by == Some(actor) => {
            Err(AssignmentRejectReason::OwnRequest)
        }
        (AwaitingApproval, ApprovalDecision::Approve) => Ok(Some(Pending)),
        (AwaitingApproval, ApprovalDecision::Reject) => Ok(Some(Rejected)),
        // Only a repeat by the same administrator: another one would believe that the approval is theirs.
        (Pending | Done, ApprovalDecision::Approve) if state.decided_by == Some(actor) => Ok(None),
        (Rejected, ApprovalDecision::Reject) => Ok(None),
        (status, _) => Err(AssignmentRejectReason::State(status)),
    }
}

#[cfg(test)]
mod tests {
    use AssignmentStatus::{AwaitingApproval, Done, Expired, Pending, Rejected};
    use chrono_tz::Asia::Seoul;
    use strum::VariantArray as _;

    use super::*;
    use crate::clock::from_millis;

    const RULES: AssignmentRules = AssignmentRules {
        daily_budget: 100,
        approval_threshold: 10,
        approval_timeout: TimeDelta::hours(24),
        time_zone: Seoul,
    };

    #[test]
    fn more_users_than_the_threshold_need_an_approval() {
        let now = from_millis(1_000);
        assert_eq!(RULES.initial_status(10, now), (Pending, None));
        assert_eq!(RULES.initial_status(11, now), (AwaitingApproval, Some(now + TimeDelta::hours(24))));
    }

    #[test]
    fn a_budget_is_used_up_and_not_exceeded() {
        let day = RULES.business_day(from_millis(0));
        assert_eq!(check_budget(&RULES, 90, 10, day), Ok(()));
        let exceeded = BudgetExceeded { requested: 11, assigned: 90, budget: 100, business_day: day };
        assert_eq!(check_budget(&RULES, 90, 11, day), Err(AssignmentRejectReason::BudgetExceeded(exceeded)));
        assert!(check_budget(&RULES, 1, u32::MAX, day).is_err(), "no overflow");
    }

    #[test]
    fn an_assignment_awaits_the_approval_of_another_administrator() {
        let (now, later) = (from_millis(1_000), from_millis(2_000));
        let decide = |status, decided_by, decision, actor| {
            let state = ApprovalState { status, requested_by: Some("ann"), decided_by, expires_at: Some(later) };
            decide_approval(state, decision, actor, now)
        };
        let (approve, reject) = (ApprovalDecision::Approve, ApprovalDecision::Reject);
        assert_eq!(decide(AwaitingApproval, None, approve, "ann"), Err(AssignmentRejectReason::OwnRequest));
        assert_eq!(decide(AwaitingApproval, None, approve, "bob"), Ok(Some(Pending)));
        for actor in ["ann", "bob"] {
            assert_eq!(decide(AwaitingApproval, None, reject, actor), Ok(Some(Rejected)));
            assert_eq!(decide(Rejected, Some("bob"), reject, actor), Ok(None), "a repeat");
        }
        for status in [Pending, Done] {
            assert_eq!(decide(status, Some("bob"), approve, "bob"), Ok(None), "a repeat");
            assert_eq!(decide(status, Some("bob"), approve, "eve"), Err(AssignmentRejectReason::State(status)));
        }
        for status in AssignmentStatus::VARIANTS.iter().filter(|status| **status != AwaitingApproval) {
            let decision = if *status == Rejected { approve } else { reject };
            assert_eq!(decide(*status, None, decision, "bob"), Err(AssignmentRejectReason::State(*status)));
        }
    }

    #[test]
    fn an_approval_comes_in_time() {
        let at = from_millis(1_000);
        let state = ApprovalState {
            status: AwaitingApproval,
            requested_by: Some("ann"),
            decided_by: None,
            expires_at: Some(at),
        };
        for decision in [ApprovalDecision::Approve, ApprovalDecision::Reject] {
            assert_eq!(decide_approval(state, decision, "bob", at), Err(AssignmentRejectReason::State(Expired)));
        }
    }
}
