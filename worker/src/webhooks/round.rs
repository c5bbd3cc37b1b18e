use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use dibs_common::{
    clock::Timestamp,
    integrations::webhooks::{WebhookAnswer, WebhookEndpoint, WebhookFailure},
};
use futures::{StreamExt as _, stream};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    breaker::{Breaker, Permit},
    outgoing::{Fate, Outgoing},
};

/// How long after its begin a round still sends more. Each request ends within its own limit.
const BEGIN_WITHIN: Duration = Duration::from_secs(4);

/// Messages of a lane, in order.
pub(super) type Lane = Vec<Outgoing>;

/// Groups messages by lane, the lanes in the order of their first message.
pub(super) fn lanes(messages: impl IntoIterator<Item = Outgoing>) -> Vec<Lane> {
    let mut numbers: HashMap<String, usize> = HashMap::new();
    let mut lanes: Vec<Lane> = Vec::new();
    for outgoing in messages {
        let number = *numbers.entry(outgoing.message.lane.clone()).or_insert(lanes.len());
        if number == lanes.len() {
            lanes.push(Vec::new());
        }
        lanes[number].push(outgoing);
    }
    lanes
}

/// What all requests of a round share.
struct Round {
    sink: &'static str,
    endpoint: WebhookEndpoint,
    breaker: Mutex<Breaker>,
    /// The receiver was away when the round began: what is sent is to find out whether it is back.
    is_probe: bool,
    in_a_row: u32,
    has_room: bool,
    at: Timestamp,
    began: Instant,
    stopping: CancellationToken,
}

/// How a round is sent.
pub(super) struct Sending<'s> {
    /// The sink, for the metrics.
    pub sink: &'static str,
    /// Where to.
    pub endpoint: &'s WebhookEndpoint,
    /// When it began, as far as pauses go.
    pub at: Timestamp,
    /// How many requests there may be at once.
    pub at_once: usize,
    /// After how many failures in a row the receiver counts as away.
    pub in_a_row: u32,
    /// Whether more may be parked.
    pub has_room: bool,
    /// Cancelled when nothing more may be begun.
    pub stopping: &'s CancellationToken,
}

impl Sending<'_> {
    /// Sends the lanes, as far as the breaker permits. Answers all messages with what became of them.
    pub async fn send(self, lanes: Vec<Lane>, breaker: &mut Breaker) -> Vec<Outgoing> {
        let (sent, left): (Vec<Lane>, Vec<Lane>) = match breaker.permit(self.at) {
            Permit::All => (lanes, Vec::new()),
            Permit::Nothing => (Vec::new(), lanes),
            Permit::One(number) => probe(lanes, number),
        };
        let round = Arc::new(Round {
            sink: self.sink,
            endpoint: self.endpoint.clone(),
            is_probe: breaker.is_away(),
            breaker: Mutex::new(std::mem::take(breaker)),
            in_a_row: self.in_a_row,
            has_room: self.has_room,
            at: self.at,
            began: Instant::now(),
            stopping: self.stopping.clone(),
        });
        let sending: Vec<_> = sent.into_iter().map(|lane| Arc::clone(&round).send_lane(lane)).collect();
        let sent: Vec<Lane> = stream::iter(sending).buffer_unordered(self.at_once).collect().await;
        *breaker = std::mem::take(&mut *round.breaker());
        sent.into_iter().chain(left).flatten().collect()
    }
}

/// One message to be sent, another one each time, and the rest.
fn probe(mut lanes: Vec<Lane>, number: u32) -> (Vec<Lane>, Vec<Lane>) {
    if lanes.is_empty() {
        return (lanes, Vec::new());
    }
    let chosen = number as usize % lanes.len();
    let rest = lanes[chosen].split_off(1);
    let first = std::mem::replace(&mut lanes[chosen], rest);
    (vec![first], lanes)
}

impl Round {
    fn breaker(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends one message after the other, up to one that fails.
    async fn send_lane(self: Arc<Self>, mut lane: Lane) -> Lane {
        for outgoing in &mut lane {
            let is_over = self.stopping.is_cancelled() || self.began.elapsed() > BEGIN_WITHIN;
            if is_over || (!self.is_probe && self.breaker().is_away()) {
                break;
            }
            outgoing.fate = self.send(outgoing).await;
            if matches!(outgoing.fate, Fate::Failed(..)) {
                break;
            }
        }
        lane
    }

    async fn send(&self, outgoing: &Outgoing) -> Fate {
        let id = outgoing.message.id;
        let answer = self.endpoint.send(&id.to_string(), outgoing.body()).await;
        let (outcome, fate) = match answer {
            WebhookAnswer::Taken => ("taken", Fate::Taken),
            WebhookAnswer::Refused(reason) => ("refused", Fate::Refused(reason)),
            WebhookAnswer::Failed(failure) => ("failed", Fate::Failed(failure)),
        };
        metrics::counter!("dibs_webhook_attempts_total", "sink" => self.sink, "outcome" => outcome).increment(1);
        self.note(outgoing, &fate);
        fate
    }

    fn note(&self, outgoing: &Outgoing, fate: &Fate) {
        let (mut breaker, now) = (self.breaker(), self.at + self.began.elapsed());
        if let Fate::Failed(WebhookFailure { reason, retry_after, is_there: false }) = fate {
            if outgoing.is_parked && self.has_room && !breaker.is_away() {
                // It has failed before, and keeps to its own pauses: that says nothing about the receiver. Without
                // room no new message says anything, either.
                return;
            }
            if breaker.failed(outgoing.message.id, *retry_after, now, self.in_a_row) {
                tracing::warn!(sink = self.sink, reason, "the receiver is away; events wait until it is back");
            }
        } else if breaker.answered(now) {
            tracing::info!(sink = self.sink, "the receiver is back");
        }
    }
}

#[cfg(test)]
mod tests {
    use dibs_common::{clock::from_millis, db::parked::ParkedMessage, integrations::messages::MessageId};

    use super::*;

    fn outgoing(sequence: u64, lane: &str) -> Outgoing {
        Outgoing::new(ParkedMessage {
            id: MessageId { sequence, place: 0 },
            lane: lane.into(),
            kind: String::new(),
            aggregate_id: String::new(),
            payload: String::new(),
            attempts: 0,
            first_attempt_at: None,
            next_attempt_at: from_millis(0),
            last_answer: None,
            dead_letter: None,
        })
    }

    fn sequences(lanes: &[Lane]) -> Vec<Vec<u64>> {
        lanes.iter().map(|lane| lane.iter().map(|outgoing| outgoing.message.id.sequence).collect()).collect()
    }

    #[test]
    fn a_lane_keeps_its_order_and_a_probe_is_one_message_at_a_time() {
        let messages = || [(1, "a"), (2, "b"), (3, "a"), (4, "c")].map(|(sequence, lane)| outgoing(sequence, lane));
        assert_eq!(sequences(&lanes(messages())), [vec![1, 3], vec![2], vec![4]]);
        for (number, sent, left) in [(0, 1, [vec![3], vec![2], vec![4]]), (4, 2, [vec![1, 3], vec![], vec![4]])] {
            let (probed, rest) = probe(lanes(messages()), number);
            assert_eq!((sequences(&probed), sequences(&rest)), (vec![vec![sent]], left.to_vec()));
        }
        assert!(probe(Vec::new(), 3).0.is_empty());
    }
}
