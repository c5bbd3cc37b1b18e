//! `dibs-worker`: carries out what the API has accepted.

pub mod campaigns;
pub mod issuance;
mod purge;
pub mod seed;
pub mod settings;

use std::{collections::BTreeSet, time::Duration};

use dibs_common::{db::Database, identifiers::new_uuid, keys::Partition, redis::Redis};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::issuance::{Consumer, Pace};

const KEEP_EVERY: Duration = Duration::from_secs(1);

/// The work of one process.
#[derive(Clone)]
pub struct Worker {
    /// The database.
    pub database: Database,
    /// Redis.
    pub redis: Redis,
    /// How patient its consumers are.
    pub pace: Pace,
    /// Cancelled when the process is about to end.
    pub stopping: CancellationToken,
    /// What is going on.
    pub tasks: TaskTracker,
}

impl Worker {
    /// Works on partitions 0 to `partitions` - 1, and on any other that a campaign lives in, until told to stop.
    pub async fn run(self, partitions: u16) {
        self.tasks.spawn(purge::run(self.database.clone(), self.stopping.clone()));
        let mut started = BTreeSet::new();
        let mut wanted: Vec<Partition> = (0..partitions).map(Partition).collect();
        while !self.stopping.is_cancelled() {
            for partition in wanted.drain(..) {
                if started.insert(partition) {
                    self.tasks.spawn(self.clone().consume(partition));
                }
            }
            match campaigns::keep_once(&self.database, &self.redis).await {
                Ok(partitions) => wanted = partitions,
                Err(error) => tracing::warn!(cause = error.chain(), "campaigns cannot be held against redis now"),
            }
            tokio::select! {
                () = tokio::time::sleep(KEEP_EVERY) => {}
                () = self.stopping.cancelled() => {}
            }
        }
        self.tasks.close();
        self.tasks.wait().await;
    }

    async fn consume(self, partition: Partition) {
        while !self.stopping.is_cancelled() {
            let name = format!("worker-{}", new_uuid());
            match Consumer::join(&self.database, &self.redis, partition, name, self.pace).await {
                Ok(consumer) => match tokio::spawn(consumer.run(self.stopping.clone())).await {
                    Ok(()) => return,
                    Err(panic) => tracing::error!(partition = partition.0, %panic, "a consumer broke; another joins"),
                },
                Err(error) => {
                    tracing::warn!(partition = partition.0, cause = error.chain(), "a partition cannot be joined now");
                }
            }
            tokio::time::sleep(KEEP_EVERY).await;
        }
    }
}
