//! What an administrator did, as `admin_actions` keeps it.

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{clock::Timestamp, identifiers::AdminActionId};

/// The longest reason, in characters.
pub const MAX_REASON_LENGTH: usize = 500;

/// Who changes something, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActionContext {
    /// The name of the caller's credential.
    pub actor: String,
    /// Finds the request in the log.
    pub request_id: String,
    pub reason: Option<String>,
    /// Of the request and all its repeats.
    pub operation: Uuid,
    pub at: Timestamp,
}

/// A change that an administrator made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewAdminAction {
    /// Such as `campaign.pause`.
    pub action: &'static str,
    /// What was changed, such as the id of the coupon.
    pub target_id: String,
    /// The changed fields before, as JSON; none when it was created.
    pub before: Option<String>,
    /// The changed fields after, as JSON; none when it was removed.
    pub after: Option<String>,
}

/// A change that an administrator made, and who did.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AdminAction {
    pub admin_action_id: AdminActionId,
    /// The name of the caller's credential.
    pub actor: String,
    #[schema(example = "campaign.pause")]
    pub action: String,
    /// What was changed, such as the id of the coupon.
    pub target_id: String,
    /// The changed fields before; left out when it was created.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub before: Option<Box<RawValue>>,
    /// The changed fields after; left out when it was removed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub after: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Finds the request in the log.
    pub request_id: String,
    #[serde(serialize_with = "crate::clock::serialize")]
    pub created_at: DateTime<Utc>,
}
