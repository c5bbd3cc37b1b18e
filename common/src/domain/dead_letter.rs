//! Dead letters: what Dibs has given up on, until somebody asks for it to be sent again.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::identifiers::DeadLetterId;

/// The longest payload that is kept whole, in bytes.
pub const LONGEST_PAYLOAD: usize = 256 * 1024;
/// The longest reason, in characters.
pub const LONGEST_REASON: usize = 1_000;

/// Where a dead letter is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum DeadLetterStatus {
    /// It was given up on.
    Dead,
    /// Somebody asked for it to be sent again.
    Redrive,
    /// It was sent again and taken.
    Sent,
}

impl DeadLetterStatus {
    const ALL: [Self; 3] = [Self::Dead, Self::Redrive, Self::Sent];

    /// As the database spells it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Dead => "DEAD",
            Self::Redrive => "REDRIVE",
            Self::Sent => "SENT",
        }
    }

    /// The status of that spelling, if there is one.
    pub fn from_spelling(spelled: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == spelled)
    }
}

/// Something to give up on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewDeadLetter {
    /// The sink that did not take it, or the intake it came in by; at most 100 characters.
    pub source: String,
    /// What the source knows it by; at most 200 characters.
    pub key: String,
    /// What it tells, such as `order.paid`; at most 100 characters.
    pub kind: String,
    /// The id of what it is about, when that is known; at most 100 characters.
    pub aggregate_id: Option<String>,
    /// As it was sent or came; any text. Beyond [`LONGEST_PAYLOAD`] it is cut, and can then not be sent again.
    pub payload: String,
    /// Whether it can be sent again as it is.
    pub redrivable: bool,
    /// Why it is given up on; beyond [`LONGEST_REASON`] it is cut.
    pub reason: String,
    /// How often it was tried.
    pub attempts: u32,
}

/// A dead letter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeadLetter {
    /// Its id.
    #[serde(rename = "deadLetterId")]
    pub id: DeadLetterId,
    /// The sink that did not take it, such as `data-platform`, or the intake it came in by, such as
    /// `coupon.issue.requested`.
    pub source: String,
    /// What the source knows it by: the id of a message, or topic, partition and offset.
    pub source_key: String,
    /// What it tells, such as `order.paid`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The id of what it is about; null when that is not known.
    pub aggregate_id: Option<String>,
    /// As it was sent or came; it need not be JSON.
    pub payload: String,
    /// How long the payload was, in bytes.
    pub payload_bytes: u32,
    /// Whether it can be sent again as it is. One whose payload was cut cannot.
    pub redrivable: bool,
    /// Why it was given up on: the last answer it got.
    pub reason: String,
    /// How often it was tried in all.
    pub attempts: u32,
    /// Where it is in its life.
    pub status: DeadLetterStatus,
    /// When it was last given up on.
    pub buried_at: DateTime<Utc>,
    /// When somebody last asked for it to be sent again; null when nobody did.
    pub redrive_at: Option<DateTime<Utc>>,
    /// When it was taken; null when it was not.
    pub sent_at: Option<DateTime<Utc>>,
}

/// What became of a dead letter that was sent again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Redriven {
    /// It was taken.
    Sent {
        /// How often it was tried this time.
        attempts: u32,
    },
    /// It was given up on once more.
    Dead {
        /// Why; beyond [`LONGEST_REASON`] it is cut.
        reason: String,
        /// How often it was tried this time.
        attempts: u32,
    },
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

    #[test]
    fn statuses_are_read_as_they_are_spelled() {
        for status in DeadLetterStatus::ALL {
            assert_eq!(DeadLetterStatus::from_spelling(status.as_str()), Some(status));
        }
    }
}
