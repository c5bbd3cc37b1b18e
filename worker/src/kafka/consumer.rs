use std::{collections::BTreeMap, future::Future, time::Duration};

use dibs_common::error::{Error, Result};
use rdkafka::{
    Message as _, Offset, TopicPartitionList,
    consumer::{Consumer as _, StreamConsumer},
    message::BorrowedMessage,
    types::RDKafkaErrorCode,
};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::Cluster;

/// How many records are handled together.
const TOGETHER: usize = 1_000;
/// How long the first record is waited for, and how long others after it.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const GATHER_FOR: Duration = Duration::from_millis(20);
/// The first pause after a failure, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// The beginning of a value that is kept, in bytes: no value that Dibs can use is longer. And how many bytes are handled
/// together.
const LONGEST_VALUE: usize = 256 * 1024;
const BYTES_TOGETHER: usize = 16 * 1024 * 1024;

/// A message of Kafka, as it came.
#[derive(Clone, Debug)]
pub struct Record {
    /// Its topic, prefix and all.
    pub topic: String,
    /// The topic's partition that it is from.
    pub partition: i32,
    /// Its place there, from 0.
    pub offset: i64,
    /// When it was made, in ms since 1970; 0 when Kafka does not say.
    pub at: i64,
    /// What it says, or the beginning of it.
    pub value: Vec<u8>,
    /// How many bytes all of it has.
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
            value: value[..value.len().min(LONGEST_VALUE)].to_vec(),
            bytes: value.len(),
        }
    }

    /// Whether `value` is all that it says.
    pub fn is_whole(&self) -> bool {
        self.value.len() == self.bytes
    }

    /// The partition of a topic that it is from, in words.
    pub fn source(&self) -> String {
        format!("{}/{}", self.topic, self.partition)
    }

    /// Where it is found in Kafka, in words.
    pub fn place(&self) -> String {
        format!("{}/{}", self.source(), self.offset)
    }
}

/// What is done with records.
pub trait Handler: Send {
    /// Its name in the log, in metrics, and in that of its consumer group. It never changes.
    const NAME: &'static str;

    /// Does it, in order. After an error, and after a death, the same records come again, and perhaps others behind
    /// them; none come about once a second when there are none, so that a handler can see to itself.
    fn handle(&mut self, records: &[Record]) -> impl Future<Output = Result<()>> + Send;
}

/// Takes records from topics to a handler. Where it is, is noted in Kafka after they are handled.
pub struct Consumer<H> {
    client: StreamConsumer,
    handler: H,
    in_hand: Vec<Record>,
    told_of_missing: bool,
}

impl<H: Handler + 'static> Consumer<H> {
    /// Joins the handler's group, which shares the partitions of the topics. No connection is waited for.
    pub fn join(cluster: &Cluster, topics: &[&str], handler: H) -> Result<Self> {
        let mut client = cluster.client();
        client
            .set("group.id", cluster.group(H::NAME))
            .set("auto.offset.reset", "earliest")
            // What is stored is committed each second, when partitions go to another, and at the end.
            .set("enable.auto.commit", "true")
            .set("auto.commit.interval.ms", "1000")
            .set("enable.auto.offset.store", "false")
            .set("queued.max.messages.kbytes", "16384")
            .set("session.timeout.ms", "10000");
        let client: StreamConsumer = client.create().map_err(Error::internal)?;
        let topics: Vec<String> = topics.iter().map(|topic| cluster.topic(topic)).collect();
        let names: Vec<&str> = topics.iter().map(String::as_str).collect();
        client.subscribe(&names).map_err(Error::internal)?;
        Ok(Self { client, handler, in_hand: Vec::new(), told_of_missing: false })
    }

    /// Takes records until told to stop.
    pub async fn run(mut self, stopping: CancellationToken) {
        let mut pause = FIRST_PAUSE;
        while !stopping.is_cancelled() {
            let Err(error) = self.step().await else {
                pause = FIRST_PAUSE;
                continue;
            };
            metrics::counter!("dibs_kafka_consumer_failures_total", "consumer" => H::NAME).increment(1);
            tracing::warn!(consumer = H::NAME, cause = error.chain(), ?pause, "messages of Kafka have to wait");
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stopping.cancelled() => {}
            }
            pause = LONGEST_PAUSE.min(pause * 2);
        }
        self.leave().await;
    }

    /// Handles the next records; how many.
    pub async fn step(&mut self) -> Result<usize> {
        if self.in_hand.is_empty() {
            self.in_hand = self.read().await?;
        }
        self.handler.handle(&self.in_hand).await?;
        let handled = std::mem::take(&mut self.in_hand);
        self.note(&handled)?;
        metrics::counter!("dibs_kafka_messages_total", "consumer" => H::NAME).increment(handled.len() as u64);
        Ok(handled.len())
    }

    /// Leaves the group, so that others need not wait until it is missed.
    pub async fn leave(self) {
        // It waits for its own threads.
        if let Err(error) = tokio::task::spawn_blocking(move || drop(self.client)).await {
            tracing::warn!(%error, "a consumer did not end in order");
        }
    }

    async fn read(&mut self) -> Result<Vec<Record>> {
        let mut records = Vec::new();
        let mut deadline = Instant::now() + LOOK_EVERY;
        let mut bytes = 0;
        while records.len() < TOGETHER && bytes < BYTES_TOGETHER {
            match timeout_at(deadline, self.client.recv()).await {
                Err(_) => break,
                Ok(Ok(message)) => {
                    if records.is_empty() {
                        deadline = Instant::now() + GATHER_FOR;
                    }
                    let record = Record::of(&message);
                    bytes += record.value.len();
                    records.push(record);
                }
                Ok(Err(error)) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::UnknownTopicOrPartition) => {
                    if !std::mem::replace(&mut self.told_of_missing, true) {
                        tracing::info!(consumer = H::NAME, %error, "a topic is not there yet; it is looked for");
                    }
                }
                // It comes again, when it is still true.
                Ok(Err(error)) if !records.is_empty() => {
                    tracing::debug!(consumer = H::NAME, %error, "records that came before an error are handled first");
                    break;
                }
                Ok(Err(error)) => return Err(Error::internal(error)),
            }
        }
        Ok(records)
    }

    /// Notes up to where records are handled.
    fn note(&self, handled: &[Record]) -> Result<()> {
        let next: BTreeMap<(&str, i32), i64> =
            handled.iter().map(|record| ((record.topic.as_str(), record.partition), record.offset + 1)).collect();
        let mut list = TopicPartitionList::new();
        for ((topic, partition), offset) in next {
            list.add_partition_offset(topic, partition, Offset::Offset(offset)).map_err(Error::internal)?;
        }
        if let Err(error) = self.client.store_offsets(&list) {
            // A partition that went to another meanwhile, who handles them again.
            tracing::debug!(consumer = H::NAME, %error, "partitions went to another consumer");
        }
        Ok(())
    }
}
