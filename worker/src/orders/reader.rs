use std::{sync::Arc, time::Duration};

use dibs_common::{
    error::Result,
    identifiers::Partition,
    redis::{
        Redis,
        streams::{Delivery, OrderEntry, OrderStream},
    },
};
use metrics::gauge;
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;

use super::InFlight;
use crate::issuance::ReclaimPolicy;

/// Entries read at once.
const MAX_ENTRIES: u64 = 200;
const PAUSE: Duration = Duration::from_secs(1);

/// Reads the commands of one partition.
pub struct Reader {
    stream: Arc<OrderStream>,
    pace: ReclaimPolicy,
    looked: Option<Instant>,
}

impl Reader {
    /// Joins the consumer group of a partition under a name of its own.
    pub async fn join(redis: &Redis, partition: Partition, name: String, pace: ReclaimPolicy) -> Result<Self> {
        let stream = OrderStream::open(redis, partition, name).await?;
        Ok(Self { stream: Arc::new(stream), pace, looked: None })
    }

    /// Hands entries on until told to stop, or until nobody takes them any more. Waits while the desk is full.
    pub async fn run(mut self, hand_on: mpsc::Sender<Vec<InFlight>>, stopping: CancellationToken) {
        while !stopping.is_cancelled() {
            match self.next().await {
                Ok(entries) if entries.is_empty() => {}
                Ok(entries) => {
                    if hand_on.send(entries).await.is_err() {
                        break;
                    }
                }
                Err(error) => {
                    let partition = self.stream.partition.0;
                    tracing::warn!(partition, cause = error.chain(), "commands cannot be read now");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
        drop(hand_on);
    }

    /// The next entries: now and then those of others who have gone silent, else new ones.
    pub async fn next(&mut self) -> Result<Vec<InFlight>> {
        if self.looked.is_none_or(|looked| looked.elapsed() >= self.pace.poll_interval) {
            self.show_lengths().await?;
            let taken_over = self.stream.reclaim(self.pace.min_idle, MAX_ENTRIES).await?;
            if !taken_over.is_empty() {
                let partition = self.stream.partition.0;
                tracing::info!(partition, entries = taken_over.len(), "took commands over");
                return Ok(self.in_hand(taken_over));
            }
            self.looked = Some(Instant::now());
        }
        Ok(self.in_hand(self.stream.read(MAX_ENTRIES).await?))
    }

    fn in_hand(&self, deliveries: Vec<Delivery<OrderEntry>>) -> Vec<InFlight> {
        deliveries.into_iter().map(|delivery| InFlight { stream: Arc::clone(&self.stream), delivery }).collect()
    }

    async fn show_lengths(&self) -> Result<()> {
        let (waiting, dead) = self.stream.lengths().await?;
        let partition = self.stream.partition.0.to_string();
        #[expect(clippy::cast_precision_loss, reason = "a gauge may be off by one above 2^53")]
        {
            gauge!("dibs_order_backlog_entries", "partition" => partition.clone()).set(waiting as f64);
            gauge!("dibs_order_dead_letters", "partition" => partition).set(dead as f64);
        }
        Ok(())
    }

    /// The stream, to leave it when all that was read of it is done.
    pub fn stream(&self) -> Arc<OrderStream> {
        Arc::clone(&self.stream)
    }
}
