//! What an administrator did, as `admin_actions` keeps it.

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::{Map, Value, value::RawValue};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{clock::Timestamp, identifiers::AdminActionId};

/// The longest reason, in characters.
pub const MAX_REASON_LENGTH: usize = 500;
/// The longest id of what was changed, in characters.
pub const MAX_TARGET_LENGTH: usize = 64;

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

impl ActionContext {
    /// Of a process that acts by itself or for its operator, such as `dibs-worker seed`.
    pub fn of_process(actor: &str, operation: Uuid, at: Timestamp) -> Self {
        Self { actor: actor.into(), request_id: String::new(), reason: None, operation, at }
    }
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

impl NewAdminAction {
    /// Of something that was created.
    pub fn created(action: &'static str, target_id: &impl ToString, after: &impl Serialize) -> Self {
        let after = Value::from(fields(after)).to_string();
        Self { action, target_id: target_id.to_string(), before: None, after: Some(after) }
    }

    /// Of something whose fields were changed.
    pub fn changed(action: &'static str, target_id: &impl ToString, fields: &ChangedFields) -> Self {
        let text = |fields: &Map<String, Value>| Some(Value::from(fields.clone()).to_string());
        Self { action, target_id: target_id.to_string(), before: text(&fields.before), after: text(&fields.after) }
    }
}

/// The fields in which two versions of something differ.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct ChangedFields {
    #[schema(value_type = Object)]
    pub before: Map<String, Value>,
    #[schema(value_type = Object)]
    pub after: Map<String, Value>,
}

impl ChangedFields {
    pub fn between(before: &impl Serialize, after: &impl Serialize) -> Self {
        let (mut before, mut after) = (fields(before), fields(after));
        before.retain(|name, value| {
            let is_changed = after.get(name) != Some(value);
            if !is_changed {
                after.remove(name);
            }
            is_changed
        });
        Self { before, after }
    }
}

/// The fields of a struct. Its serialization cannot fail, as no field of an action's target can.
fn fields(of: &impl Serialize) -> Map<String, Value> {
    match serde_json::to_value(of) {
        Ok(Value::Object(fields)) => fields,
        _ => Map::new(),
    }
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
