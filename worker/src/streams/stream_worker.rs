use std::{collections::VecDeque, sync::Arc, time::Duration};

use dibs_common::{
    db::Database,
    error::Result,
    identifiers::{Partition, new_uuid},
    redis::{Redis, streams::StreamConsumer},
    retry,
};
use futures::future::join_all;
use tokio::{
    sync::{Semaphore, mpsc},
    task::{JoinError, JoinSet},
};
use tokio_util::sync::CancellationToken;

use super::{BatchProcessor, Handler, InFlight, Reader, ReclaimPolicy, reader::refresh_in_flight};

const JOIN_RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// Works on the streams of one or more partitions.
pub struct StreamWorker<H: Handler> {
    redis: Redis,
    policy: ReclaimPolicy,
    batches: Arc<BatchProcessor<H>>,
}

impl<H: Handler> StreamWorker<H> {
    pub fn new(handler: H, database: &Database, redis: &Redis, policy: ReclaimPolicy) -> Self {
        Self { redis: redis.clone(), policy, batches: Arc::new(BatchProcessor::new(handler, database)) }
    }

    /// Works until `stopping`, then finishes what is in flight and leaves the consumer groups. Panics when a batch
    /// does: the caller starts another worker, which reclaims the entries of that batch.
    pub async fn run(&self, partitions: impl IntoIterator<Item = Partition>, stopping: CancellationToken) {
        let (tx, rx) = mpsc::channel(H::LIMITS.queued_reads);
        let worked = CancellationToken::new();
        let readers: Vec<_> =
            partitions.into_iter().map(|partition| self.read(partition, tx.clone(), &stopping, &worked)).collect();
        // Each reader has its own: the channel closes when the last of them has ended.
        drop(tx);
        let working = async {
            self.work(rx, &stopping).await;
            worked.cancel();
        };
        let ((), streams) = tokio::join!(working, join_all(readers));
        // Only now is nothing of them in flight.
        join_all(streams.iter().flatten().map(|stream| stream.close())).await;
    }

    /// Joins a partition for [`Self::run_once`].
    pub async fn join(&self, partition: Partition, name: &str) -> Result<Reader<H>> {
        Reader::join(&self.redis, partition, name.to_owned(), self.policy).await
    }

    /// Reads once and carries the entries through, batch after batch. Returns how many entries there were.
    pub async fn run_once(&self, reader: &mut Reader<H>) -> Result<usize> {
        let mut queue = VecDeque::from(reader.next().await?);
        let (entries, stopping) = (queue.len(), CancellationToken::new());
        while !queue.is_empty() {
            let processed = Box::pin(self.batches.process(take_batch::<H>(&mut queue), &stopping)).await;
            self.batches.settle(processed, &stopping).await;
        }
        Ok(entries)
    }

    /// Works until the stream of a partition is empty, or holds only what cannot be processed now. Returns how many
    /// entries it was given.
    pub async fn drain(&self, partition: Partition) -> Result<usize> {
        let mut reader = self.join(partition, &format!("drain-{}", new_uuid())).await?;
        let mut entries = 0;
        // An empty stream is not read: that would wait for the next entry.
        while reader.stream().len().await? > 0 {
            let read = self.run_once(&mut reader).await?;
            entries += read;
            if read == 0 {
                break;
            }
        }
        self.batches.held.release();
        reader.stream().close().await;
        Ok(entries)
    }

    /// Keeps what it read in flight until `worked`. Returns the stream that it read; none when it was stopped before it
    /// could join.
    async fn read(
        &self,
        partition: Partition,
        tx: mpsc::Sender<Vec<InFlight<H::Entry>>>,
        stopping: &CancellationToken,
        worked: &CancellationToken,
    ) -> Option<Arc<StreamConsumer<H::Entry>>> {
        let mut rounds = retry::every(JOIN_RETRY_INTERVAL, stopping);
        while rounds.next().await {
            match self.join(partition, &format!("worker-{}", new_uuid())).await {
                Ok(reader) => {
                    let stream = reader.stream();
                    tokio::join!(reader.run(tx, stopping), refresh_in_flight(&stream, self.policy, worked));
                    return Some(stream);
                }
                Err(error) => {
                    tracing::warn!(
                        partition = partition.0,
                        cause = error.chain(),
                        "partition cannot be joined; retrying"
                    );
                }
            }
        }
        None
    }

    /// Works on what readers send, until all of them have ended and nothing is in flight.
    async fn work(&self, mut rx: mpsc::Receiver<Vec<InFlight<H::Entry>>>, stopping: &CancellationToken) {
        let in_flight = Arc::new(Semaphore::new(H::LIMITS.in_flight));
        let processing = Arc::new(Semaphore::new(H::LIMITS.processing));
        let (mut queue, mut tasks) = (VecDeque::new(), JoinSet::new());
        loop {
            // The permits come before the batch, so that it gathers everything that arrives until it begins.
            let in_flight = Arc::clone(&in_flight).acquire_owned().await;
            let processing = Arc::clone(&processing).acquire_owned().await;
            let batch = loop {
                tokio::select! {
                    Some(ended) = tasks.join_next() => propagate_panic(ended),
                    batch = next_batch::<H>(&mut rx, &mut queue),
                        if stopping.is_cancelled() || !self.batches.held.is_full() => break batch,
                    // A batch without new entries probes those that are held.
                    () = self.batches.held.due() => break Some(Vec::new()),
                }
            };
            let Some(batch) = batch else { break };
            let (batches, stopping) = (Arc::clone(&self.batches), stopping.clone());
            tasks.spawn(async move {
                let processed = batches.process(batch, &stopping).await;
                // The next batch is processed while this one is published and acknowledged.
                drop(processing);
                batches.settle(processed, &stopping).await;
                drop(in_flight);
            });
        }
        while let Some(ended) = tasks.join_next().await {
            propagate_panic(ended);
        }
        self.batches.held.release();
    }
}

/// A batch that panicked left its entries in flight in this consumer, which never reclaims from itself. So the consumer
/// must end as well.
fn propagate_panic(ended: Result<(), JoinError>) {
    if let Some(panic) = ended.err().and_then(|error| error.try_into_panic().ok()) {
        std::panic::resume_unwind(panic);
    }
}

/// What has arrived, up to a full batch; waits for the first entry. None when no more entries will come. May be
/// cancelled: what was received is in the queue.
async fn next_batch<H: Handler>(
    rx: &mut mpsc::Receiver<Vec<InFlight<H::Entry>>>,
    queue: &mut VecDeque<InFlight<H::Entry>>,
) -> Option<Vec<InFlight<H::Entry>>> {
    if queue.is_empty() {
        queue.extend(rx.recv().await?);
    }
    while queue.len() < H::LIMITS.entries {
        match rx.try_recv() {
            Ok(more) => queue.extend(more),
            Err(_) => break,
        }
    }
    Some(take_batch::<H>(queue))
}

/// The first entries of the queue: as many as fit into one batch, at least one.
pub(super) fn take_batch<H: Handler>(queue: &mut VecDeque<InFlight<H::Entry>>) -> Vec<InFlight<H::Entry>> {
    let mut load = 0;
    let fitting = queue.iter().take(H::LIMITS.entries).take_while(|entry| {
        load += entry.delivery.entry.as_ref().map_or(0, H::load);
        load <= H::LIMITS.load
    });
    let count = fitting.count().clamp(1, queue.len().max(1));
    queue.drain(..count.min(queue.len())).collect()
}
