//! Dead letters: messages and stream entries that could not be processed, until an administrator redrives or drops
//! them.

use chrono::{DateTime, Utc};
use serde::Serialize;
use strum::{EnumString, IntoStaticStr, VariantArray};
use utoipa::ToSchema;

use crate::identifiers::DeadLetterId;

/// The source of dead-lettered entries of claims.
pub const CLAIMS: &str = "claims";
/// The source of dead-lettered entries of commands.
pub const COMMANDS: &str = "commands";
/// The longest payload that is stored completely, in bytes.
pub const MAX_PAYLOAD_BYTES: usize = 256 * 1024;
/// The longest reason, in characters.
pub const MAX_REASON_LENGTH: usize = 1_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema, EnumString, IntoStaticStr, VariantArray)]
#[serde(rename_all = "UPPERCASE")]
#[strum(serialize_all = "UPPERCASE", const_into_str)]
pub enum DeadLetterStatus {
    Dead,
    /// A redrive is requested.
    Redrive,
    /// The redrive succeeded.
    Sent,
    /// An administrator dropped it. It is kept for a while, so that its end can be looked up.
    Dropped,
}

crate::json::read_by_spelling!(DeadLetterStatus);

/// A message or entry to dead-letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewDeadLetter {
    /// The sink that did not accept it, the topic it came from, or the streams it was read from; at most 100
    /// characters.
    pub source: String,
    /// Its id at the source, at most 200 characters. The same key is dead-lettered once.
    pub key: String,
    /// Its type, such as `order.paid`; at most 100 characters.
    pub kind: String,
    /// The id of the coupon or order that it is about, when that is known; at most 100 characters.
    pub aggregate_id: Option<String>,
    /// As it was sent or came; any text. Beyond [`MAX_PAYLOAD_BYTES`] it is cut, and then not redrivable.
    pub payload: String,
    /// Whether a redrive can succeed.
    pub redrivable: bool,
    /// The error of the last attempt; beyond [`MAX_REASON_LENGTH`] it is cut.
    pub reason: String,
    pub attempts: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeadLetter {
    #[serde(rename = "deadLetterId")]
    pub id: DeadLetterId,
    /// The sink that did not accept it, such as `data-platform`, the topic it came from, such as
    /// `coupon.issue.requested`, or the streams it was read from: `claims` or `commands`.
    pub source: String,
    /// Its id at the source: of a message; topic, partition and offset; or partition, stream and entry.
    pub source_key: String,
    /// Its type, such as `order.paid` or `claims.v1`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The id of the coupon or order that it is about; null when that is not known.
    #[schema(required)]
    pub aggregate_id: Option<String>,
    /// As it was sent or came; it need not be JSON. Of a stream entry, an object of its fields.
    pub payload: String,
    /// How long the payload was, in bytes.
    pub payload_bytes: u32,
    /// Whether a redrive can succeed. One whose payload was cut cannot.
    pub redrivable: bool,
    /// The error of the last attempt.
    pub reason: String,
    /// All attempts, those of redrives included.
    pub attempts: u32,
    pub status: DeadLetterStatus,
    /// When its last attempt failed.
    #[serde(serialize_with = "crate::clock::serialize")]
    pub dead_lettered_at: DateTime<Utc>,
    /// When a redrive was last requested; null when none was.
    #[serde(serialize_with = "crate::clock::serialize")]
    #[schema(required)]
    pub redrive_at: Option<DateTime<Utc>>,
    /// When a redrive succeeded; null when none did.
    #[serde(serialize_with = "crate::clock::serialize")]
    #[schema(required)]
    pub sent_at: Option<DateTime<Utc>>,
    /// When it was dropped; null when it was not.
    #[serde(serialize_with = "crate::clock::serialize")]
    #[schema(required)]
    pub dropped_at: Option<DateTime<Utc>>,
}

/// The outcome of a redrive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Redriven {
    /// Attempts are those of this redrive.
    Sent { attempts: u32 },
    /// It failed for good again.
    Dead { reason: String, attempts: u32 },
}

/// The beginning of a text: at most so many bytes, and whole characters.
pub fn beginning(text: &str, bytes: usize) -> &str {
    let end = (0..=bytes.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or(0)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_between_characters() {
        assert_eq!(beginning("커피", 5), "커");
        assert_eq!(beginning("커피", 6), "커피");
        assert_eq!(beginning("커피", 100), "커피");
        assert_eq!(beginning("", 3), "");
    }
}
