//! Assignments: an administrator gives a coupon to many users at once.

use std::collections::{BTreeMap, HashSet};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use strum::{EnumString, IntoStaticStr, VariantArray};
use utoipa::ToSchema;

use super::claim::ClaimRejectReason;
use crate::{
    domain::FieldError,
    identifiers::{AssignmentId, ClaimId, CouponId, UserId},
};

pub const MAX_USERS: usize = 10_000;

/// Whom an administrator wants to give a coupon.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Recipients {
    /// 1 to 10,000 users, each once. When there are not enough coupons, the first of them get one.
    #[schema(min_items = 1, max_items = 10_000)]
    pub user_ids: Vec<UserId>,
    /// How many users that is: a list that was cut short or doubled on its way is refused as a whole.
    #[schema(minimum = 1, maximum = 10_000)]
    pub expected_count: u64,
}

impl Recipients {
    pub fn errors(&self) -> Vec<FieldError> {
        let count = self.user_ids.len();
        let mut errors = Vec::new();
        if !(1..=MAX_USERS).contains(&count) {
            errors.push(FieldError::new("userIds", format!("expected 1 to {MAX_USERS} users, got {count}")));
        }
        let mut seen = HashSet::with_capacity(count);
        if let Some(twice) = self.user_ids.iter().find(|user| !seen.insert(**user)) {
            errors.push(FieldError::new("userIds", format!("expected each user once, got {twice} again")));
        }
        if self.expected_count != count as u64 {
            let message = format!("expected the number of users in userIds, which is {count}");
            errors.push(FieldError::new("expectedCount", message));
        }
        errors
    }
}

/// How far an assignment is.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema, EnumString, IntoStaticStr, VariantArray,
)]
#[serde(rename_all = "UPPERCASE")]
#[strum(serialize_all = "UPPERCASE", const_into_str)]
pub enum AssignmentStatus {
    /// Some of its users have no outcome yet.
    Pending,
    /// Every user has the coupon, or was refused.
    Done,
}

/// A coupon that is given to many users.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Assignment {
    /// Its id.
    #[serde(rename = "assignmentId")]
    pub id: AssignmentId,
    /// Which coupon.
    #[serde(rename = "couponId")]
    pub coupon: CouponId,
    /// To how many users.
    pub requested: u32,
    /// How far it is.
    pub status: AssignmentStatus,
}

/// An assignment, and what has become of it so far.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AssignmentState {
    /// The assignment.
    #[serde(flatten)]
    pub assignment: Assignment,
    /// Users who have the coupon by it.
    pub assigned: u32,
    /// Users who do not get it, counted by the code that says why.
    pub refused: BTreeMap<String, u32>,
    /// When it was asked for.
    #[serde(serialize_with = "crate::clock::serialize")]
    pub created_at: DateTime<Utc>,
    /// When the last user had an outcome.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(serialize_with = "crate::clock::serialize")]
    pub done_at: Option<DateTime<Utc>>,
}

/// What a user of an assignment got. The database spells a rejection by its code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, IntoStaticStr)]
#[strum(serialize_all = "UPPERCASE")]
pub enum AssignmentOutcome {
    Issued,
    #[strum(transparent)]
    Rejected(ClaimRejectReason),
}

/// A user of an assignment without a stored outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PendingUser {
    pub claim: ClaimId,
    pub user: UserId,
    /// The outcome of that claim, when it has one meanwhile.
    pub found: Option<AssignmentOutcome>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(users: impl IntoIterator<Item = u64>, expected_count: u64) -> Vec<String> {
        let user_ids = users.into_iter().map(|user| UserId::try_from(user).expect("an id")).collect();
        let errors = Recipients { user_ids, expected_count }.errors();
        errors.into_iter().map(|error| format!("{}: {}", error.field, error.message)).collect()
    }

    #[test]
    fn each_wrong_field_is_named() {
        assert_eq!(wrong(1..=10_000, 10_000), Vec::<String>::new());
        assert_eq!(wrong(1..=10_001, 10_001), ["userIds: expected 1 to 10000 users, got 10001"]);
        assert_eq!(wrong([], 0), ["userIds: expected 1 to 10000 users, got 0"]);
        assert_eq!(wrong([7, 8, 7], 3), ["userIds: expected each user once, got 7 again"]);
        assert_eq!(wrong([7, 8], 3), ["expectedCount: expected the number of users in userIds, which is 2"]);
    }
}
