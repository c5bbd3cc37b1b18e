//! API keys: credentials of servers and administrators.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{FieldError, access::Scope};
use crate::{clock::Timestamp, identifiers::ApiKeyId, json};

/// What every key begins with, so that scanners of source code find one that leaked.
pub const KEY_PREFIX: &str = "dibs_";
/// Usable at once. Every API process holds all of them in memory.
pub const MAX_USABLE_KEYS: u32 = 1_000;
/// In characters.
pub const MAX_NAME_LENGTH: usize = 64;
/// Names that other actors of `admin_actions` have.
const RESERVED_NAMES: [&str; 2] = ["ADMIN_TOKEN", "dibs-worker"];

/// A key that is to be created.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewApiKey {
    /// Whose key it is: the actor in the list of actions. 1 to 64 letters, digits, dots, underscores and hyphens, beginning
    /// with a letter or digit; not that of another key, revoked ones included.
    #[schema(min_length = 1, max_length = 64, pattern = "^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    pub name: String,
    /// What it may do.
    #[schema(min_items = 1, max_items = 6)]
    pub scopes: Vec<Scope>,
    /// When it ceases to count; left out, it does not expire.
    #[serde(default, deserialize_with = "json::optional_time")]
    pub expires_at: Option<DateTime<Utc>>,
}

impl NewApiKey {
    /// What is wrong with it at the time `now`.
    pub fn errors_at(&self, now: Timestamp) -> Vec<FieldError> {
        let mut errors = Vec::new();
        if !is_name(&self.name) {
            let expected = format!(
                "expected 1 to {MAX_NAME_LENGTH} letters, digits, dots, underscores and hyphens, beginning with a letter or \
                 digit"
            );
            errors.push(FieldError::new("name", expected));
        } else if RESERVED_NAMES.iter().any(|reserved| self.name.eq_ignore_ascii_case(reserved)) {
            errors.push(FieldError::new("name", "expected another name: Dibs itself acts under this one"));
        }
        if self.scopes.is_empty() {
            errors.push(FieldError::new("scopes", "expected at least one scope"));
        } else if has_repetition(&self.scopes) {
            errors.push(FieldError::new("scopes", "expected each scope once"));
        }
        if self.expires_at.is_some_and(|expires| expires <= now) {
            errors.push(FieldError::new("expiresAt", "expected a time in the future"));
        }
        errors
    }
}

fn is_name(name: &str) -> bool {
    (1..=MAX_NAME_LENGTH).contains(&name.len())
        && name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name.chars().all(|character| character.is_ascii_alphanumeric() || "._-".contains(character))
}

fn has_repetition(scopes: &[Scope]) -> bool {
    scopes.iter().enumerate().any(|(place, scope)| scopes[..place].contains(scope))
}

/// A key, without the secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ApiKey {
    pub api_key_id: ApiKeyId,
    pub name: String,
    pub scopes: Vec<Scope>,
    #[serde(serialize_with = "crate::clock::serialize")]
    pub created_at: DateTime<Utc>,
    /// Left out when it does not expire.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "crate::clock::serialize")]
    pub expires_at: Option<DateTime<Utc>>,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "crate::clock::serialize")]
    pub revoked_at: Option<DateTime<Utc>>,
    /// To the minute; left out when it was never used.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "crate::clock::serialize")]
    pub last_used_at: Option<DateTime<Utc>>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::from_millis;

    fn fields(change: impl FnOnce(&mut NewApiKey)) -> Vec<String> {
        let mut key = NewApiKey { name: "shop-1".into(), scopes: vec![Scope::Claims], expires_at: None };
        change(&mut key);
        key.errors_at(from_millis(1_000)).into_iter().map(|error| error.field.into_owned()).collect()
    }

    #[test]
    fn wrong_fields_are_named() {
        assert_eq!(fields(|_| ()), Vec::<String>::new());
        for name in ["", "a b", "-a", ".a", "shöp", "a\n", "admin_token", "Dibs-Worker", &"a".repeat(65)] {
            assert_eq!(fields(|key| key.name = name.into()), ["name"], "{name}");
        }
        assert_eq!(fields(|key| key.name = "a".repeat(64)), Vec::<String>::new());
        assert_eq!(fields(|key| key.scopes = vec![]), ["scopes"]);
        assert_eq!(fields(|key| key.scopes = vec![Scope::Read, Scope::Read]), ["scopes"]);
        assert_eq!(fields(|key| key.expires_at = Some(from_millis(1_000))), ["expiresAt"]);
        assert_eq!(fields(|key| key.expires_at = Some(from_millis(1_001))), Vec::<String>::new());
    }
}
