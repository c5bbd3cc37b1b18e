//! A panic in a long-running task of a worker ends one run of that task, and nothing else.

use std::{net::SocketAddr, time::Duration};

use dibs_common::{
    clock,
    domain::{order::OrderRules, ranking::business_day},
    health::{self, ProcessHealth},
    http_server::ConnectionLimits,
    redis::sales,
    supervisor::Supervisor,
    telemetry,
    testing::{
        TestEnvironment,
        commands::{place_order, with_payment},
        eventually, panicking_supervisor, was_restarted,
    },
};
use dibs_worker::{Worker, kafka::KafkaSettings, webhooks::Webhooks};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::{ranking::ZONE, receiver::TestReceiver, support::accept};

const LIMIT: Duration = Duration::from_secs(20);

/// A whole worker process, each of whose tasks panics once.
pub struct PanickingWorker {
    supervisor: Supervisor,
    metrics: PrometheusHandle,
    address: SocketAddr,
    working: JoinHandle<()>,
}

impl PanickingWorker {
    pub async fn start(environment: &TestEnvironment, webhooks: Webhooks, kafka: KafkaSettings) -> Self {
        let supervisor = panicking_supervisor(CancellationToken::new());
        let metrics = telemetry::metrics().expect("a recorder");
        let (database, redis) = (environment.database.clone(), environment.redis.clone());
        let process = ProcessHealth {
            database: database.clone(),
            redis: redis.clone(),
            metrics: metrics.clone(),
            supervisor: supervisor.clone(),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        supervisor.spawn(telemetry::upkeep_task(metrics.clone()));
        let limits = ConnectionLimits::new(100, 100);
        let server = health::server_task(listener, health::router(process), limits, &supervisor);
        supervisor.spawn(server.expect("a listener"));
        let worker = Worker {
            webhooks,
            rules: OrderRules { holding_cap: 1_000_000_000, time_zone: ZONE, ..OrderRules::DEFAULT },
            kafka,
            ..Worker::new(&database, &redis, supervisor.clone())
        };
        Self { supervisor, metrics, address, working: tokio::spawn(worker.run(1)) }
    }

    /// Waits until each of these tasks was restarted once, and expects that the process has no others and is ready.
    pub async fn expect_restarts(&self, tasks: &[&str]) {
        for task in tasks {
            eventually(task, LIMIT, async || was_restarted(&self.metrics, task, 1)).await;
        }
        let listed: Vec<String> = self.supervisor.tasks().into_iter().map(|(name, _)| name).collect();
        assert_eq!(listed, tasks);
        assert!(health::probe(self.address).await, "{:?}", self.supervisor.tasks());
    }

    pub async fn stop(self) {
        self.supervisor.stopping.cancel();
        self.working.await.expect("the worker ended by itself");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_task_of_a_worker_is_restarted_after_a_panic_and_works() {
    let environment = TestEnvironment::new().await;
    let (data_platform, notifications) = (TestReceiver::new().await, TestReceiver::new().await);
    let webhooks =
        Webhooks { data_platform: Some(data_platform.endpoint()), notifications: Some(notifications.endpoint()) };
    let worker = PanickingWorker::start(&environment, webhooks, KafkaSettings::default()).await;
    worker
        .expect_restarts(&[
            "assignments",
            "backlog_metrics",
            "campaign_rebuilds",
            "campaign_reconciliation",
            "charge_reconciliation",
            "claims_0",
            "dead_letters",
            "delivery_tests",
            "drift_check",
            "event_sequencing",
            "http_server",
            "jobs",
            "live_report",
            "metrics_upkeep",
            "order_commands",
            "relay_data_platform",
            "relay_notifications",
            "relay_ranking",
        ])
        .await;
    // A new sink receives only events created after its registration.
    eventually("sinks are registered", LIMIT, async || environment.count("SELECT COUNT(*) FROM sinks").await == 3)
        .await;

    let campaign = environment.campaign(2).await;
    accept(&environment, &campaign, [8]).await;
    environment.assign(campaign.id, [9]).await;
    environment.points(1, 100_000).await;
    let product = environment.product(10, 100).await;
    environment.enqueue(&with_payment(place_order(1, product, 3))).await;

    let done = "SELECT COUNT(*) FROM assignments WHERE status = 'DONE'";
    eventually("the assignment is done", LIMIT, async || environment.count(done).await == 1).await;
    let issued = "SELECT COUNT(*) FROM user_coupons";
    assert_eq!(environment.count(issued).await, 2, "of the claim and of the assignment");
    let paid = "SELECT COUNT(*) FROM orders WHERE status = 'PAY_DONE'";
    eventually("the order is paid", LIMIT, async || environment.count(paid).await == 1).await;
    eventually("order events are delivered", LIMIT, async || data_platform.taken().len() == 2).await;
    eventually("coupon events are delivered", LIMIT, async || notifications.taken().len() == 2).await;
    let counted = async || {
        let today = business_day(clock::now(), ZONE);
        sales::daily(&environment.redis, today).await.expect("redis").get(&product) == Some(&3)
    };
    eventually("sales are counted", LIMIT, counted).await;
    let run = "SELECT COUNT(*) FROM job_runs";
    eventually("jobs run", LIMIT, async || environment.count(run).await > 0).await;
    worker.stop().await;
    environment.end().await;
}
