use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use dibs_common::{
    clock::Timestamp,
    integrations::webhooks::{Delivery, DeliveryFailure, WebhookEndpoint},
    live,
    metric_table::label,
    traces::WebhookSpan,
};
use futures::{StreamExt as _, stream};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    circuit_breaker::{CircuitBreaker, Permit},
    outgoing::Outgoing,
};

/// How long after its begin a round still sends more. Each request ends within its own timeout.
const SEND_WINDOW: Duration = Duration::from_secs(4);

/// The messages of one ordering key, in order.
pub(super) type KeyMessages = Vec<Outgoing>;

/// Groups messages by ordering key, the keys in the order of their first message.
pub(super) fn group_by_ordering_key(messages: impl IntoIterator<Item = Outgoing>) -> Vec<KeyMessages> {
    let mut positions: HashMap<String, usize> = HashMap::new();
    let mut groups: Vec<KeyMessages> = Vec::new();
    for outgoing in messages {
        let position = *positions.entry(outgoing.message.ordering_key.clone()).or_insert(groups.len());
        if position == groups.len() {
            groups.push(Vec::new());
        }
        groups[position].push(outgoing);
    }
    groups
}

#[derive(Clone)]
pub(super) struct RoundSettings {
    pub sink: &'static str,
    pub endpoint: WebhookEndpoint,
    pub at: Timestamp,
    pub max_concurrency: usize,
    /// Failures in a row that open the circuit.
    pub failure_threshold: u32,
    /// Whether more messages may join the retry queue.
    pub has_room: bool,
    /// Cancelled when no further request may begin.
    pub stopping: CancellationToken,
}

/// What all requests of a round share.
struct Round {
    settings: RoundSettings,
    breaker: Mutex<CircuitBreaker>,
    /// The circuit was open when the round began: its one message is a probe.
    is_probe: bool,
    began: Instant,
}

/// Sends messages, as far as the circuit permits. Returns all of them; those that were sent have their delivery.
pub(super) async fn send_round(
    settings: RoundSettings,
    groups: Vec<KeyMessages>,
    breaker: &mut CircuitBreaker,
) -> Vec<Outgoing> {
    let (sent, left): (Vec<KeyMessages>, Vec<KeyMessages>) = match breaker.permit(settings.at) {
        Permit::All => (groups, Vec::new()),
        Permit::Nothing => (Vec::new(), groups),
        Permit::Probe(number) => choose_probe(groups, number),
    };
    let max_concurrency = settings.max_concurrency;
    let round = Arc::new(Round {
        is_probe: breaker.is_open(),
        // Moved into the round and back: the requests run at the same time and judge the receiver together.
        breaker: Mutex::new(std::mem::take(breaker)),
        began: Instant::now(),
        settings,
    });
    let sending: Vec<_> = sent.into_iter().map(|messages| Arc::clone(&round).send_in_order(messages)).collect();
    // Unordered among keys: a slow order delays only itself.
    let sent: Vec<KeyMessages> = stream::iter(sending).buffer_unordered(max_concurrency).collect().await;
    *breaker = std::mem::take(&mut *round.breaker());
    sent.into_iter().chain(left).flatten().collect()
}

/// The message to probe with, another one each time, and the rest.
fn choose_probe(mut groups: Vec<KeyMessages>, number: u32) -> (Vec<KeyMessages>, Vec<KeyMessages>) {
    if groups.is_empty() {
        return (groups, Vec::new());
    }
    let chosen = number as usize % groups.len();
    // The first message of its key: the others must not overtake it.
    let rest = groups[chosen].split_off(1);
    let first = std::mem::replace(&mut groups[chosen], rest);
    (vec![first], groups)
}

impl Round {
    fn breaker(&self) -> MutexGuard<'_, CircuitBreaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends one message after the other, up to the first that fails: those behind it must not overtake it.
    async fn send_in_order(self: Arc<Self>, mut messages: KeyMessages) -> KeyMessages {
        for outgoing in &mut messages {
            let is_over = self.settings.stopping.is_cancelled() || self.began.elapsed() > SEND_WINDOW;
            // Asked before each message: the others of a long key must not go to a receiver that has just been found
            // dead.
            if is_over || (!self.is_probe && self.breaker().is_open()) {
                break;
            }
            let delivery = self.send(outgoing).await;
            let has_failed = matches!(delivery, Delivery::Failed(_));
            outgoing.delivery = Some(delivery);
            if has_failed {
                break;
            }
        }
        messages
    }

    async fn send(&self, outgoing: &Outgoing) -> Delivery {
        let id = outgoing.message.id.to_string();
        let (sink, message) = (self.settings.sink, &outgoing.message);
        let span = WebhookSpan::begin(sink, &message.kind, &id, &message.payload);
        let trace = span.as_ref().map(WebhookSpan::context);
        let delivery = self.settings.endpoint.send(&id, outgoing.body(), trace).await;
        if let Some(span) = span {
            span.end(delivery.failure());
        }
        let outcome: &'static str = (&delivery).into();
        metrics::counter!("dibs_webhook_attempts_total", "sink" => label(sink), "outcome" => outcome).increment(1);
        self.record(outgoing, &delivery);
        delivery
    }

    fn record(&self, outgoing: &Outgoing, delivery: &Delivery) {
        let RoundSettings { sink, at, failure_threshold, has_room, .. } = self.settings;
        let (mut breaker, now) = (self.breaker(), at + self.began.elapsed());
        if let Some(why) = delivery.failure() {
            live::failed(sink, why, now, false);
        }
        if let Delivery::Failed(DeliveryFailure { reason, retry_after, is_reachable: false }) = delivery {
            if outgoing.is_retry && has_room && !breaker.is_open() {
                // It has failed before and has a delay of its own, so its failure says nothing about the receiver.
                // Without room no new message is sent, and the retries are all there is to judge by.
                return;
            }
            if breaker.record_failure(outgoing.message.id, *retry_after, now, failure_threshold) {
                live::circuit(sink, true, now);
                tracing::warn!(sink, reason, "circuit opened");
            }
        } else if breaker.record_response(now) {
            live::circuit(sink, false, now);
            tracing::info!(sink, "circuit closed");
        }
    }
}

#[cfg(test)]
mod tests {
    use dibs_common::{
        clock::from_millis,
        db::retry_queue::RetryMessage,
        domain::event::{Epoch, MessageId},
    };

    use super::*;

    fn outgoing(sequence: u64, ordering_key: &str) -> Outgoing {
        Outgoing::new(RetryMessage {
            id: MessageId { epoch: Epoch(0), sequence, place: 0 },
            ordering_key: ordering_key.into(),
            kind: String::new(),
            aggregate_id: String::new(),
            payload: String::new(),
            attempts: 0,
            first_attempt_at: None,
            next_attempt_at: from_millis(0),
            last_response: None,
            dead_letter: None,
        })
    }

    fn sequences(groups: &[KeyMessages]) -> Vec<Vec<u64>> {
        groups.iter().map(|messages| messages.iter().map(|outgoing| outgoing.message.id.sequence).collect()).collect()
    }

    #[test]
    fn an_ordering_key_keeps_its_order_and_a_probe_is_one_message_at_a_time() {
        let messages = || [(1, "a"), (2, "b"), (3, "a"), (4, "c")].map(|(sequence, key)| outgoing(sequence, key));
        let groups = || group_by_ordering_key(messages());
        assert_eq!(sequences(&groups()), [vec![1, 3], vec![2], vec![4]]);
        for (number, sent, left) in [(0, 1, [vec![3], vec![2], vec![4]]), (4, 2, [vec![1, 3], vec![], vec![4]])] {
            let (probe, rest) = choose_probe(groups(), number);
            assert_eq!((sequences(&probe), sequences(&rest)), (vec![vec![sent]], left.to_vec()));
        }
        assert!(choose_probe(Vec::new(), 3).0.is_empty());
    }
}
