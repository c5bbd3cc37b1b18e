use std::collections::HashMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Entry, Malformed};
use crate::{
    domain::{
        dead_letter::COMMANDS,
        order::{Command, OrderOutcome},
        trace_context::TraceContext,
    },
    error::{Error, Result},
    identifiers::{CommandId, Partition},
    redis::keys::{Keys, ORDERS_GROUP},
};

/// One command, as the API appended it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrderEntry {
    /// Where a process waits for the outcome; empty for none. The field `answers` of an entry, whose names every
    /// version reads.
    pub reply_channel: String,
    /// The id of the request that sent it.
    pub request: String,
    pub command: Command,
}

impl OrderEntry {
    /// Its fields, names and values in turn.
    pub fn fields(&self) -> Result<Vec<String>> {
        let command = serde_json::to_string(&self.command).map_err(Error::internal)?;
        let fields =
            [("type", Self::TYPE), ("answers", &self.reply_channel), ("request", &self.request), ("command", &command)];
        Ok(fields.into_iter().flat_map(|(name, value)| [name.to_owned(), value.to_owned()]).collect())
    }
}

impl Entry for OrderEntry {
    const GROUP: &'static str = ORDERS_GROUP;
    const NAME: &'static str = "orders";
    const TYPE: &'static str = "orders.v1";
    const SOURCE: &'static str = COMMANDS;

    fn stream(keys: &Keys, partition: Partition) -> String {
        keys.order_stream(partition)
    }

    fn aggregate_id(&self) -> String {
        self.command.order().to_string()
    }

    fn traces(&self) -> impl Iterator<Item = TraceContext> {
        self.command.trace.into_iter()
    }

    fn read(fields: &HashMap<String, Bytes>) -> Result<Self, Malformed> {
        let field = |name: &str| fields.get(name).ok_or_else(|| Malformed(format!("no field '{name}'")));
        let text = |name: &str| field(name).map(|value| String::from_utf8_lossy(value).into_owned());
        // The type decides how the rest is read: during a rolling deploy, entries of the version before are still on
        // the stream.
        match text("type")?.as_str() {
            Self::TYPE => {
                let command = serde_json::from_slice(field("command")?);
                let command = command.map_err(|error| Malformed(format!("field 'command': {error}")))?;
                Ok(Self { reply_channel: text("answers")?, request: text("request")?, command })
            }
            other => Err(Malformed(format!("unknown type '{other}'"))),
        }
    }
}

/// The outcome of a command, as the worker publishes it to a process that waits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderOutcomeMessage {
    pub command: CommandId,
    pub outcome: OrderOutcome,
}

impl OrderOutcomeMessage {
    /// Outcomes in one message: a JSON array.
    pub fn write_all(outcomes: &[Self]) -> Result<Bytes> {
        serde_json::to_vec(outcomes).map(Bytes::from).map_err(Error::internal)
    }

    /// The outcomes of a message; none when this version cannot read it, and they are found in the database instead.
    pub fn read_all(message: &[u8]) -> Vec<Self> {
        serde_json::from_slice(message).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::{
        clock::from_millis,
        domain::{
            facts::Facts,
            order::{Action, Line, OrderRejectReason, RejectCode},
        },
    };

    fn entry() -> OrderEntry {
        let line = Line { product_id: 7.try_into().expect("an id"), quantity: 2 };
        let command = Command {
            id: CommandId(Uuid::from_u128(1)),
            user: 3.try_into().expect("an id"),
            at: from_millis(1_790_000_000_000),
            action: Action::Place { items: vec![line], coupon: None, payment: None },
            trace: None,
        };
        OrderEntry { reply_channel: "outcomes:1".into(), request: "r".into(), command }
    }

    fn read(change: impl FnOnce(&mut HashMap<String, Bytes>)) -> Result<OrderEntry, Malformed> {
        let fields = entry().fields().expect("fields");
        let pairs = fields.chunks_exact(2).map(|pair| (pair[0].clone(), Bytes::from(pair[1].clone())));
        let mut fields = pairs.collect();
        change(&mut fields);
        OrderEntry::read(&fields)
    }

    #[test]
    fn an_entry_survives_writing_and_reading() {
        assert_eq!(read(|_| ()), Ok(entry()));
    }

    #[test]
    fn malformed_entries_say_what_is_wrong() {
        let reason = |change: fn(&mut HashMap<String, Bytes>)| read(change).expect_err("malformed").0;
        assert_eq!(reason(|fields| drop(fields.remove("type"))), "no field 'type'");
        assert_eq!(reason(|fields| drop(fields.insert("type".into(), "orders.v9".into()))), "unknown type 'orders.v9'");
        assert!(reason(|fields| drop(fields.insert("command".into(), "{}".into()))).starts_with("field 'command': "));
    }

    /// A worker of the version before sends no facts.
    #[test]
    fn an_outcome_without_facts_is_read() {
        let id = Uuid::from_u128(1);
        let message = format!(
            r#"[{{"command": "{id}", "outcome": {{"Rejected": {{"code": "ORDER_NOT_FOUND", "detail": "none"}}}}}}]"#
        );
        let refusal = OrderRejectReason::new(RejectCode::OrderNotFound, "none");
        let expected = OrderOutcomeMessage { command: CommandId(id), outcome: OrderOutcome::Rejected(refusal) };
        assert_eq!(OrderOutcomeMessage::read_all(message.as_bytes()), [expected]);
    }

    #[test]
    fn outcomes_survive_writing_and_reading() {
        let facts = Facts { available: Some(1), ..Facts::default() };
        let refusal = OrderRejectReason::new(RejectCode::OrderNotFound, "none").with(facts);
        let outcomes =
            [OrderOutcomeMessage { command: CommandId(Uuid::from_u128(1)), outcome: OrderOutcome::Rejected(refusal) }];
        assert_eq!(OrderOutcomeMessage::read_all(&OrderOutcomeMessage::write_all(&outcomes).expect("JSON")), outcomes);
        assert_eq!(OrderOutcomeMessage::read_all(b"?"), []);
    }
}
