use std::{collections::VecDeque, time::Duration};

use dibs_common::{
    clock,
    db::{self, Lease},
    domain::{claim::COUPON_ISSUED, dead_letter::NewDeadLetter},
    error::{Error, Result},
    integrations::messages::{Message, messages},
};
use rdkafka::{
    error::KafkaError,
    message::{Header, OwnedHeaders},
    producer::{DeliveryFuture, FutureProducer, FutureRecord},
    types::RDKafkaErrorCode,
};
use tokio::time::timeout;

use super::Cluster;
use crate::relay::{Batch, Sink};

/// The name of the sink.
pub const KAFKA: &str = "kafka";

/// What is told to Kafka: an order's whole life, and coupons that were issued. A topic each.
const EVENTS: [&str; 6] =
    ["order.created", "order.paid", "order.confirmed", "order.cancelled", "order.expired", COUPON_ISSUED];

/// How many messages are on their way at once.
const ON_THEIR_WAY: usize = 2_000;
/// How long brokers may take to acknowledge the message that has been on its way longest.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Sends events to Kafka: a message for each [`Message`], to the topic of its kind, its key the aggregate's id.
///
/// Consumers may rely on this: in one partition of a topic, messages come **for the first time** in ascending
/// `sequence`, however often they come again. For:
///
/// - one process at a time sends, in ascending sequence, and from the first event on that is not known to be
///   acknowledged;
/// - the producer is idempotent: what it sends to a partition is appended in that order without a gap, or not at all.
///   So of what one producer appends, nothing is left out before its end;
/// - it never gives a message up by itself, which would let later ones pass: it has no time-out of its own. Whatever
///   fails or takes too long ends that producer, with all that it still holds, and the next begins where
///   acknowledgements ended;
/// - what an ended producer, or one of a process that has lost its lock, had on the wire may still be appended late. It
///   is the beginning of what the next one sends as well, so the earlier of two places of a message is still behind
///   those of all messages before it.
///
/// A message that brokers will never take, as it is too long for them or they find it invalid, is a dead letter, and
/// those behind it go on. They refuse what was sent together as one; so after such a refusal one message at a time is on
/// its way, from the first that is not acknowledged to the end of the batch, and what is refused then is refused itself.
///
/// It holds as long as a topic keeps its number of partitions: a key moves to another partition when that is raised.
#[derive(Clone)]
pub struct KafkaSink {
    cluster: Cluster,
    patience: Duration,
    producer: Option<FutureProducer>,
    /// One message at a time is sent, to see which are refused.
    one_at_a_time: bool,
}

impl Sink for KafkaSink {
    fn name(&self) -> &'static str {
        KAFKA
    }

    fn kinds(&self) -> &'static [&'static str] {
        &EVENTS
    }

    async fn deliver(&mut self, batch: &Batch, lock: &mut Lease) -> Result<u64> {
        if batch.events.is_empty() {
            return Ok(batch.last);
        }
        let mut way = Way { sink: self, sent: VecDeque::new(), refused: Vec::new() };
        let sent = way.send(batch).await;
        let Way { refused, sent: on_their_way, .. } = way;
        let taken = match sent {
            Ok(()) => {
                self.one_at_a_time = false;
                batch.last
            }
            Err(failure) => self.fail(batch, failure, on_their_way).await?,
        };
        bury(lock, &refused).await?;
        Ok(taken)
    }
}

/// The first message that was not acknowledged.
struct Failure {
    sequence: u64,
    cause: String,
    /// Brokers will never take it, or another that was sent with it.
    is_refused: bool,
}

impl Failure {
    fn new(sequence: u64, cause: String) -> Self {
        Self { sequence, cause, is_refused: false }
    }
}

/// Messages on their way, in order, and those that brokers will never take.
struct Way<'s> {
    sink: &'s mut KafkaSink,
    sent: OnTheirWay,
    refused: Vec<NewDeadLetter>,
}

/// The sequences of messages that are sent, and their acknowledgements.
type OnTheirWay = VecDeque<(u64, DeliveryFuture)>;

/// Whether one of these was refused, whose producer has ended.
async fn has_refusal(on_their_way: OnTheirWay) -> bool {
    for (_, acknowledgement) in on_their_way {
        if let Ok(Ok(Err((error, _)))) = timeout(Duration::ZERO, acknowledgement).await
            && is_refusal(&error)
        {
            return true;
        }
    }
    false
}

/// Gives up what brokers will never take, in the transaction in which the sink moves on.
async fn bury(lock: &mut Lease, refused: &[NewDeadLetter]) -> Result<()> {
    if refused.is_empty() {
        return Ok(());
    }
    lock.begin().await?;
    for letter in refused {
        if db::within(db::dead_letters::insert(lock.connection(), letter, clock::now())).await? {
            metrics::counter!("dibs_dead_letters_total", "source" => KAFKA).increment(1);
            tracing::error!(
                key = letter.key,
                reason = letter.reason,
                "Kafka never takes a message; it is a dead letter now"
            );
        }
    }
    Ok(())
}

/// Whether brokers will never take a message, or one of those that it was sent with.
fn is_refusal(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::{InvalidDifferentRecord, InvalidRecord, MessageSizeTooLarge};
    matches!(error.rdkafka_error_code(), Some(MessageSizeTooLarge | InvalidRecord | InvalidDifferentRecord))
}

impl KafkaSink {
    /// A sink that sends to a cluster, whose brokers may take so long to acknowledge the message that has been on its way
    /// longest.
    pub fn new(cluster: &Cluster, patience: Duration) -> Self {
        Self { cluster: cluster.clone(), patience, producer: None, one_at_a_time: false }
    }

    fn producer(&mut self) -> Result<FutureProducer> {
        if let Some(producer) = &self.producer {
            return Ok(producer.clone());
        }
        let mut client = self.cluster.client();
        client
            .set("acks", "all")
            .set("enable.idempotence", "true")
            .set("enable.gapless.guarantee", "true")
            .set("message.timeout.ms", "0")
            .set("linger.ms", "5")
            // A topic that is unknown for so long is said to be.
            .set("topic.metadata.propagation.max.ms", "10000")
            .set("compression.type", "lz4")
            .set("queue.buffering.max.messages", (2 * ON_THEIR_WAY).to_string())
            .set("queue.buffering.max.kbytes", "65536");
        let producer: FutureProducer = client.create().map_err(Error::internal)?;
        Ok(self.producer.insert(producer).clone())
    }

    /// Up to where a batch is taken when a message was not acknowledged.
    async fn fail(&mut self, batch: &Batch, failure: Failure, on_their_way: OnTheirWay) -> Result<u64> {
        self.end_producer().await;
        // One that is refused ends what is before it on its way to other partitions, too.
        self.one_at_a_time |= failure.is_refused || has_refusal(on_their_way).await;
        let taken = failure.sequence - 1;
        if taken < batch.first {
            return Err(Error::internal(failure.cause));
        }
        tracing::warn!(sequence = failure.sequence, cause = failure.cause, "events cannot be sent to Kafka now");
        Ok(taken)
    }

    /// Ends the producer with all that it still holds. It waits for its own threads, so not here.
    async fn end_producer(&mut self) {
        let producer = self.producer.take();
        if let Err(error) = tokio::task::spawn_blocking(move || drop(producer)).await {
            tracing::warn!(%error, "a producer did not end in order");
        }
    }
}

impl Way<'_> {
    /// Sends a batch and waits until all of it is acknowledged.
    async fn send(&mut self, batch: &Batch) -> Result<(), Failure> {
        for event in &batch.events {
            match messages(event) {
                Ok(messages) => {
                    for message in &messages {
                        self.send_one(message).await?;
                    }
                }
                Err(error) => {
                    // Dibs writes the payload itself, so this is a defect, which must not hold up all that follows.
                    tracing::error!(sequence = event.sequence, %error, "an event cannot be read; Kafka is not told of it");
                    metrics::counter!("dibs_relay_undecodable_events_total", "sink" => KAFKA).increment(1);
                }
            }
        }
        while self.acknowledged().await? {}
        Ok(())
    }

    async fn send_one(&mut self, message: &Message) -> Result<(), Failure> {
        while self.sent.len() >= ON_THEIR_WAY {
            self.acknowledged().await?;
        }
        let failed = |cause: String| Failure::new(message.sequence, cause);
        let topic = self.sink.cluster.topic(&message.kind);
        let (id, value) = (message.id.to_string(), serde_json::to_string(message));
        let value = value.map_err(|error| failed(error.to_string()))?;
        let headers = OwnedHeaders::new()
            .insert(Header { key: "id", value: Some(&id) })
            .insert(Header { key: "type", value: Some(&message.kind) });
        let mut record = FutureRecord::to(&topic)
            .key(&message.aggregate_id)
            .payload(&value)
            .timestamp(message.timestamp.timestamp_millis())
            .headers(headers);
        let producer = self.sink.producer().map_err(|error| failed(error.chain()))?;
        loop {
            match producer.send_result(record) {
                Ok(acknowledgement) => {
                    self.sent.push_back((message.sequence, acknowledgement));
                    break;
                }
                Err((error, _)) if is_refusal(&error) => {
                    self.refuse(message, &value, format!("{topic}: {error}"));
                    return Ok(());
                }
                Err((error, refused)) => {
                    // Its queue is full of bytes: there is room when the first of them are acknowledged.
                    if error.rdkafka_error_code() != Some(RDKafkaErrorCode::QueueFull) || !self.acknowledged().await? {
                        return Err(self.first_unacknowledged(failed(format!("{topic}: {error}"))));
                    }
                    record = refused;
                }
            }
        }
        if !self.sink.one_at_a_time {
            return Ok(());
        }
        match self.acknowledged().await {
            Err(Failure { is_refused: true, cause, .. }) => {
                self.refuse(message, &value, cause);
                // It has left a gap, which the producer does not pass.
                drop(producer);
                self.sink.end_producer().await;
                Ok(())
            }
            acknowledged => acknowledged.map(drop),
        }
    }

    fn refuse(&mut self, message: &Message, value: &str, reason: String) {
        self.refused.push(NewDeadLetter {
            source: KAFKA.into(),
            key: message.id.to_string(),
            kind: message.kind.clone(),
            aggregate_id: Some(message.aggregate_id.clone()),
            payload: value.to_owned(),
            // Those behind it were sent.
            redrivable: false,
            reason,
            attempts: 1,
        });
    }

    /// Waits for the acknowledgement of the message that has been on its way longest; false when none is.
    async fn acknowledged(&mut self) -> Result<bool, Failure> {
        let Some((sequence, acknowledgement)) = self.sent.pop_front() else { return Ok(false) };
        let patience = self.sink.patience;
        Err(match timeout(patience, acknowledgement).await {
            Ok(Ok(Ok(_))) => return Ok(true),
            Ok(Ok(Err((error, message)))) => {
                let cause = format!("{}: {error}", rdkafka::Message::topic(&message));
                Failure { sequence, cause, is_refused: is_refusal(&error) }
            }
            Ok(Err(_)) => Failure::new(sequence, "the producer has ended".into()),
            Err(_) => Failure::new(sequence, format!("no broker has acknowledged it within {patience:?}")),
        })
    }

    /// What could not even be queued fails with those before it that are still on their way.
    fn first_unacknowledged(&self, failure: Failure) -> Failure {
        let sequence = self.sent.front().map_or(failure.sequence, |(sequence, _)| *sequence);
        Failure { sequence, ..failure }
    }
}
