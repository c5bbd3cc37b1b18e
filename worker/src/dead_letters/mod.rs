//! Dead letters as an operator handles them, and the task that redrives those of the streams.

mod redrive;

use dibs_common::{
    domain::dead_letter::{DeadLetter, beginning},
    metric_table::label,
};
use metrics::Counter;
pub use redrive::redrive_once;
pub(crate) use redrive::run;

/// How much of a payload is shown, in bytes.
const SHOWN: usize = 300;

/// Counts new dead letters of a source.
pub(crate) fn counter(source: &str) -> Counter {
    metrics::counter!("dibs_dead_letters_total", "source" => label(source))
}

/// Counts and logs a new dead letter. At the level ERROR, whatever its source: no component tries it again, so a person
/// decides.
pub(crate) fn report(source: &str, message: &str, reason: &str) {
    counter(source).increment(1);
    tracing::error!(source, message, reason, "message dead-lettered");
}

/// A dead letter on one line, its fields between tabs: id, status, source, key, type, aggregate, attempts, when it was
/// dead-lettered, reason, and the beginning of the payload.
pub fn dead_letter_line(letter: &DeadLetter) -> String {
    let fields = [
        letter.id.to_string(),
        letter.status.into_str().to_owned(),
        letter.source.clone(),
        letter.source_key.clone(),
        letter.kind.clone(),
        letter.aggregate_id.clone().unwrap_or_else(|| "-".into()),
        format!("{} attempts", letter.attempts),
        letter.dead_lettered_at.to_rfc3339(),
        letter.reason.clone(),
        beginning(&letter.payload, SHOWN).to_owned(),
    ];
    // A sender chose the text: without control characters it stays on its line and cannot steer the terminal.
    let clean = |field: &String| field.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>();
    fields.iter().map(clean).collect::<Vec<_>>().join("\t")
}

#[cfg(test)]
mod tests {
    use dibs_common::{clock::from_millis, domain::dead_letter::DeadLetterStatus, identifiers::DeadLetterId};

    use super::*;

    #[test]
    fn a_dead_letter_is_one_line_whatever_it_says() {
        let letter = DeadLetter {
            id: DeadLetterId::try_from(3).expect("an id"),
            source: "data-platform".into(),
            source_key: "event-7-0".into(),
            kind: "order.paid".into(),
            aggregate_id: None,
            payload: "a\n\u{1b}[2Jb\t".repeat(1_000),
            payload_bytes: 8_000,
            redrivable: true,
            reason: "it answered 422:\nno".into(),
            attempts: 2,
            status: DeadLetterStatus::Dead,
            dead_lettered_at: from_millis(0),
            redrive_at: None,
            sent_at: None,
            dropped_at: None,
        };
        let line = dead_letter_line(&letter);
        assert!(line.starts_with("3\tDEAD\tdata-platform\tevent-7-0\torder.paid\t-\t2 attempts\t1970-01-01"), "{line}");
        assert!(line.contains("\tit answered 422: no\ta  [2Jb a"), "{line}");
        assert!(line.len() < 500 && line.split('\t').count() == 10, "{line}");
    }
}
