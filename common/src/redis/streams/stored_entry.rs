//! A stream entry as a dead letter holds it: its fields as a JSON object, and where it was.

use std::collections::{BTreeMap, HashMap};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Entry, Malformed};
use crate::{
    domain::dead_letter::{DeadLetter, NewDeadLetter},
    identifiers::Partition,
};

/// The type of a letter whose entry has an unknown type.
const UNKNOWN: &str = "unknown";

/// A field that is text is a string, so that an administrator can read it. Any other is `{"base64": ".."}`.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Field<'f> {
    Text(std::borrow::Cow<'f, str>),
    Binary { base64: String },
}

#[derive(Clone, Copy, Debug)]
pub struct FailedEntry<'f> {
    pub partition: Partition,
    pub id: &'f str,
    pub fields: &'f HashMap<String, Bytes>,
    pub reason: &'f str,
    pub attempts: u64,
    /// Whether it may still get its outcome from a redrive.
    pub redrivable: bool,
}

pub fn dead_letter<E: Entry>(failed: FailedEntry<'_>) -> NewDeadLetter {
    let FailedEntry { partition, id, fields, reason, attempts, redrivable } = failed;
    let is_known = fields.get("type").is_some_and(|kind| kind == E::TYPE);
    NewDeadLetter {
        source: E::SOURCE.to_owned(),
        key: format!("{}/{}/{id}", partition.0, E::NAME),
        // An unknown type is any text, of any length: it stays in the payload, and out of the column and the labels.
        kind: if is_known { E::TYPE } else { UNKNOWN }.to_owned(),
        aggregate_id: E::read(fields).ok().map(|entry| entry.aggregate_id()),
        payload: write_fields(fields),
        redrivable,
        reason: reason.to_owned(),
        attempts: u32::try_from(attempts).unwrap_or(u32::MAX),
    }
}

/// The partition and the fields of a letter of claims or commands.
pub fn stored_entry(letter: &DeadLetter) -> Result<(Partition, HashMap<String, Bytes>), Malformed> {
    let partition = letter.source_key.split('/').next().and_then(|number| number.parse().ok()).map(Partition);
    let partition = partition.ok_or_else(|| Malformed(format!("no partition in '{}'", letter.source_key)))?;
    read_fields(&letter.payload).map(|fields| (partition, fields))
}

fn write_fields(fields: &HashMap<String, Bytes>) -> String {
    // Sorted, so that the same entry always gives the same payload.
    let fields: BTreeMap<&str, Field<'_>> = fields
        .iter()
        .map(|(name, value)| match std::str::from_utf8(value) {
            Ok(text) => (name.as_str(), Field::Text(text.into())),
            Err(_) => (name.as_str(), Field::Binary { base64: STANDARD.encode(value) }),
        })
        .collect();
    // A map of strings always is JSON.
    serde_json::to_string(&fields).unwrap_or_default()
}

/// The fields of a letter's payload.
pub fn read_fields(payload: &str) -> Result<HashMap<String, Bytes>, Malformed> {
    let malformed = |error: &dyn std::fmt::Display| Malformed(format!("payload of a dead letter: {error}"));
    let fields: BTreeMap<String, Field<'_>> = serde_json::from_str(payload).map_err(|error| malformed(&error))?;
    let decode = |(name, value)| match value {
        Field::Text(text) => Ok((name, Bytes::from(text.into_owned()))),
        Field::Binary { base64 } => {
            STANDARD.decode(base64).map(|value| (name, value.into())).map_err(|error| malformed(&error))
        }
    };
    fields.into_iter().map(decode).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_survive_writing_and_reading() {
        let fields = HashMap::from([
            ("type".to_owned(), Bytes::from_static(b"claims.v1")),
            ("answers".to_owned(), Bytes::new()),
            ("claims".to_owned(), Bytes::from_static(&[0xff, 0, 1])),
            ("text".to_owned(), Bytes::from("커피 \"\0\"")),
        ]);
        let payload = write_fields(&fields);
        assert!(
            payload.contains(r#""type":"claims.v1""#) && payload.contains(r#""claims":{"base64":"/wAB"}"#),
            "{payload}"
        );
        assert_eq!(read_fields(&payload), Ok(fields));
        for invalid in ["", "[]", r#"{"claims":7}"#, r#"{"claims":{"base64":"?"}}"#] {
            assert!(read_fields(invalid).expect_err(invalid).0.starts_with("payload of a dead letter: "));
        }
    }
}
