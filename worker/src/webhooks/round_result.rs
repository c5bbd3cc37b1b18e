use std::collections::{HashMap, HashSet};

use dibs_common::{
    clock::Timestamp,
    db::{outbox::OutboxEvent, parked::ParkedMessage},
    domain::dead_letter::NewDeadLetter,
    integrations::messages::{MessageId, Receiver},
};

use super::{
    outgoing::{Fate, Outgoing, dead_letter, outgoing, unreadable},
    pause_after,
};
use crate::relay::Batch;

/// What a round begins with, in the order of the outbox.
enum Planned {
    /// The receiver has taken it, though the sink has not moved that far.
    Ahead,
    /// Others of its lane are parked.
    Behind(Box<Outgoing>),
    /// It is sent.
    Send(Box<Outgoing>),
    /// It is no message.
    Unreadable(Box<NewDeadLetter>),
}

/// New messages of a round.
pub(super) struct Fresh {
    planned: Vec<(u64, Planned)>,
    sink: &'static str,
    first: u64,
    last: u64,
    at: Timestamp,
}

/// What is to be written of a round.
#[derive(Debug, Default)]
pub(super) struct Settled {
    /// Everything up to this sequence is taken, parked or buried.
    pub through: u64,
    /// To be parked.
    pub parked: Vec<ParkedMessage>,
    /// To be buried.
    pub buried: Vec<NewDeadLetter>,
    /// Taken beyond `through`.
    pub ahead: Vec<MessageId>,
    /// Failed beyond `through`.
    pub failed: Vec<MessageId>,
}

impl Fresh {
    /// The messages of a batch, as far as there are at most so many; of the first event, all. None when `most` is 0.
    pub fn of(
        batch: &Batch,
        receiver: Receiver,
        most: usize,
        ahead: &HashSet<MessageId>,
        parked_lanes: &HashSet<String>,
    ) -> Self {
        let mut fresh =
            Self { planned: Vec::new(), sink: receiver.name(), first: batch.first, last: batch.last, at: batch.at };
        for event in &batch.events {
            if fresh.planned.len() >= most {
                fresh.last = event.sequence - 1;
                break;
            }
            fresh.plan(event, receiver, ahead, parked_lanes);
        }
        fresh
    }

    fn plan(
        &mut self,
        event: &OutboxEvent,
        receiver: Receiver,
        ahead: &HashSet<MessageId>,
        parked_lanes: &HashSet<String>,
    ) {
        let sequence = event.sequence;
        match outgoing(event, receiver.is_in_order(), self.at) {
            Ok(messages) => self.planned.extend(messages.into_iter().map(|message| {
                let planned = if ahead.contains(&message.message.id) {
                    Planned::Ahead
                } else if parked_lanes.contains(&message.message.lane) {
                    Planned::Behind(Box::new(message))
                } else {
                    Planned::Send(Box::new(message))
                };
                (sequence, planned)
            })),
            Err(error) => {
                tracing::error!(sequence, %error, "an event cannot be made a message; it is a dead letter");
                let letter = unreadable(receiver.name(), event, &error);
                self.planned.push((sequence, Planned::Unreadable(Box::new(letter))));
            }
        }
    }

    /// Whether there is nothing new.
    pub fn is_empty(&self) -> bool {
        self.planned.is_empty()
    }

    /// What is to be sent.
    pub fn to_send(&self) -> Vec<Outgoing> {
        let sent = self.planned.iter().filter_map(|(_, planned)| match planned {
            Planned::Send(outgoing) => Some(Outgoing::clone(outgoing)),
            _ => None,
        });
        sent.collect()
    }

    /// What is to be written when this was sent: `room` more may be parked, none while the receiver is away.
    pub fn settle(self, sent: Vec<Outgoing>, parked_lanes: HashSet<String>, room: usize, is_away: bool) -> Settled {
        let mut sent: HashMap<MessageId, Outgoing> =
            sent.into_iter().map(|outgoing| (outgoing.message.id, outgoing)).collect();
        let mut settling = Settling {
            settled: Settled { through: self.last, ..Settled::default() },
            sink: self.sink,
            parked_lanes,
            room,
            is_away,
            at: self.at,
        };
        let mut is_open = true;
        for (sequence, planned) in self.planned {
            let planned = match planned {
                // What it was sent as, with what became of it.
                Planned::Send(outgoing) => match sent.remove(&outgoing.message.id) {
                    Some(sent) => Planned::Send(Box::new(sent)),
                    None => Planned::Send(outgoing),
                },
                planned => planned,
            };
            if is_open && !settling.settle(&planned) {
                is_open = false;
                // Earlier messages of the same event come again with it.
                settling.settled.through = sequence.saturating_sub(1).max(self.first.saturating_sub(1));
            }
            settling.keep(planned);
        }
        settling.settled
    }
}

struct Settling {
    settled: Settled,
    sink: &'static str,
    parked_lanes: HashSet<String>,
    room: usize,
    is_away: bool,
    at: Timestamp,
}

impl Settling {
    /// Settles a message for good; whether it could.
    fn settle(&mut self, planned: &Planned) -> bool {
        match planned {
            Planned::Ahead => true,
            Planned::Unreadable(letter) => {
                self.settled.buried.push(NewDeadLetter::clone(letter));
                true
            }
            Planned::Behind(outgoing) => self.park(outgoing.message.clone()),
            Planned::Send(outgoing) => self.settle_sent(outgoing),
        }
    }

    fn settle_sent(&mut self, outgoing: &Outgoing) -> bool {
        match &outgoing.fate {
            Fate::Taken => true,
            Fate::Refused(_) => {
                let message = outgoing.after_attempt(self.at);
                self.settled.buried.push(dead_letter(self.sink, &message));
                true
            }
            Fate::Failed(..) if self.is_away => false,
            Fate::Failed(failure) => {
                let mut message = outgoing.after_attempt(self.at);
                message.next_attempt_at = self.at + pause_after(message.attempts, failure.retry_after);
                self.park(message)
            }
            Fate::Waiting => self.parked_lanes.contains(&outgoing.message.lane) && self.park(outgoing.message.clone()),
        }
    }

    fn park(&mut self, message: ParkedMessage) -> bool {
        if self.room == 0 {
            return false;
        }
        self.room -= 1;
        self.parked_lanes.insert(message.lane.clone());
        self.settled.parked.push(message);
        true
    }

    /// Keeps in mind what became of a message, in case its event comes again.
    fn keep(&mut self, planned: Planned) {
        if let Planned::Send(outgoing) = planned {
            match outgoing.fate {
                Fate::Taken => self.settled.ahead.push(outgoing.message.id),
                Fate::Failed(..) if self.is_away => self.settled.failed.push(outgoing.message.id),
                _ => {}
            }
        }
    }
}
