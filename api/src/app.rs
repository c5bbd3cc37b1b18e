//! The state that all handlers share.

use std::{
    convert::Infallible,
    ops::Deref,
    sync::{Arc, atomic::AtomicU32},
};

use axum::{extract::FromRequestParts, http::request::Parts};
use dibs_common::{
    db::Database,
    error::{Error, Result},
    integrations::payment_gateway::PaymentGateway,
    live::{self, ProcessKind},
    redis::Redis,
    supervisor::Supervisor,
};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    access::Credentials,
    claims::{ClaimAttempts, Claims, RateLimiter},
    console::{Hub, Sessions},
    orders::Orders,
    rankings::Rankings,
    settings::ApiSettings,
};

pub struct App {
    pub settings: ApiSettings,
    pub credentials: Arc<Credentials>,
    pub database: Database,
    pub redis: Redis,
    /// Without one every charge of points is approved.
    pub payment_gateway: Option<PaymentGateway>,
    pub claims: Claims,
    pub claim_attempts: Arc<ClaimAttempts>,
    /// None when claims are not limited.
    pub rate_limiter: Option<RateLimiter>,
    pub orders: Orders,
    pub rankings: Rankings,
    /// Who is logged in to the console.
    pub sessions: Sessions,
    /// What moves on the console's pages.
    pub hub: Hub,
    pub metrics: PrometheusHandle,
    /// Work that a client cannot cancel; the process waits for it before it ends.
    pub tasks: TaskTracker,
    pub supervisor: Supervisor,
    /// Cancelled when the process is about to end.
    pub stopping: CancellationToken,
    pub in_progress: AtomicU32,
    /// One place for each list of users that is arriving.
    pub uploads: Semaphore,
}

/// The state as handlers take it: an argument `app: SharedApp`.
#[derive(Clone)]
pub struct SharedApp(Arc<App>);

impl Deref for SharedApp {
    type Target = App;

    fn deref(&self) -> &App {
        &self.0
    }
}

impl FromRequestParts<Self> for SharedApp {
    type Rejection = Infallible;

    async fn from_request_parts(_: &mut Parts, app: &Self) -> Result<Self, Infallible> {
        Ok(app.clone())
    }
}

const DATABASE_CONNECTIONS: u32 = 48;
const REDIS_CONNECTIONS: usize = 2;
/// Lists of users that arrive at once. Each keeps a connection to the database busy.
const MAX_UPLOADS: usize = 4;

impl App {
    /// Connects to the servers that the settings name.
    pub async fn start(settings: ApiSettings, metrics: PrometheusHandle, supervisor: Supervisor) -> Result<SharedApp> {
        let database = settings.shared.database(DATABASE_CONNECTIONS)?;
        database.check_server().await?;
        let payment_gateway = settings.shared.payment_gateway()?;
        supervisor.spawn(database.watch_task(&supervisor.stopping));
        // With a key set at a URL, a start waits for its issuer: without keys every user would be refused.
        let credentials = Credentials::start(&settings, &database, &supervisor).await?;
        credentials.watch(&settings.secret_files, &supervisor);
        // The only server of its own that a start waits for: claims and outcomes need its channels, while the pool of
        // MySQL connects when it is used.
        let redis = settings.shared.redis(REDIS_CONNECTIONS).await?;
        let (tasks, stopping) = (supervisor.tracker.clone(), supervisor.stopping.clone());
        let max_waiting = max_waiting_callers(settings.max_requests_in_progress);
        let claims = Claims::start(&database, &redis, &supervisor, max_waiting).await?;
        let claim_attempts = ClaimAttempts::start(&database, settings.claim_attempts_per_second, &supervisor);
        let rate_limiter = RateLimiter::start(&settings, &redis, &supervisor);
        let partitions = settings.shared.claim_partitions;
        let orders = Orders::start(&database, &redis, &supervisor, partitions, max_waiting).await?;
        let rankings = Rankings::start(&database, &redis, settings.shared.time_zone, &supervisor);
        supervisor.spawn(live::report_task(ProcessKind::Api, &redis, &supervisor));
        let sessions = Sessions::new(&credentials, &redis);
        let hub = Hub::start(&database, &redis, settings.shared.time_zone, &supervisor);
        let in_progress = AtomicU32::new(0);
        Ok(SharedApp(Arc::new(Self {
            settings,
            credentials,
            database,
            redis,
            payment_gateway,
            claims,
            claim_attempts,
            rate_limiter,
            orders,
            rankings,
            sessions,
            hub,
            metrics,
            tasks,
            supervisor,
            stopping,
            in_progress,
            uploads: Semaphore::new(MAX_UPLOADS),
        })))
    }
}

impl App {
    /// Runs work in a task of its own: a client that goes away drops the handler, and must not stop a transaction half
    /// way. The process waits for it before it ends.
    pub async fn run_to_end<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        self.tasks.spawn(work).await.map_err(Error::internal)?
    }
}

/// How many callers may wait for outcomes of claims, and how many for outcomes of commands: half of all requests in
/// progress together, so that callers that wait while no worker runs leave room for all other calls.
fn max_waiting_callers(max_requests_in_progress: u32) -> usize {
    (max_requests_in_progress as usize / 4).max(1)
}
