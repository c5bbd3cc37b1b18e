use bytes::Bytes;
use dibs_common::{
    clock::Timestamp,
    db::retry_queue::RetryMessage,
    domain::{
        dead_letter::{DeadLetter, NewDeadLetter},
        event::{MessageId, OutboxEvent},
    },
    integrations::{
        messages::{Message, Receiver, messages},
        webhooks::Delivery,
    },
};

/// A message of a round.
#[derive(Clone, Debug)]
pub(super) struct Outgoing {
    /// The message as the retry queue holds it, or would.
    pub message: RetryMessage,
    /// Whether it is in the retry queue.
    pub is_retry: bool,
    /// The result of this round's attempt; none when it was not sent.
    pub delivery: Option<Delivery>,
}

impl Outgoing {
    pub const fn new(message: RetryMessage) -> Self {
        Self { message, is_retry: false, delivery: None }
    }

    pub const fn retry(message: RetryMessage) -> Self {
        Self { message, is_retry: true, delivery: None }
    }

    pub fn body(&self) -> Bytes {
        Bytes::copy_from_slice(self.message.payload.as_bytes())
    }

    /// The message after this round's attempt, if there was one.
    pub fn after_attempt(&self, now: Timestamp) -> RetryMessage {
        let mut message = self.message.clone();
        let Some(delivery) = &self.delivery else { return message };
        let response = delivery.failure().map(str::to_owned);
        message.attempts = message.attempts.saturating_add(1);
        message.first_attempt_at = message.first_attempt_at.or(Some(now));
        message.last_response = response;
        message
    }
}

/// The messages of an event. Those of an ordered receiver have the aggregate as their ordering key, all others a key of
/// their own.
pub(super) fn outgoing(
    event: &OutboxEvent,
    receiver: Receiver,
    now: Timestamp,
) -> Result<Vec<Outgoing>, serde_json::Error> {
    let messages = messages(event)?;
    messages.into_iter().map(|message| outgoing_message(&message, receiver, now)).collect()
}

fn outgoing_message(message: &Message, receiver: Receiver, now: Timestamp) -> Result<Outgoing, serde_json::Error> {
    let payload = serde_json::to_string(message)?;
    let (kind, aggregate_id) = (message.kind.clone(), message.aggregate_id.clone());
    let ordering_key = if receiver.is_ordered() {
        format!("{} {aggregate_id}", message.aggregate_type)
    } else {
        message.id.to_string()
    };
    Ok(Outgoing::new(RetryMessage {
        id: message.id,
        ordering_key,
        kind,
        aggregate_id,
        payload,
        attempts: 0,
        first_attempt_at: None,
        next_attempt_at: now,
        last_response: None,
        dead_letter: None,
    }))
}

/// The message that redrives a dead letter. Later events of its aggregate were delivered since, so it holds up only
/// other dead letters of the same aggregate, and those only where the receiver is ordered.
pub(super) fn redriven(letter: &DeadLetter, id: MessageId, receiver: Receiver, now: Timestamp) -> RetryMessage {
    let aggregate_id = letter.aggregate_id.clone().unwrap_or_default();
    // A key of its own: under the key of the aggregate, an old failure would block its new messages.
    let ordering_key = if receiver.is_ordered() { format!("again {aggregate_id}") } else { id.to_string() };
    RetryMessage {
        id,
        ordering_key,
        kind: letter.kind.clone(),
        aggregate_id,
        payload: letter.payload.clone(),
        attempts: 0,
        // It is tried for the full time once more.
        first_attempt_at: None,
        next_attempt_at: now,
        last_response: None,
        dead_letter: Some(letter.id),
    }
}

pub(super) fn dead_letter(sink: &str, message: &RetryMessage) -> NewDeadLetter {
    NewDeadLetter {
        source: sink.to_owned(),
        key: message.id.to_string(),
        kind: message.kind.clone(),
        aggregate_id: Some(message.aggregate_id.clone()),
        payload: message.payload.clone(),
        redrivable: true,
        reason: message.last_response.clone().unwrap_or_default(),
        attempts: message.attempts,
    }
}

/// The dead letter of an event that cannot be decoded. Dibs writes the payload itself, so this is a defect, which must
/// not hold up the events behind it.
pub(super) fn undecodable(sink: &str, event: &OutboxEvent, error: &serde_json::Error) -> NewDeadLetter {
    NewDeadLetter {
        source: sink.to_owned(),
        key: event.message_id(0).to_string(),
        kind: event.kind.clone(),
        aggregate_id: Some(event.aggregate_id.clone()),
        payload: event.payload.clone(),
        redrivable: false,
        reason: format!("the event cannot be decoded: {error}"),
        attempts: 0,
    }
}
