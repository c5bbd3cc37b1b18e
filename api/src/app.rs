//! What every handler works with.

use std::sync::{Arc, atomic::AtomicU32};

use axum::extract::FromRef;
use dibs_common::supervisor::Supervisor;
use dibs_common::{db::Database, error::Result, integrations::payment_gateway::PaymentGateway, redis::Redis};
use metrics_exporter_prometheus::PrometheusHandle;
use secrecy::SecretString;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{claims::Claims, orders::Orders, rankings::Rankings, settings::ApiSettings};

/// The state of the API: connections, claims in progress, background work.
pub struct App {
    /// Settings, as given.
    pub settings: ApiSettings,
    /// The database.
    pub database: Database,
    /// Redis.
    pub redis: Redis,
    /// Who takes the money for points; without one every charge is approved.
    pub payment_gateway: Option<PaymentGateway>,
    /// The hot path.
    pub claims: Claims,
    /// Commands on their way.
    pub orders: Orders,
    /// What sold best.
    pub rankings: Rankings,
    /// The metrics.
    pub metrics: PrometheusHandle,
    /// Work that a client cannot cancel, waited for at the end.
    pub tasks: TaskTracker,
    pub supervisor: Supervisor,
    /// Cancelled when the process is about to end.
    pub stopping: CancellationToken,
    /// Requests in progress.
    pub in_progress: AtomicU32,
}

/// [`App`], as handlers share it.
pub type SharedApp = Arc<App>;

const DATABASE_CONNECTIONS: u32 = 48;
const REDIS_CONNECTIONS: usize = 2;

impl App {
    /// Connects to the servers that the settings name.
    pub async fn start(settings: ApiSettings, metrics: PrometheusHandle) -> Result<SharedApp> {
        let database = settings.shared.database(DATABASE_CONNECTIONS)?;
        let payment_gateway = settings.shared.payment_gateway()?;
        let redis = settings.shared.redis(REDIS_CONNECTIONS).await?;
        let stopping = CancellationToken::new();
        let supervisor = Supervisor::new(stopping.clone());
        let tasks = supervisor.tracker.clone();
        let claims = Claims::start(&database, &redis, &tasks).await?;
        let orders = Orders::start(&database, &redis, settings.shared.claim_partitions).await?;
        let zone = settings.shared.time_zone;
        let (rankings, reading) = Rankings::start((&database, &redis), zone, stopping.clone());
        tasks.spawn(reading);
        let in_progress = AtomicU32::new(0);
        Ok(Arc::new(Self {
            settings,
            database,
            redis,
            payment_gateway,
            claims,
            orders,
            rankings,
            metrics,
            tasks,
            supervisor,
            stopping,
            in_progress,
        }))
    }
}

/// The administrator's token, when one is set.
#[derive(Clone)]
pub struct AdminToken(pub Option<SecretString>);

impl FromRef<SharedApp> for AdminToken {
    fn from_ref(app: &SharedApp) -> Self {
        Self(app.settings.admin_token.clone())
    }
}
