use bytes::Bytes;
use dibs_common::{
    clock::Timestamp,
    db::{outbox::OutboxEvent, parked::ParkedMessage},
    domain::dead_letter::{DeadLetter, NewDeadLetter},
    integrations::{
        messages::{Message, MessageId, Receiver, messages},
        webhooks::WebhookFailure,
    },
};

/// What became of a message in a round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It was not sent.
    Waiting,
    /// It is taken.
    Taken,
    /// It will never be: why.
    Refused(String),
    /// It was not taken now.
    Failed(WebhookFailure),
}

/// A message on its way, with what became of it.
#[derive(Clone, Debug)]
pub(super) struct Outgoing {
    /// The message, as it is parked or would be.
    pub message: ParkedMessage,
    /// Whether it is parked.
    pub is_parked: bool,
    /// What became of it in this round.
    pub fate: Fate,
}

impl Outgoing {
    /// A new message.
    pub const fn new(message: ParkedMessage) -> Self {
        Self { message, is_parked: false, fate: Fate::Waiting }
    }

    /// One that is parked.
    pub const fn parked(message: ParkedMessage) -> Self {
        Self { message, is_parked: true, fate: Fate::Waiting }
    }

    /// What is sent.
    pub fn body(&self) -> Bytes {
        Bytes::copy_from_slice(self.message.payload.as_bytes())
    }

    /// The message after this round's attempt, if there was one.
    pub fn after_attempt(&self, now: Timestamp) -> ParkedMessage {
        let mut message = self.message.clone();
        let answer = match &self.fate {
            Fate::Waiting => return message,
            Fate::Taken => None,
            Fate::Refused(answer) | Fate::Failed(WebhookFailure { reason: answer, .. }) => Some(answer.clone()),
        };
        message.attempts = message.attempts.saturating_add(1);
        message.first_attempt_at = message.first_attempt_at.or(Some(now));
        message.last_answer = answer;
        message
    }
}

/// The messages of an event, each in the lane of what it is about when that is to be told in order, else in one of its
/// own.
pub(super) fn outgoing(
    event: &OutboxEvent,
    in_order: bool,
    now: Timestamp,
) -> Result<Vec<Outgoing>, serde_json::Error> {
    let messages = messages(event)?;
    messages.into_iter().map(|message| outgoing_message(&message, in_order, now)).collect()
}

fn outgoing_message(message: &Message, in_order: bool, now: Timestamp) -> Result<Outgoing, serde_json::Error> {
    let payload = serde_json::to_string(message)?;
    let (kind, aggregate_id) = (message.kind.clone(), message.aggregate_id.clone());
    let lane = if in_order { format!("{} {aggregate_id}", message.aggregate_type) } else { message.id.to_string() };
    Ok(Outgoing::new(ParkedMessage {
        id: message.id,
        lane,
        kind,
        aggregate_id,
        payload,
        attempts: 0,
        first_attempt_at: None,
        next_attempt_at: now,
        last_answer: None,
        dead_letter: None,
    }))
}

/// A dead letter as a message to be sent again. What was told since has gone past it, so it holds up only others of its
/// kind, and only where they are told in order: letters about the same thing.
pub(super) fn redriven(letter: &DeadLetter, id: MessageId, receiver: Receiver, now: Timestamp) -> ParkedMessage {
    let aggregate_id = letter.aggregate_id.clone().unwrap_or_default();
    let lane = if receiver.is_in_order() { format!("again {aggregate_id}") } else { id.to_string() };
    ParkedMessage {
        id,
        lane,
        kind: letter.kind.clone(),
        aggregate_id,
        payload: letter.payload.clone(),
        attempts: 0,
        first_attempt_at: None,
        next_attempt_at: now,
        last_answer: None,
        dead_letter: Some(letter.id),
    }
}

/// A message that is given up on.
pub(super) fn dead_letter(sink: &str, message: &ParkedMessage) -> NewDeadLetter {
    NewDeadLetter {
        source: sink.to_owned(),
        key: message.id.to_string(),
        kind: message.kind.clone(),
        aggregate_id: Some(message.aggregate_id.clone()),
        payload: message.payload.clone(),
        redrivable: true,
        reason: message.last_answer.clone().unwrap_or_default(),
        attempts: message.attempts,
    }
}

/// An event that is no message. Dibs writes the payload itself, so this is a defect, which must not hold up all that
/// follows.
pub(super) fn unreadable(sink: &str, event: &OutboxEvent, error: &serde_json::Error) -> NewDeadLetter {
    NewDeadLetter {
        source: sink.to_owned(),
        key: MessageId { sequence: event.sequence, place: 0 }.to_string(),
        kind: event.kind.clone(),
        aggregate_id: Some(event.aggregate_id.clone()),
        payload: event.payload.clone(),
        redrivable: false,
        reason: format!("it cannot be made a message: {error}"),
        attempts: 0,
    }
}
