use std::{
    collections::{BTreeMap, HashMap},
    fs::{File, OpenOptions},
    io::{BufRead as _, BufReader, Read as _, Seek as _, SeekFrom},
    path::Path,
};

use anyhow::{Context as _, Result, bail};
use dibs_common::integrations::messages::MessageId;
use serde::{Deserialize, Serialize};

use super::Oddities;

/// The longest line of a record that is read, in bytes.
const LONGEST_LINE: usize = 4_096;

/// A message that came to a receiver: a line of its record, in the order in which they came.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Arrival {
    /// Which sink was served.
    pub sink: String,
    /// The message's id.
    pub id: String,
    /// What it tells, such as `order.paid`.
    #[serde(rename = "type")]
    pub kind: String,
    /// What it is about.
    pub aggregate_id: String,
    /// 1 when the message came for the first time.
    pub attempt: u32,
    /// What is wrong with its signature, its time or its form; none when all is right.
    pub fault: Option<String>,
    /// The status that it was answered.
    pub status: u16,
}

/// All that came to the receiver of one sink.
#[derive(Clone, Debug, Default)]
pub struct SinkDeliveries {
    /// How often something came.
    pub arrivals: u64,
    /// How often it was answered otherwise than with 2xx.
    pub refused: u64,
    /// What came with a wrong signature, time or form.
    pub faults: Oddities,
    /// Messages that were taken for the first time after a later one about the same thing.
    pub out_of_order: Vec<MessageId>,
    seen: HashMap<MessageId, Seen>,
    last: HashMap<String, MessageId>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    attempts: u32,
    is_taken: bool,
}

impl SinkDeliveries {
    /// How often a message came so far, with this time.
    pub fn next_attempt(&mut self, id: MessageId) -> u32 {
        let seen = self.seen.entry(id).or_default();
        seen.attempts += 1;
        seen.attempts
    }

    /// Whether a message was taken.
    pub fn has_taken(&self, id: MessageId) -> bool {
        self.seen.get(&id).is_some_and(|seen| seen.is_taken)
    }

    /// The messages that were taken.
    pub fn taken(&self) -> impl Iterator<Item = MessageId> {
        self.seen.iter().filter(|(_, seen)| seen.is_taken).map(|(id, _)| *id)
    }

    /// Adds what came next, once its attempt is counted.
    fn add(&mut self, arrival: &Arrival) {
        self.arrivals += 1;
        if let Some(fault) = &arrival.fault {
            self.faults.add(format!("{} {}: {fault}", arrival.sink, arrival.id));
        }
        let Ok(id) = arrival.id.parse::<MessageId>() else { return };
        if !(200..300).contains(&arrival.status) {
            self.refused += 1;
            return;
        }
        let seen = self.seen.entry(id).or_default();
        if std::mem::replace(&mut seen.is_taken, true) {
            return;
        }
        let last = self.last.entry(arrival.aggregate_id.clone()).or_insert(id);
        if *last > id {
            self.out_of_order.push(id);
        } else {
            *last = id;
        }
    }
}

/// All that came to the receivers of a run, by sink.
#[derive(Clone, Debug, Default)]
pub struct Deliveries {
    /// By the name of the sink.
    pub sinks: BTreeMap<String, SinkDeliveries>,
    /// The receivers need not have been told of events up to this sequence: they were not there yet.
    pub begun_after: u64,
}

impl Deliveries {
    /// Adds what came next.
    pub fn add(&mut self, arrival: &Arrival) {
        self.sinks.entry(arrival.sink.clone()).or_default().add(arrival);
    }

    /// Opens a record to add to it, and makes it where there is none. A last line that was cut off as it was written is
    /// taken away, lest the next be written behind it.
    pub fn append_to(path: &Path) -> Result<File> {
        let what = path.display().to_string();
        let mut file =
            OpenOptions::new().read(true).append(true).create(true).open(path).with_context(|| what.clone())?;
        let mut whole = file.metadata().with_context(|| what.clone())?.len();
        file.seek(SeekFrom::Start(whole.saturating_sub(LONGEST_LINE as u64))).with_context(|| what.clone())?;
        let mut end = Vec::new();
        file.read_to_end(&mut end).with_context(|| what.clone())?;
        whole -= end.iter().rev().take_while(|byte| **byte != b'\n').count() as u64;
        file.set_len(whole).with_context(|| what.clone())?;
        Ok(file)
    }

    /// Reads the record that a receiver wrote. The last line may have been cut off as it was written.
    pub fn read(path: &Path) -> Result<Self> {
        let what = path.display().to_string();
        let lines = BufReader::new(File::open(path).with_context(|| what.clone())?).lines();
        let mut deliveries = Self::default();
        let mut broken = None;
        for (number, line) in (1_u64..).zip(lines) {
            if let Some(number) = broken {
                bail!("{what}: line {number} is none of a receiver's record");
            }
            let line = line.with_context(|| what.clone())?;
            match serde_json::from_str(&line) {
                Ok(arrival) if line.len() <= LONGEST_LINE => deliveries.add(&arrival),
                _ => broken = Some(number),
            }
        }
        Ok(deliveries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrival(id: &str, aggregate: &str, status: u16) -> Arrival {
        Arrival {
            sink: "data-platform".into(),
            id: id.into(),
            kind: "order.paid".into(),
            aggregate_id: aggregate.into(),
            attempt: 1,
            fault: None,
            status,
        }
    }

    #[test]
    fn what_is_taken_late_is_out_of_order_and_what_comes_twice_is_not() {
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
            deliveries.add(&arrival(id, aggregate, status));
        }
        let of_sink = &deliveries.sinks["data-platform"];
        assert_eq!(of_sink.out_of_order, [MessageId { sequence: 9, place: 0 }]);
        assert_eq!((of_sink.arrivals, of_sink.refused, of_sink.taken().count()), (7, 1, 5));
    }
}
