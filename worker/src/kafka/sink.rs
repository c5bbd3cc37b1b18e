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
use crate::{
    dead_letters,
    relay::{Batch, Sink},
};

pub const KAFKA: &str = "kafka";

/// The events that are published, each type to a topic of its own.
pub(super) const EVENTS: [&str; 6] =
    ["order.created", "order.paid", "order.confirmed", "order.cancelled", "order.expired", COUPON_ISSUED];

const MAX_IN_FLIGHT: usize = 2_000;
/// How long brokers may take to acknowledge the oldest message in flight.
pub const ACK_TIMEOUT: Duration = Duration::from_secs(20);

/// Publishes events to Kafka: each [`Message`] to the topic of its type, with the aggregate's id as key.
///
/// Consumers may rely on this: in one partition of a topic, messages appear **for the first time** in ascending
/// `sequence`, however often they are repeated. For:
///
/// - one process at a time sends, in ascending sequence, from the first event that is not known to be acknowledged;
/// - the producer is idempotent: what it sends to a partition is appended in that order without a gap, or not at all.
///   So one producer never leaves a message out before the last one that it appends;
/// - the producer never drops a message by itself, which would let later ones pass: it has no delivery timeout.
///   Whatever fails or takes too long closes that producer, with all that it still holds, and the next one begins where
///   acknowledgements ended;
/// - messages of a closed producer, or of a process that has lost its lease, may still be appended late. The next
///   producer begins with the same messages, so the earlier copy of a message is still behind all messages before it.
///
/// A message that brokers reject permanently, because it is too large or invalid, is dead-lettered, and those behind it
/// go on. Brokers reject a batch as a whole. So after such a rejection only one message is in flight at a time, from
/// the first unacknowledged one to the end of the batch, and what is rejected then is rejected itself.
///
/// The guarantee holds as long as the number of partitions of a topic stays: a raise moves keys to other partitions.
#[derive(Clone)]
pub struct KafkaSink {
    cluster: Cluster,
    ack_timeout: Duration,
    producer: Option<FutureProducer>,
    /// Only one message is in flight, to find the rejected ones.
    one_at_a_time: bool,
}

impl Sink for KafkaSink {
    fn name(&self) -> &'static str {
        KAFKA
    }

    fn kinds(&self) -> &'static [&'static str] {
        &EVENTS
    }

    async fn deliver(&mut self, batch: &Batch, lease: &mut Lease) -> Result<u64> {
        if batch.events.is_empty() {
            return Ok(batch.last);
        }
        let mut sends = InFlightSends { sink: self, unacknowledged: VecDeque::new(), rejected: Vec::new() };
        let sent = sends.send(batch).await;
        let InFlightSends { rejected, unacknowledged, .. } = sends;
        let accepted = match sent {
            Ok(()) => {
                self.one_at_a_time = false;
                batch.last
            }
            Err(failure) => self.fail(batch, failure, unacknowledged).await?,
        };
        dead_letter(lease, &rejected).await?;
        Ok(accepted)
    }
}

/// The first message that was not acknowledged.
struct Failure {
    sequence: u64,
    cause: String,
    /// Brokers reject it permanently, or another one of its batch.
    is_rejected: bool,
}

impl Failure {
    fn new(sequence: u64, cause: String) -> Self {
        Self { sequence, cause, is_rejected: false }
    }
}

/// The messages in flight, in order, and those that brokers reject permanently.
struct InFlightSends<'s> {
    sink: &'s mut KafkaSink,
    unacknowledged: Unacknowledged,
    rejected: Vec<NewDeadLetter>,
}

/// The sequences of sent messages, and their acknowledgements.
type Unacknowledged = VecDeque<(u64, DeliveryFuture)>;

/// Whether one of these was rejected. Their producer is closed, so all of them have their result.
async fn has_rejection(unacknowledged: Unacknowledged) -> bool {
    for (_, acknowledgement) in unacknowledged {
        if let Ok(Ok(Err((error, _)))) = timeout(Duration::ZERO, acknowledgement).await
            && is_rejection(&error)
        {
            return true;
        }
    }
    false
}

/// Dead-letters rejected messages, in the transaction that advances the sink.
async fn dead_letter(lease: &mut Lease, rejected: &[NewDeadLetter]) -> Result<()> {
    if rejected.is_empty() {
        return Ok(());
    }
    let connection = lease.begin().await?;
    for letter in rejected {
        if db::within(db::dead_letters::insert(connection, letter, clock::now())).await? {
            dead_letters::report(KAFKA, &letter.key, &letter.reason);
        }
    }
    Ok(())
}

/// Whether brokers reject a message permanently, or another one of its batch.
fn is_rejection(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::{InvalidDifferentRecord, InvalidRecord, MessageSizeTooLarge};
    matches!(error.rdkafka_error_code(), Some(MessageSizeTooLarge | InvalidRecord | InvalidDifferentRecord))
}

impl KafkaSink {
    /// Brokers may take `ack_timeout` to acknowledge the oldest message in flight.
    pub fn new(cluster: &Cluster, ack_timeout: Duration) -> Self {
        Self { cluster: cluster.clone(), ack_timeout, producer: None, one_at_a_time: false }
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
            // Batches of 5 ms compress well, and delay an event less than a poll of the relay.
            .set("linger.ms", "5")
            // A topic that is unknown for longer is an error.
            .set("topic.metadata.propagation.max.ms", "10000")
            .set("compression.type", "lz4")
            // Twice the messages in flight, so that the bound of Dibs is reached first.
            .set("queue.buffering.max.messages", (2 * MAX_IN_FLIGHT).to_string())
            .set("queue.buffering.max.kbytes", "65536");
        let producer: FutureProducer = client.create().map_err(Error::internal)?;
        Ok(self.producer.insert(producer).clone())
    }

    /// The sequence up to which a batch is accepted when a message was not acknowledged.
    async fn fail(&mut self, batch: &Batch, failure: Failure, unacknowledged: Unacknowledged) -> Result<u64> {
        self.close_producer().await;
        // A rejection closes the producer also for earlier messages to other partitions, so it may be a later one.
        self.one_at_a_time |= failure.is_rejected || has_rejection(unacknowledged).await;
        let accepted = failure.sequence - 1;
        if accepted < batch.first {
            return Err(Error::internal(failure.cause));
        }
        tracing::warn!(sequence = failure.sequence, cause = failure.cause, "events not published; retrying");
        Ok(accepted)
    }

    /// Closes the producer with all that it still holds. It joins its own threads when it is dropped, which blocks.
    async fn close_producer(&mut self) {
        let producer = self.producer.take();
        if let Err(error) = tokio::task::spawn_blocking(move || drop(producer)).await {
            tracing::warn!(%error, "producer not closed");
        }
    }
}

impl InFlightSends<'_> {
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
                    // Dibs writes the payload itself, so this is a defect, which must not hold up the events behind it.
                    tracing::error!(sink = KAFKA, sequence = event.sequence, %error, "event cannot be decoded; skipped");
                    metrics::counter!("dibs_relay_undecodable_events_total", "sink" => KAFKA).increment(1);
                }
            }
        }
        while self.acknowledged().await? {}
        Ok(())
    }

    async fn send_one(&mut self, message: &Message) -> Result<(), Failure> {
        while self.unacknowledged.len() >= MAX_IN_FLIGHT {
            self.acknowledged().await?;
        }
        let failed = |cause: String| Failure::new(message.sequence, cause);
        let topic = self.sink.cluster.topic(&message.kind);
        let (id, value) = (message.id.to_string(), serde_json::to_string(message));
        let value = value.map_err(|error| failed(error.to_string()))?;
        let mut headers = OwnedHeaders::new()
            .insert(Header { key: "id", value: Some(&id) })
            .insert(Header { key: "type", value: Some(&message.kind) });
        if let Some(trace) = message.traceparent {
            headers = headers.insert(Header { key: "traceparent", value: Some(&trace.to_string()) });
        }
        let mut record = FutureRecord::to(&topic)
            // The key keeps the events of one aggregate in one partition, and so in order.
            .key(&message.aggregate_id)
            .payload(&value)
            .timestamp(message.timestamp.timestamp_millis())
            .headers(headers);
        let producer = self.sink.producer().map_err(|error| failed(error.chain()))?;
        loop {
            match producer.send_result(record) {
                Ok(acknowledgement) => {
                    self.unacknowledged.push_back((message.sequence, acknowledgement));
                    break;
                }
                Err((error, _)) if is_rejection(&error) => {
                    self.reject(message, &value, format!("{topic}: {error}"));
                    return Ok(());
                }
                Err((error, unsent)) => {
                    // Its queue has a limit of bytes too. There is room once the oldest messages are acknowledged.
                    if error.rdkafka_error_code() != Some(RDKafkaErrorCode::QueueFull) || !self.acknowledged().await? {
                        return Err(self.first_unacknowledged(failed(format!("{topic}: {error}"))));
                    }
                    record = unsent;
                }
            }
        }
        if !self.sink.one_at_a_time {
            return Ok(());
        }
        match self.acknowledged().await {
            Err(Failure { is_rejected: true, cause, .. }) => {
                self.reject(message, &value, cause);
                // The rejected message leaves a gap, which this producer does not pass.
                drop(producer);
                self.sink.close_producer().await;
                Ok(())
            }
            acknowledged => acknowledged.map(drop),
        }
    }

    fn reject(&mut self, message: &Message, value: &str, reason: String) {
        self.rejected.push(NewDeadLetter {
            source: KAFKA.into(),
            key: message.id.to_string(),
            kind: message.kind.clone(),
            aggregate_id: Some(message.aggregate_id.clone()),
            payload: value.to_owned(),
            // Later messages were published: it would appear out of order.
            redrivable: false,
            reason,
            attempts: 1,
        });
    }

    /// Waits for the acknowledgement of the oldest message in flight; false when there is none.
    async fn acknowledged(&mut self) -> Result<bool, Failure> {
        let Some((sequence, acknowledgement)) = self.unacknowledged.pop_front() else { return Ok(false) };
        let ack_timeout = self.sink.ack_timeout;
        Err(match timeout(ack_timeout, acknowledgement).await {
            Ok(Ok(Ok(_))) => return Ok(true),
            Ok(Ok(Err((error, message)))) => {
                let cause = format!("{}: {error}", rdkafka::Message::topic(&message));
                Failure { sequence, cause, is_rejected: is_rejection(&error) }
            }
            Ok(Err(_)) => Failure::new(sequence, "the producer was closed".into()),
            Err(_) => Failure::new(sequence, format!("no broker has acknowledged it within {ack_timeout:?}")),
        })
    }

    /// A message that could not even be queued fails with the oldest one in flight.
    fn first_unacknowledged(&self, failure: Failure) -> Failure {
        let sequence = self.unacknowledged.front().map_or(failure.sequence, |(sequence, _)| *sequence);
        Failure { sequence, ..failure }
    }
}
