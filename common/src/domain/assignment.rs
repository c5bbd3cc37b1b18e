//! Assignments: an administrator gives a coupon to many users at once.

use std::{
    collections::{BTreeMap, HashSet},
    fmt,
};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use strum::{EnumString, IntoStaticStr, VariantArray};
use utoipa::ToSchema;

use super::claim::ClaimRejectReason;
use crate::{
    domain::FieldError,
    identifiers::{AssignmentId, ClaimId, CouponId, UserId, parse_uuid},
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

/// The longest name of an assignment, in characters.
pub const MAX_KEY_LENGTH: usize = 64;

/// What names an assignment of a coupon in URLs: its caller's word for a list that is sent whole, else its id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "String")]
#[schema(value_type = String, format = "assignment-key", min_length = 1, max_length = 64)]
pub struct AssignmentKey(String);

impl AssignmentKey {
    /// What is expected of one, in words.
    pub const EXPECTED: &str =
        "1 to 64 letters, digits, dots, hyphens and underscores, of which the first is a letter or a digit";

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for AssignmentKey {
    type Error = String;

    fn try_from(key: String) -> Result<Self, String> {
        let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
        // No dot first: clients resolve `.` and `..` in a path.
        let begins = key.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric);
        if begins && key.len() <= MAX_KEY_LENGTH && key.bytes().all(is_part) {
            Ok(Self(key))
        } else {
            Err(format!("expected {}", Self::EXPECTED))
        }
    }
}

impl From<AssignmentId> for AssignmentKey {
    fn from(id: AssignmentId) -> Self {
        Self(id.to_string())
    }
}

impl fmt::Display for AssignmentKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// How far an assignment is.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema, EnumString, IntoStaticStr, VariantArray,
)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[strum(serialize_all = "SCREAMING_SNAKE_CASE", const_into_str)]
pub enum AssignmentStatus {
    /// A second administrator has to approve it. Until then it has no effect.
    AwaitingApproval,
    /// An administrator refused it. It has no effect.
    Rejected,
    /// It was not approved in time. It has no effect.
    Expired,
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

/// An assignment, who decided it, and what has become of it so far.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AssignmentState {
    /// The assignment.
    #[serde(flatten)]
    pub assignment: Assignment,
    /// What names it in URLs.
    pub key: AssignmentKey,
    /// Users who have the coupon by it.
    pub assigned: u32,
    /// Users who do not get it, counted by the code that says why.
    pub refused: BTreeMap<String, u32>,
    /// Who asked for it: the name of the credential.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requested_by: Option<String>,
    /// Who approved or rejected it; left out when it needed no approval, or has none yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decided_by: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "crate::clock::serialize")]
    pub decided_at: Option<DateTime<Utc>>,
    /// Until when it can be approved; left out when it needs no approval.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "crate::clock::serialize")]
    pub approval_expires_at: Option<DateTime<Utc>>,
    /// When it was asked for.
    #[serde(serialize_with = "crate::clock::serialize")]
    pub created_at: DateTime<Utc>,
    /// When the last user had an outcome.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "crate::clock::serialize")]
    pub done_at: Option<DateTime<Utc>>,
}

/// A user who does not get the coupon by an assignment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RefusedUser {
    pub user_id: UserId,
    /// The claim by which the user would have got it.
    pub claim_id: ClaimId,
    /// Why not.
    pub code: ClaimRejectReason,
}

/// What a user of an assignment got. The database spells a rejection by its code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, IntoStaticStr)]
#[strum(serialize_all = "UPPERCASE")]
pub enum AssignmentOutcome {
    Issued,
    #[strum(transparent)]
    Rejected(ClaimRejectReason),
}

/// The request id of claims by which an assignment gives its coupon. Entries of the stream have it.
pub fn request_of(assignment: AssignmentId) -> String {
    format!("{REQUEST_PREFIX}{assignment}")
}

/// The assignment of a claim with that request id.
pub fn assignment_of(request: &str) -> Option<AssignmentId> {
    request.strip_prefix(REQUEST_PREFIX).and_then(parse_uuid).map(AssignmentId)
}

const REQUEST_PREFIX: &str = "assignment ";

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

    #[test]
    fn a_key_is_one_part_of_a_path() {
        for key in ["a", "7", "may-2026_vip.csv", &"k".repeat(MAX_KEY_LENGTH)] {
            assert_eq!(AssignmentKey::try_from(key.to_owned()).map(|key| key.to_string()).as_deref(), Ok(key));
        }
        for key in ["", ".", "..", "-a", "a/b", "a b", "a%", "\u{e9}", &"k".repeat(MAX_KEY_LENGTH + 1)] {
            assert!(AssignmentKey::try_from(key.to_owned()).is_err(), "{key}");
        }
        let id = AssignmentId::generate();
        assert_eq!(AssignmentKey::try_from(id.to_string()), Ok(id.into()), "an id is a key");
    }

    #[test]
    fn a_claim_names_its_assignment() {
        let id = AssignmentId::generate();
        assert_eq!(assignment_of(&request_of(id)), Some(id));
        assert_eq!([assignment_of(""), assignment_of(&id.to_string())], [None, None]);
    }
}
