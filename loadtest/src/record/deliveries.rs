use std::{
    collections::{BTreeMap, HashMap},
    fs::{File, OpenOptions},
    io::{BufRead as _, BufReader, Read as _, Seek as _, SeekFrom},
    path::Path,
};

use anyhow::{Context as _, Result, bail};
use dibs_common::domain::event::MessageId;
use serde::{Deserialize, Serialize};

use super::Anomalies;

/// The longest line of a record, in bytes.
const MAX_LINE_BYTES: usize = 4_096;

/// A message that reached a receiver: one line of its record, in the order of arrival.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeliveryAttempt {
    pub sink: String,
    /// The message's id; empty when it had none.
    pub id: String,
    /// The event's type, such as `order.paid`.
    #[serde(rename = "type")]
    pub kind: String,
    pub aggregate_id: String,
    /// 1 for the first attempt of the message.
    pub attempt: u32,
    /// What is invalid about its signature, timestamp or body.
    pub fault: Option<String>,
    /// The HTTP status of the response.
    pub status: u16,
}

/// All that reached the receiver of one sink.
#[derive(Clone, Debug, Default)]
pub struct SinkDeliveries {
    pub attempts: u64,
    /// Attempts without a 2xx response.
    pub rejected: u64,
    /// Attempts with an invalid signature, timestamp or body.
    pub faults: Anomalies,
    /// Messages first accepted after a later message of the same aggregate.
    pub out_of_order: Vec<MessageId>,
    states: HashMap<MessageId, DeliveryState>,
    last: HashMap<String, MessageId>,
}

#[derive(Clone, Copy, Debug, Default)]
struct DeliveryState {
    attempts: u32,
    is_accepted: bool,
}

impl SinkDeliveries {
    /// Counts an attempt of a message; returns its number.
    pub fn next_attempt(&mut self, id: MessageId) -> u32 {
        let state = self.states.entry(id).or_default();
        state.attempts += 1;
        state.attempts
    }

    pub fn has_accepted(&self, id: MessageId) -> bool {
        self.states.get(&id).is_some_and(|state| state.is_accepted)
    }

    /// The accepted messages.
    pub fn accepted(&self) -> impl Iterator<Item = MessageId> {
        self.states.iter().filter(|(_, state)| state.is_accepted).map(|(id, _)| *id)
    }

    fn add(&mut self, attempt: &DeliveryAttempt) {
        self.attempts += 1;
        if let Some(fault) = &attempt.fault {
            self.faults.add(format!("{} {}: {fault}", attempt.sink, attempt.id));
        }
        // Without a valid id it cannot be compared with an event; the fault is counted above.
        let Ok(id) = attempt.id.parse::<MessageId>() else { return };
        if !(200..300).contains(&attempt.status) {
            self.rejected += 1;
            return;
        }
        let state = self.states.entry(id).or_default();
        // Delivery is at least once: order is a matter of the first accepted attempt alone.
        if std::mem::replace(&mut state.is_accepted, true) {
            return;
        }
        let last = self.last.entry(attempt.aggregate_id.clone()).or_insert(id);
        // Ids grow with the sequence of events. Gaps are no fault: other aggregates have those.
        if *last > id {
            self.out_of_order.push(id);
        } else {
            *last = id;
        }
    }
}

/// All that reached the receivers of a run.
#[derive(Clone, Debug, Default)]
pub struct Deliveries {
    /// By the name of the sink.
    pub sinks: BTreeMap<String, SinkDeliveries>,
    /// The receivers started after the event with this sequence, so they may miss it and those before.
    pub recorded_after: u64,
}

impl Deliveries {
    pub fn add(&mut self, attempt: &DeliveryAttempt) {
        self.sinks.entry(attempt.sink.clone()).or_default().add(attempt);
    }

    /// Opens a record to append to it, and creates it if there is none. Truncates an incomplete last line, so that the
    /// next line does not continue it.
    pub fn append_to(path: &Path) -> Result<File> {
        open_whole_lines(path).with_context(|| format!("opening {}", path.display()))
    }

    /// Reads the record of a receiver. The last line may be incomplete: the receiver may have been killed.
    pub fn read(path: &Path) -> Result<Self> {
        let file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
        Self::read_lines(BufReader::new(file)).with_context(|| format!("reading {}", path.display()))
    }

    fn read_lines(file: BufReader<File>) -> Result<Self> {
        let mut deliveries = Self::default();
        let mut invalid = None;
        for (number, line) in (1_u64..).zip(file.lines()) {
            // An invalid line is tolerated only at the end.
            if let Some(number) = invalid {
                bail!("line {number} is not a line of a receiver's record");
            }
            let line = line?;
            match serde_json::from_str(&line) {
                Ok(attempt) if line.len() <= MAX_LINE_BYTES => deliveries.add(&attempt),
                _ => invalid = Some(number),
            }
        }
        Ok(deliveries)
    }
}

fn open_whole_lines(path: &Path) -> std::io::Result<File> {
    let mut file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
    let mut length = file.metadata()?.len();
    // Only the end is read: a record of hours has millions of lines.
    file.seek(SeekFrom::Start(length.saturating_sub(MAX_LINE_BYTES as u64)))?;
    let mut end = Vec::new();
    file.read_to_end(&mut end)?;
    length -= end.iter().rev().take_while(|byte| **byte != b'\n').count() as u64;
    file.set_len(length)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Write as _, path::PathBuf};

    use dibs_common::domain::event::Epoch;

    use super::*;

    fn attempt(id: &str, aggregate: &str, status: u16) -> DeliveryAttempt {
        DeliveryAttempt {
            sink: "data-platform".into(),
            id: id.into(),
            kind: "order.paid".into(),
            aggregate_id: aggregate.into(),
            attempt: 1,
            fault: None,
            status,
        }
    }

    fn line(attempt: &DeliveryAttempt) -> String {
        serde_json::to_string(attempt).expect("JSON") + "\n"
    }

    /// A file of the test's own, which is removed at the end.
    struct Record(PathBuf);

    impl Record {
        fn with(text: &str) -> Self {
            let path = std::env::temp_dir().join(format!("dibs-record-{}", dibs_common::identifiers::new_uuid()));
            fs::write(&path, text).expect("written");
            Self(path)
        }
    }

    const fn id(sequence: u64, place: u32) -> MessageId {
        MessageId { epoch: Epoch(0), sequence, place }
    }

    impl Drop for Record {
        fn drop(&mut self) {
            let _removed = fs::remove_file(&self.0);
        }
    }

    #[test]
    fn a_late_first_delivery_is_out_of_order_and_a_redelivery_is_not() {
        let mut deliveries = Deliveries::default();
        for (id, aggregate, status) in [
            ("event-1-0", "a", 200),
            ("event-3-0", "a", 503),
            ("event-2-0", "b", 200),
            ("event-3-0", "a", 200),
            ("event-1-0", "a", 200),
            ("event-10-0", "a", 200),
            ("event-9-0", "a", 204),
        ] {
            deliveries.add(&attempt(id, aggregate, status));
        }
        let sink = &deliveries.sinks["data-platform"];
        assert_eq!(sink.out_of_order, [id(9, 0)]);
        assert_eq!((sink.attempts, sink.rejected, sink.accepted().count()), (7, 1, 5));
    }

    #[test]
    fn attempts_of_a_message_are_numbered() {
        let mut sink = SinkDeliveries::default();
        let (one, other) = (id(1, 0), id(1, 1));
        assert_eq!([sink.next_attempt(one), sink.next_attempt(one), sink.next_attempt(other)], [1, 2, 1]);
        assert!(!sink.has_accepted(one));
    }

    #[test]
    fn an_invalid_attempt_is_a_fault_even_without_an_id() {
        let mut deliveries = Deliveries::default();
        deliveries.add(&DeliveryAttempt { fault: Some("no timestamp".into()), ..attempt("", "a", 401) });
        let sink = &deliveries.sinks["data-platform"];
        assert_eq!(sink.faults.samples(), ["data-platform : no timestamp"]);
        assert_eq!((sink.attempts, sink.rejected, sink.accepted().count()), (1, 0, 0));
    }

    #[test]
    fn a_record_is_read_without_an_incomplete_last_line() {
        let record = Record::with(&(line(&attempt("event-1-0", "a", 204)) + "{\"sink\": \"data"));
        let read = Deliveries::read(&record.0).expect("a record");
        assert_eq!(read.sinks["data-platform"].attempts, 1);
    }

    #[test]
    fn an_invalid_line_within_a_record_is_an_error_that_names_it() {
        let valid = line(&attempt("event-1-0", "a", 204));
        for invalid in ["{}\n".to_owned(), "x".repeat(10) + "\n", format!("{}\n", " ".repeat(MAX_LINE_BYTES) + &valid)]
        {
            let record = Record::with(&(valid.clone() + &invalid + &valid));
            let error = format!("{:#}", Deliveries::read(&record.0).expect_err("invalid"));
            assert!(error.ends_with("line 2 is not a line of a receiver's record"), "{error}");
        }
    }

    #[test]
    fn a_record_is_continued_after_its_last_whole_line() {
        let whole = line(&attempt("event-1-0", "a", 204));
        let record = Record::with(&(whole.clone() + "{\"sink\": \"data"));
        let more = line(&attempt("event-2-0", "a", 204));
        Deliveries::append_to(&record.0).expect("opened").write_all(more.as_bytes()).expect("written");
        assert_eq!(fs::read_to_string(&record.0).expect("read"), whole + &more);
    }
}
