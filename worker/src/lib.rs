//! `dibs-worker`: processes what the API has accepted.

pub mod assignments;
mod backlog_metrics;
pub mod campaigns;
pub mod charges;
pub mod cli;
mod dead_letters;
pub mod doctor;
pub mod epoch;
pub mod issuance;
pub mod jobs;
pub mod kafka;
pub mod keys;
pub mod orders;
mod purge;
pub mod ranking;
pub mod relay;
pub mod seed;
pub mod settings;
pub mod streams;
pub mod webhooks;

use std::{future::Future, sync::Arc, time::Duration};

pub use dead_letters::{dead_letter_line, redrive_once};
use dibs_common::{
    db::Database,
    domain::order::OrderRules,
    error::Result,
    identifiers::Partition,
    integrations::{messages::Receiver, payment_gateway::PaymentGateway},
    live::{self, ProcessKind},
    redis::Redis,
    retry,
    supervisor::{Lifetime, Supervisor, Task},
};
use futures::FutureExt as _;

#[cfg(feature = "kafka")]
use crate::kafka::{ClaimRequestConsumer, KafkaSink, RankingConsumer};
use crate::{
    charges::ChargeReconciler,
    issuance::claim_worker,
    jobs::Jobs,
    kafka::{KafkaSettings, RankingSource},
    orders::command_processor,
    ranking::RankingSink,
    relay::{Relay, Sink},
    settings::{DEFAULT_DRIFT_CLAIMS_PER_SECOND, Retention},
    streams::ReclaimPolicy,
    webhooks::{WebhookSink, Webhooks},
};

const RECONCILE_INTERVAL: Duration = Duration::from_secs(1);

/// The work of one process.
#[derive(Clone)]
pub struct Worker {
    pub database: Database,
    pub redis: Redis,
    /// Without one, pending charges of points stay pending.
    pub payment_gateway: Option<PaymentGateway>,
    pub webhooks: Webhooks,
    /// When its consumers reclaim the entries of others.
    pub reclaim: ReclaimPolicy,
    pub rules: OrderRules,
    /// How many claims the drift check compares.
    pub drift_claims_per_second: u32,
    pub retention: Retention,
    pub kafka: KafkaSettings,
    pub supervisor: Supervisor,
}

impl Worker {
    /// A worker with the default settings, without receivers of events and without a payment gateway.
    pub fn new(database: &Database, redis: &Redis, supervisor: Supervisor) -> Self {
        Self {
            database: database.clone(),
            redis: redis.clone(),
            payment_gateway: None,
            webhooks: Webhooks::default(),
            reclaim: ReclaimPolicy::default(),
            rules: OrderRules::DEFAULT,
            drift_claims_per_second: DEFAULT_DRIFT_CLAIMS_PER_SECOND,
            retention: Retention::DEFAULT,
            kafka: KafkaSettings::default(),
            supervisor,
        }
    }

    /// Works on partitions 0 to `partitions` - 1, and on any other that a campaign lives in. Returns when the
    /// supervisor's `stopping` is cancelled and what is in flight is finished.
    pub async fn run(self, partitions: u16) {
        for task in self.tasks(partitions) {
            self.supervisor.spawn(task);
        }
        self.supervisor.stopping.cancelled().await;
        self.supervisor.shut_down().await;
    }

    /// Every long-running task, but for those of partitions that campaigns bring along.
    fn tasks(&self, partitions: u16) -> Vec<Task> {
        let mut tasks = vec![
            self.task("charge_reconciliation", |Self { database, payment_gateway: gateway, supervisor, .. }| {
                ChargeReconciler { database, gateway, stopping: supervisor.stopping }.run().map(Ok)
            }),
            self.task("order_commands", move |worker| worker.execute_commands(partitions)),
            self.task("assignments", |Self { database, redis, supervisor, .. }| {
                assignments::run(database, redis, supervisor.stopping).map(Ok)
            }),
            self.task("dead_letters", |Self { database, redis, supervisor, .. }| {
                dead_letters::run(database, redis, supervisor.stopping).map(Ok)
            }),
            self.task("event_sequencing", |Self { database, redis, supervisor, .. }| {
                relay::sequence_events(database, redis, supervisor.stopping).map(Ok)
            }),
            self.task("backlog_metrics", move |Self { database, redis, supervisor, .. }| {
                backlog_metrics::export_backlog(database, redis, partitions, supervisor.stopping).map(Ok)
            }),
            self.task("jobs", move |Self { database, redis, rules, retention, supervisor, .. }| {
                let zone = rules.time_zone;
                let jobs = Jobs { database, redis, zone, partitions, retention, expiry: Arc::default() };
                jobs::run_on_schedule(jobs, supervisor.tracker, supervisor.stopping)
            }),
            self.task("campaign_reconciliation", Self::reconcile_campaigns),
            self.task("campaign_rebuilds", |Self { database, redis, supervisor, .. }| {
                campaigns::run_requested(database, redis, supervisor.stopping).map(Ok)
            }),
            self.task("drift_check", |Self { database, redis, drift_claims_per_second, supervisor, .. }| {
                campaigns::run_drift_check(database, redis, drift_claims_per_second, supervisor.stopping).map(Ok)
            }),
            self.task("delivery_tests", |Self { redis, webhooks, supervisor, .. }| {
                webhooks::send_tests(redis, webhooks, supervisor.stopping).map(Ok)
            }),
            live::report_task(ProcessKind::Worker, &self.redis, &self.supervisor),
        ];
        tasks.extend((0..partitions).map(|number| self.claims_task(Partition(number))));
        // Else a consumer of Kafka counts the same events.
        if self.kafka.ranking_source == RankingSource::Outbox {
            tasks.push(self.relay_task(self.ranking_sink()));
        }
        tasks.extend(self.webhook_sinks().map(|sink| self.relay_task(sink)));
        #[cfg(feature = "kafka")]
        tasks.extend(self.kafka_tasks());
        tasks
    }

    /// A task that drains and ends when the process stops.
    fn task<F: Future<Output = Result<()>> + Send + 'static>(
        &self,
        name: impl Into<String>,
        run: impl Fn(Self) -> F + Send + 'static,
    ) -> Task {
        let worker = self.clone();
        Task::new(name, Lifetime::UntilStopping, move || run(worker.clone()))
    }

    fn claims_task(&self, partition: Partition) -> Task {
        self.task(format!("claims_{}", partition.0), move |worker| worker.confirm_claims(partition))
    }

    fn relay_task<S: Sink + Clone + 'static>(&self, sink: S) -> Task {
        let name = format!("relay_{}", sink.name().replace('-', "_"));
        self.task(name, move |worker| {
            let relay = Relay::new(&worker.database, sink.clone());
            relay.run(worker.supervisor.stopping).map(Ok)
        })
    }

    #[cfg(feature = "kafka")]
    fn kafka_tasks(&self) -> Vec<Task> {
        let Some(cluster) = kafka::Cluster::of(&self.kafka) else { return Vec::new() };
        let mut tasks = vec![self.relay_task(KafkaSink::new(&cluster, kafka::ACK_TIMEOUT))];
        if self.kafka.ranking_source == RankingSource::Kafka {
            let cluster = cluster.clone();
            tasks.push(self.task("kafka_ranking", move |Self { database, redis, rules, supervisor, .. }| {
                consume(RankingConsumer::join_ranking(&cluster, &database, &redis, rules.time_zone), supervisor)
            }));
        }
        tasks.push(self.task("kafka_claim_requests", move |Self { database, redis, supervisor, .. }| {
            consume(ClaimRequestConsumer::join_claim_requests(&cluster, &database, &redis), supervisor)
        }));
        tasks
    }

    /// Compares campaigns with Redis once a second, and confirms claims of every partition that a campaign lives in.
    async fn reconcile_campaigns(self) -> Result<()> {
        let mut reconciler = campaigns::Reconciler::new(self.database.clone(), self.redis.clone(), self.retention);
        let mut rounds = retry::every(RECONCILE_INTERVAL, &self.supervisor.stopping);
        while rounds.next().await {
            match reconciler.round().await {
                Ok(partitions) => {
                    // A task that is listed already is not spawned twice.
                    for partition in partitions {
                        self.supervisor.spawn(self.claims_task(partition));
                    }
                }
                Err(error) => tracing::warn!(cause = error.chain(), "campaign reconciliation failed"),
            }
        }
        Ok(())
    }

    async fn confirm_claims(self, partition: Partition) -> Result<()> {
        let worker = claim_worker(&self.database, &self.redis, partition, self.reclaim);
        worker.run([partition], self.supervisor.stopping).await;
        Ok(())
    }

    async fn execute_commands(self, partitions: u16) -> Result<()> {
        // One for all partitions: parallel transactions would wait for the rows of popular products.
        let processor = command_processor(&self.database, &self.redis, self.rules, self.reclaim);
        processor.run((0..partitions).map(Partition), self.supervisor.stopping).await;
        Ok(())
    }

    pub fn ranking_sink(&self) -> RankingSink {
        RankingSink { database: self.database.clone(), redis: self.redis.clone(), zone: self.rules.time_zone }
    }

    fn webhook_sinks(&self) -> impl Iterator<Item = WebhookSink> {
        let Webhooks { data_platform, notifications } = &self.webhooks;
        let endpoints = [(Receiver::DataPlatform, data_platform), (Receiver::Notifications, notifications)];
        endpoints.into_iter().filter_map(|(receiver, endpoint)| {
            Some(WebhookSink::new(receiver, endpoint.clone()?, &self.database, self.supervisor.stopping.clone()))
        })
    }
}

/// Runs a consumer of Kafka that has joined its group.
#[cfg(feature = "kafka")]
async fn consume<H: kafka::Handler + 'static>(
    joined: Result<kafka::Consumer<H>>,
    supervisor: Supervisor,
) -> Result<()> {
    joined?.run(supervisor.stopping).await;
    Ok(())
}
