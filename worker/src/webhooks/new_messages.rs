use std::collections::{HashMap, HashSet};

use dibs_common::{
    clock::Timestamp,
    db::retry_queue::RetryMessage,
    domain::{
        dead_letter::NewDeadLetter,
        event::{MessageId, OutboxEvent},
    },
    integrations::{messages::Receiver, webhooks::Delivery},
};

use super::{
    outgoing::{Outgoing, dead_letter, outgoing, undecodable},
    retry_delay,
};
use crate::relay::Batch;

/// What happens to a message of the outbox in this round.
enum Planned {
    /// The receiver has accepted it in an earlier round; the sink has not advanced that far.
    Accepted,
    /// Earlier messages of its ordering key are in the retry queue.
    Blocked(Box<Outgoing>),
    Send(Box<Outgoing>),
    Undecodable(Box<NewDeadLetter>),
}

/// What is known from earlier rounds.
pub(super) struct Known<'s> {
    /// Accepted by the receiver, though the sink has not advanced that far.
    pub accepted: &'s HashSet<MessageId>,
    /// Ordering keys with messages in the retry queue.
    pub blocked_keys: &'s HashSet<String>,
}

/// The new messages of a round, in the order of the outbox.
pub(super) struct NewMessages {
    planned: Vec<(u64, Planned)>,
    sink: &'static str,
    first: u64,
    last: u64,
    at: Timestamp,
}

/// What is written after a round.
#[derive(Debug, Default)]
pub(super) struct RoundResult {
    /// Every message up to this sequence is accepted, in the retry queue, or a dead letter.
    pub through: u64,
    pub to_retry: Vec<RetryMessage>,
    pub dead_letters: Vec<NewDeadLetter>,
    /// Accepted beyond `through`.
    pub accepted: Vec<MessageId>,
    /// Failed beyond `through`.
    pub failed: Vec<MessageId>,
}

/// How a round may be concluded.
pub(super) struct Conclusion {
    /// Ordering keys with messages in the retry queue.
    pub blocked_keys: HashSet<String>,
    /// How many more messages may join the retry queue.
    pub room: usize,
    /// While the circuit is open nothing joins the retry queue.
    pub is_open: bool,
}

impl NewMessages {
    /// The messages of a batch, up to `limit`, but all of its first event. None when `limit` is 0.
    pub fn plan(batch: &Batch, receiver: Receiver, limit: usize, known: &Known<'_>) -> Self {
        let mut new =
            Self { planned: Vec::new(), sink: receiver.name(), first: batch.first, last: batch.last, at: batch.at };
        for event in &batch.events {
            // Between events only: the sink's position is a sequence, and cannot point into an event.
            if new.planned.len() >= limit {
                new.last = event.sequence - 1;
                break;
            }
            new.plan_event(event, receiver, known);
        }
        new
    }

    fn plan_event(&mut self, event: &OutboxEvent, receiver: Receiver, known: &Known<'_>) {
        let sequence = event.sequence;
        match outgoing(event, receiver, self.at) {
            Ok(messages) => self.planned.extend(messages.into_iter().map(|message| {
                let planned = if known.accepted.contains(&message.message.id) {
                    Planned::Accepted
                } else if known.blocked_keys.contains(&message.message.ordering_key) {
                    Planned::Blocked(Box::new(message))
                } else {
                    Planned::Send(Box::new(message))
                };
                (sequence, planned)
            })),
            Err(error) => {
                tracing::error!(sink = receiver.name(), sequence, %error, "event cannot be decoded; dead-lettered");
                // A defect of Dibs, but one event must not hold up all that follow.
                let letter = undecodable(receiver.name(), event, &error);
                self.planned.push((sequence, Planned::Undecodable(Box::new(letter))));
            }
        }
    }

    pub fn is_empty(&self) -> bool {
        self.planned.is_empty()
    }

    pub fn to_send(&self) -> Vec<Outgoing> {
        let sent = self.planned.iter().filter_map(|(_, planned)| match planned {
            Planned::Send(outgoing) => Some(Outgoing::clone(outgoing)),
            _ => None,
        });
        sent.collect()
    }

    /// What to write after these were sent. The sink advances up to the first message that can neither be accepted nor
    /// join the retry queue; what was accepted behind it is remembered, as its event comes again.
    pub fn conclude(self, sent: Vec<Outgoing>, conclusion: Conclusion) -> RoundResult {
        let mut sent: HashMap<MessageId, Outgoing> =
            sent.into_iter().map(|outgoing| (outgoing.message.id, outgoing)).collect();
        let result = RoundResult { through: self.last, ..RoundResult::default() };
        let mut concluding = Concluding { result, sink: self.sink, conclusion, at: self.at };
        let mut advances = true;
        for (sequence, planned) in self.planned {
            let planned = match planned {
                Planned::Send(outgoing) => Planned::Send(sent.remove(&outgoing.message.id).map_or(outgoing, Box::new)),
                planned => planned,
            };
            if advances && !concluding.conclude(&planned) {
                advances = false;
                // Earlier messages of the same event come again with it.
                concluding.result.through = sequence.saturating_sub(1).max(self.first.saturating_sub(1));
            }
            concluding.remember(planned);
        }
        concluding.result
    }
}

struct Concluding {
    result: RoundResult,
    sink: &'static str,
    conclusion: Conclusion,
    at: Timestamp,
}

impl Concluding {
    /// Concludes a message; whether the sink may advance past it.
    fn conclude(&mut self, planned: &Planned) -> bool {
        match planned {
            Planned::Accepted => true,
            Planned::Undecodable(letter) => {
                self.result.dead_letters.push(NewDeadLetter::clone(letter));
                true
            }
            Planned::Blocked(outgoing) => self.retry_later(outgoing.message.clone()),
            Planned::Send(outgoing) => self.conclude_sent(outgoing),
        }
    }

    fn conclude_sent(&mut self, outgoing: &Outgoing) -> bool {
        match &outgoing.delivery {
            Some(Delivery::Accepted) => true,
            Some(Delivery::Refused(_)) => {
                let message = outgoing.after_attempt(self.at);
                self.result.dead_letters.push(dead_letter(self.sink, &message));
                true
            }
            Some(Delivery::Failed(_)) if self.conclusion.is_open => false,
            Some(Delivery::Failed(failure)) => {
                let mut message = outgoing.after_attempt(self.at);
                message.next_attempt_at = self.at + retry_delay(message.attempts, failure.retry_after);
                self.retry_later(message)
            }
            // It was not sent because one before it failed, or because the round was over.
            None => {
                let is_blocked = self.conclusion.blocked_keys.contains(&outgoing.message.ordering_key);
                is_blocked && self.retry_later(outgoing.message.clone())
            }
        }
    }

    fn retry_later(&mut self, message: RetryMessage) -> bool {
        if self.conclusion.room == 0 {
            return false;
        }
        self.conclusion.room -= 1;
        // Later messages of the key follow it into the queue, or they would overtake it.
        self.conclusion.blocked_keys.insert(message.ordering_key.clone());
        self.result.to_retry.push(message);
        true
    }

    /// Keeps the result of a message, in case its event comes again.
    fn remember(&mut self, planned: Planned) {
        if let Planned::Send(outgoing) = planned {
            match outgoing.delivery {
                Some(Delivery::Accepted) => self.result.accepted.push(outgoing.message.id),
                Some(Delivery::Failed(_)) if self.conclusion.is_open => self.result.failed.push(outgoing.message.id),
                _ => {}
            }
        }
    }
}
