//! `dibs-worker`: carries out what the API has accepted.

pub mod assignments;
pub mod campaigns;
pub mod charges;
mod dead_letters;
pub mod issuance;
pub mod jobs;
pub mod kafka;
pub mod orders;
mod purge;
pub mod ranking;
pub mod relay;
pub mod seed;
pub mod settings;
pub mod webhooks;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use chrono_tz::Tz;
pub use dead_letters::{dead_letter_line, redrive, redrive_source};
use dibs_common::{
    db::Database,
    domain::order::OrderRules,
    identifiers::{Partition, new_uuid},
    integrations::{messages::Receiver, payment_gateway::PaymentGateway},
    redis::{Redis, streams::OrderStream},
};
use futures::future::join_all;
use tokio::sync::mpsc;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

#[cfg(feature = "kafka")]
use crate::kafka::{Intake, KafkaSink, RankingConsumer};
use crate::{
    charges::Settlement,
    issuance::{Consumer, ReclaimPolicy},
    jobs::Jobs,
    kafka::{KafkaSettings, RankingSource},
    orders::{CommandProcessor, InFlight, Reader},
    ranking::RankingSink,
    relay::{Relay, Sink},
    webhooks::{WebhookSink, Webhooks},
};

const KEEP_EVERY: Duration = Duration::from_secs(1);
/// Reads of commands that wait for the desk: enough that a batch has its share of every partition.
const HANDED_ON: usize = 64;

/// The work of one process.
#[derive(Clone)]
pub struct Worker {
    /// The database.
    pub database: Database,
    /// Redis.
    pub redis: Redis,
    /// Who is asked about charges of points; without one they are not settled.
    pub payment_gateway: Option<PaymentGateway>,
    /// Who is told by HTTP of what happened.
    pub webhooks: Webhooks,
    /// How patient its consumers are.
    pub pace: ReclaimPolicy,
    /// What the shop has set of the rules of orders.
    pub rules: OrderRules,
    /// Where a business day begins.
    pub time_zone: Tz,
    /// The brokers that events are sent to, and taken from.
    pub kafka: KafkaSettings,
    /// Cancelled when the process is about to end.
    pub stopping: CancellationToken,
    /// What is going on.
    pub tasks: TaskTracker,
}

impl Worker {
    /// Works on partitions 0 to `partitions` - 1, and on any other that a campaign lives in, until told to stop.
    pub async fn run(self, partitions: u16) {
        self.tasks.spawn(self.settlement().run());
        self.tasks.spawn(self.clone().execute_commands(partitions));
        self.tasks.spawn(assignments::run(self.database.clone(), self.redis.clone(), self.stopping.clone()));
        self.tasks.spawn(relay::number_until_stopped(self.database.clone(), self.stopping.clone()));
        if self.kafka.ranking_source == RankingSource::Outbox {
            self.tasks.spawn(self.clone().relay(self.ranking_sink()));
        }
        for sink in self.webhook_sinks() {
            self.tasks.spawn(self.clone().relay(sink));
        }
        #[cfg(feature = "kafka")]
        self.work_with_kafka();
        let jobs = self.jobs(partitions);
        self.tasks.spawn(jobs::run_on_schedule(jobs, self.tasks.clone(), self.stopping.clone()));
        let mut started = BTreeSet::new();
        let mut wanted: Vec<Partition> = (0..partitions).map(Partition).collect();
        while !self.stopping.is_cancelled() {
            for partition in wanted.drain(..) {
                if started.insert(partition) {
                    self.tasks.spawn(self.clone().consume(partition));
                }
            }
            match campaigns::reconcile_all(&self.database, &self.redis).await {
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

    /// What counts sales.
    pub fn ranking_sink(&self) -> RankingSink {
        RankingSink { database: self.database.clone(), redis: self.redis.clone(), zone: self.time_zone }
    }

    /// What tells receivers by HTTP.
    fn webhook_sinks(&self) -> impl Iterator<Item = WebhookSink> {
        let Webhooks { data_platform, notifications } = &self.webhooks;
        let endpoints = [(Receiver::DataPlatform, data_platform), (Receiver::Notifications, notifications)];
        endpoints.into_iter().filter_map(|(receiver, endpoint)| {
            Some(WebhookSink::new(receiver, endpoint.clone()?, &self.database, self.stopping.clone()))
        })
    }

    #[cfg(feature = "kafka")]
    fn work_with_kafka(&self) {
        let Some(cluster) = kafka::Cluster::of(&self.kafka) else { return };
        self.tasks.spawn(self.clone().relay(KafkaSink::new(&cluster, kafka::PATIENCE)));
        let (database, redis, zone) = (self.database.clone(), self.redis.clone(), self.time_zone);
        if self.kafka.ranking_source == RankingSource::Kafka {
            let (cluster, database, redis) = (cluster.clone(), database.clone(), redis.clone());
            let join = move || RankingConsumer::count_sales(&cluster, &database, &redis, zone);
            self.tasks.spawn(self.clone().take_from_kafka(join));
        }
        self.tasks.spawn(self.clone().take_from_kafka(move || Intake::take_requests(&cluster, &database, &redis)));
    }

    /// Takes messages of Kafka until told to stop.
    #[cfg(feature = "kafka")]
    async fn take_from_kafka<H, J>(self, join: J)
    where
        H: kafka::Handler + 'static,
        J: Fn() -> dibs_common::error::Result<kafka::Consumer<H>> + Send,
    {
        while !self.stopping.is_cancelled() {
            match join() {
                Ok(consumer) => match tokio::spawn(consumer.run(self.stopping.clone())).await {
                    Ok(()) => return,
                    Err(panic) => tracing::error!(consumer = H::NAME, %panic, "a consumer broke; another joins"),
                },
                Err(error) => tracing::warn!(consumer = H::NAME, cause = error.chain(), "Kafka cannot be joined now"),
            }
            tokio::time::sleep(KEEP_EVERY).await;
        }
    }

    fn jobs(&self, partitions: u16) -> Jobs {
        let (database, redis) = (self.database.clone(), self.redis.clone());
        Jobs { database, redis, zone: self.time_zone, partitions, expiry: Arc::default() }
    }

    /// Sends events on to a sink until told to stop.
    async fn relay<S: Sink + Clone + 'static>(self, sink: S) {
        while !self.stopping.is_cancelled() {
            let relay = Relay::new(&self.database, sink.clone());
            match tokio::spawn(relay.run(self.stopping.clone())).await {
                Ok(()) => return,
                Err(panic) => tracing::error!(sink = sink.name(), %panic, "a relay broke; another begins"),
            }
            tokio::time::sleep(KEEP_EVERY).await;
        }
    }

    fn settlement(&self) -> Settlement {
        let (database, gateway) = (self.database.clone(), self.payment_gateway.clone());
        Settlement { database, gateway, stopping: self.stopping.clone() }
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

    /// Carries out the commands of all partitions until told to stop.
    async fn execute_commands(self, partitions: u16) {
        while !self.stopping.is_cancelled() {
            match tokio::spawn(self.clone().work_at_desk(partitions)).await {
                Ok(()) => return,
                Err(panic) => tracing::error!(%panic, "the desk broke; another opens"),
            }
            tokio::time::sleep(KEEP_EVERY).await;
        }
    }

    async fn work_at_desk(self, partitions: u16) {
        let (hand_on, handed_on) = mpsc::channel(HANDED_ON);
        let desk = CommandProcessor::new(&self.database, &self.redis, self.rules);
        let readers = (0..partitions).map(|number| self.read_commands(Partition(number), hand_on.clone()));
        let reading = join_all(readers);
        drop(hand_on);
        let ((), streams) = tokio::join!(desk.run(handed_on, self.stopping.clone()), reading);
        // Only now is nothing of them in hand.
        join_all(streams.iter().flatten().map(|stream| stream.close())).await;
    }

    /// None when told to stop before the partition could be joined.
    async fn read_commands(
        &self,
        partition: Partition,
        hand_on: mpsc::Sender<Vec<InFlight>>,
    ) -> Option<Arc<OrderStream>> {
        while !self.stopping.is_cancelled() {
            let name = format!("worker-{}", new_uuid());
            match Reader::join(&self.redis, partition, name, self.pace).await {
                Ok(reader) => {
                    let stream = reader.stream();
                    reader.run(hand_on, self.stopping.clone()).await;
                    return Some(stream);
                }
                Err(error) => {
                    tracing::warn!(partition = partition.0, cause = error.chain(), "a partition cannot be joined now");
                    tokio::time::sleep(KEEP_EVERY).await;
                }
            }
        }
        None
    }
}
