//! The endpoints of a process about itself: `/health/live`, `/health/ready` and `/metrics`.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use axum::{Json, Router, extract::State, http::StatusCode, response::IntoResponse, routing::get};
use metrics_exporter_prometheus::PrometheusHandle;
use serde::Serialize;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use utoipa::ToSchema;

use crate::{
    db::Database,
    error::{Dependency, Error, Result},
    http_server::{self, ConnectionLimits, Shutdown},
    redis::Redis,
    supervisor::{Lifetime, Supervisor, Task},
};

const PROBE_TIMEOUT: Duration = Duration::from_secs(3);

/// What the endpoints report on.
#[derive(Clone)]
pub struct ProcessHealth {
    pub database: Database,
    pub redis: Redis,
    pub metrics: PrometheusHandle,
    pub supervisor: Supervisor,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum Health {
    Up,
    Down,
}

impl Health {
    pub const fn up_if(is_up: bool) -> Self {
        if is_up { Self::Up } else { Self::Down }
    }
}

/// The body of `/health/ready`.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Readiness {
    /// `UP` when every dependency and every task is, and the process is not about to end.
    pub status: Health,
    #[schema(value_type = std::collections::HashMap<String, Health>)]
    pub dependencies: BTreeMap<&'static str, Health>,
    /// The long-running tasks of the process. One that has not run for 10 s is `DOWN`.
    pub tasks: BTreeMap<String, Health>,
}

pub fn router(process: ProcessHealth) -> Router {
    Router::new()
        // Liveness asks no dependency: a restart of this process brings neither MySQL nor Redis back.
        .route("/health/live", get(async || StatusCode::OK))
        .route("/health/ready", get(ready))
        .route("/metrics", get(async |State(process): State<ProcessHealth>| process.metrics.render()))
        .with_state(process)
}

async fn ready(State(process): State<ProcessHealth>) -> impl IntoResponse {
    // Both at once, so that the response takes one time-out when both servers are unreachable.
    let (database, redis) = tokio::join!(process.database.ping(), process.redis.ping());
    let dependencies = BTreeMap::from([
        (Dependency::MySql.into_str(), Health::up_if(database.is_ok())),
        (Dependency::Redis.into_str(), Health::up_if(redis.is_ok())),
    ]);
    let tasks = process.supervisor.tasks().into_iter().map(|(name, is_up)| (name, Health::up_if(is_up)));
    let tasks: BTreeMap<String, Health> = tasks.collect();
    let is_ready = !process.supervisor.is_ending()
        && dependencies.values().chain(tasks.values()).all(|health| *health == Health::Up);
    let status = if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(Readiness { status: Health::up_if(is_ready), dependencies, tasks }))
}

/// A task that serves `routes` until the process ends, so that health and metrics can be read during the drain, too.
pub fn server_task(
    listener: TcpListener,
    routes: Router,
    limits: ConnectionLimits,
    supervisor: &Supervisor,
) -> Result<Task> {
    // A listener of tokio cannot be cloned, one of the standard library can.
    let listener = listener.into_std().map_err(Error::internal)?;
    let (draining, stopping) = (supervisor.draining.clone(), supervisor.shutdown.clone());
    Ok(Task::new("http_server", Lifetime::UntilShutdown, move || {
        // A copy: a run that fails closes its own, and the port stays bound for the next one.
        let (listener, routes) = (listener.try_clone(), routes.clone());
        let shutdown = Shutdown { draining: draining.clone(), stopping: stopping.clone(), drain_limit: Duration::ZERO };
        async move {
            let listener = TcpListener::from_std(listener.map_err(Error::internal)?).map_err(Error::internal)?;
            http_server::serve(listener, routes, limits, shutdown).await;
            Ok(())
        }
    }))
}

/// Whether `http://address/health/ready` answers 200. For health checks of containers.
pub async fn probe(address: SocketAddr) -> bool {
    // The unspecified address is one to listen on, not one to connect to.
    let target = match address.ip() {
        ip if ip.is_unspecified() => SocketAddr::from((Ipv4Addr::LOCALHOST, address.port())),
        _ => address,
    };
    let request = async {
        let mut connection = TcpStream::connect(target).await?;
        connection.write_all(b"GET /health/ready HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await?;
        // The status line is all that is needed, so no HTTP client is started for each check of a container.
        let mut status_line = [0; 12];
        connection.read_exact(&mut status_line).await?;
        std::io::Result::Ok(status_line)
    };
    matches!(timeout(PROBE_TIMEOUT, request).await, Ok(Ok(status_line)) if status_line.ends_with(b" 200"))
}
