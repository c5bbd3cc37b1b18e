use std::{collections::BTreeMap, future::Future, time::Duration};

use dibs_common::{
    error::{Error, Result},
    retry::{Backoff, RetryPolicy},
};
use rdkafka::{
    Message as _, Offset, TopicPartitionList,
    consumer::{Consumer as _, StreamConsumer},
    message::BorrowedMessage,
    types::RDKafkaErrorCode,
};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::Cluster;

/// Records handled together, and their bytes.
const BATCH_SIZE: usize = 1_000;
const BATCH_BYTES: usize = 16 * 1024 * 1024;
/// How long the first record of a batch is awaited, and how long others after it.
const POLL_TIMEOUT: Duration = Duration::from_secs(1);
const LINGER: Duration = Duration::from_millis(20);
const RETRIES: RetryPolicy = RetryPolicy::exponential(Duration::from_millis(200), Duration::from_secs(5));
/// How much of a value is kept, in bytes. No valid value is longer.
const MAX_VALUE: usize = 256 * 1024;

#[derive(Clone, Debug)]
pub struct Record {
    /// With the prefix.
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
    /// Its timestamp in ms since 1970; 0 when it has none.
    pub at: i64,
    /// The value, or the beginning of it.
    pub value: Vec<u8>,
    /// The length of the whole value.
    pub bytes: usize,
}

impl Record {
    fn of(message: &BorrowedMessage<'_>) -> Self {
        let value = message.payload().unwrap_or_default();
        Self {
            topic: message.topic().to_owned(),
            partition: message.partition(),
            offset: message.offset(),
            at: message.timestamp().to_millis().unwrap_or(0).max(0),
            // A dead letter keeps the beginning. A whole record may be megabytes, and a batch has a thousand.
            value: value[..value.len().min(MAX_VALUE)].to_vec(),
            bytes: value.len(),
        }
    }

    /// Whether `value` is the whole value.
    pub fn is_whole(&self) -> bool {
        self.value.len() == self.bytes
    }

    /// Its topic and partition.
    pub fn source(&self) -> String {
        format!("{}/{}", self.topic, self.partition)
    }

    /// Its topic, partition and offset.
    pub fn position(&self) -> String {
        format!("{}/{}", self.source(), self.offset)
    }
}

pub trait Handler: Send {
    /// Its name in logs, metrics and the name of its consumer group. It never changes.
    const NAME: &'static str;

    /// Processes records in order. After an error or a crash the same records come again, perhaps with others behind
    /// them. When there are none, an empty batch comes about once a second, for upkeep.
    fn handle(&mut self, records: &[Record]) -> impl Future<Output = Result<()>> + Send;
}

/// Reads records from topics and passes them to a handler. It stores their offsets after they are handled.
pub struct Consumer<H> {
    client: StreamConsumer,
    handler: H,
    in_flight: Vec<Record>,
    has_reported_missing_topic: bool,
}

impl<H: Handler + 'static> Consumer<H> {
    /// Joins the handler's consumer group. It does not wait for a connection.
    pub fn join(cluster: &Cluster, topics: &[&str], handler: H) -> Result<Self> {
        let mut client = cluster.client();
        client
            .set("group.id", cluster.group(H::NAME))
            // The default would skip every record that was sent before the group first read the topic.
            .set("auto.offset.reset", "earliest")
            // Stored offsets are committed each second, when partitions are revoked, and at the end.
            .set("enable.auto.commit", "true")
            .set("auto.commit.interval.ms", "1000")
            // The default stores an offset when a record is read. A crash would then lose the records in flight.
            .set("enable.auto.offset.store", "false")
            // Messages that are read ahead lie in memory. The default is 64 MiB for each consumer.
            .set("queued.max.messages.kbytes", "16384")
            .set("session.timeout.ms", "10000");
        let client: StreamConsumer = client.create().map_err(Error::internal)?;
        let topics: Vec<String> = topics.iter().map(|topic| cluster.topic(topic)).collect();
        let names: Vec<&str> = topics.iter().map(String::as_str).collect();
        client.subscribe(&names).map_err(Error::internal)?;
        Ok(Self { client, handler, in_flight: Vec::new(), has_reported_missing_topic: false })
    }

    /// Consumes records until the process stops.
    pub async fn run(mut self, stopping: CancellationToken) {
        let mut backoff = Backoff::new(RETRIES);
        while !stopping.is_cancelled() {
            match self.step().await {
                Ok(_) => backoff.reset(),
                Err(error) => {
                    metrics::counter!("dibs_kafka_consumer_failures_total", "consumer" => H::NAME).increment(1);
                    tracing::warn!(consumer = H::NAME, cause = error.chain(), "messages not handled; retrying");
                    backoff.wait(&stopping).await;
                }
            }
        }
        self.leave().await;
    }

    /// Handles the next records; how many.
    pub async fn step(&mut self) -> Result<usize> {
        // After an error the same records are handled again. Records that were read once do not come from the broker
        // again.
        if self.in_flight.is_empty() {
            self.in_flight = self.read().await?;
        }
        self.handler.handle(&self.in_flight).await?;
        let handled = std::mem::take(&mut self.in_flight);
        // Only now, after the effect is durable: a crash before this repeats the records, and handlers are idempotent.
        self.store_offsets(&handled)?;
        metrics::counter!("dibs_kafka_messages_total", "consumer" => H::NAME).increment(handled.len() as u64);
        Ok(handled.len())
    }

    /// Leaves the group, so that others get its partitions at once, not after the session timeout.
    pub async fn leave(self) {
        // The client joins its own threads when it is dropped, which blocks.
        if let Err(error) = tokio::task::spawn_blocking(move || drop(self.client)).await {
            tracing::warn!(%error, "consumer not closed");
        }
    }

    async fn read(&mut self) -> Result<Vec<Record>> {
        let mut records = Vec::new();
        let mut deadline = Instant::now() + POLL_TIMEOUT;
        let mut bytes = 0;
        while records.len() < BATCH_SIZE && bytes < BATCH_BYTES {
            match timeout_at(deadline, self.client.recv()).await {
                Err(_) => break,
                Ok(Ok(message)) => {
                    if records.is_empty() {
                        // Counted from the first record, so that a steady trickle does not hold a batch open.
                        deadline = Instant::now() + LINGER;
                    }
                    let record = Record::of(&message);
                    bytes += record.value.len();
                    records.push(record);
                }
                Ok(Err(error)) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::UnknownTopicOrPartition) => {
                    if !std::mem::replace(&mut self.has_reported_missing_topic, true) {
                        tracing::info!(consumer = H::NAME, %error, "topic missing; waiting for it");
                    }
                }
                // The next read fails again if the error persists.
                Ok(Err(error)) if !records.is_empty() => {
                    tracing::debug!(consumer = H::NAME, %error, "handling the records before an error first");
                    break;
                }
                Ok(Err(error)) => return Err(Error::internal(error)),
            }
        }
        Ok(records)
    }

    fn store_offsets(&self, handled: &[Record]) -> Result<()> {
        // The last record of a partition wins. Kafka's committed offset is that of the next record to read.
        let next: BTreeMap<(&str, i32), i64> =
            handled.iter().map(|record| ((record.topic.as_str(), record.partition), record.offset + 1)).collect();
        let mut list = TopicPartitionList::new();
        for ((topic, partition), offset) in next {
            list.add_partition_offset(topic, partition, Offset::Offset(offset)).map_err(Error::internal)?;
        }
        if let Err(error) = self.client.store_offsets(&list) {
            // Of a revoked partition: its new consumer handles the records again.
            tracing::debug!(consumer = H::NAME, %error, "offsets not stored; partitions were revoked");
        }
        Ok(())
    }
}
