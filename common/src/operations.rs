//! What every process answers about itself: `/health/live`, `/health/ready`, `/metrics`; and how it ends.

use std::{collections::BTreeMap, time::Duration};

use axum::{Json, Router, extract::State, http::StatusCode, response::IntoResponse, routing::get};
use metrics_exporter_prometheus::PrometheusHandle;
use serde::Serialize;
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;

use crate::{
    db::Database,
    error::{Dependency, Result},
    redis::Redis,
};

/// What the answers are made of.
#[derive(Clone)]
pub struct Operations {
    /// The database.
    pub database: Database,
    /// Redis.
    pub redis: Redis,
    /// The metrics.
    pub metrics: PrometheusHandle,
    /// Cancelled when the process is about to end.
    pub stopping: CancellationToken,
}

/// Whether a dependency answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum Health {
    /// It answers.
    Up,
    /// It does not.
    Down,
}

/// The state of a process.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Readiness {
    /// `UP` when every dependency is and the process is not about to end.
    pub status: Health,
    /// Each dependency by name.
    #[schema(value_type = std::collections::HashMap<String, Health>)]
    pub dependencies: BTreeMap<&'static str, Health>,
}

/// The routes of a process about itself.
pub fn router(operations: Operations) -> Router {
    Router::new()
        .route("/health/live", get(async || StatusCode::OK))
        .route("/health/ready", get(ready))
        .route("/metrics", get(async |State(operations): State<Operations>| operations.metrics.render()))
        .with_state(operations)
}

async fn ready(State(operations): State<Operations>) -> impl IntoResponse {
    let (database, redis) = tokio::join!(operations.database.ping(), operations.redis.ping());
    let dependencies = BTreeMap::from([
        (Dependency::MySql.into_str(), health(&database)),
        (Dependency::Redis.into_str(), health(&redis)),
    ]);
    let all_up = dependencies.values().all(|health| *health == Health::Up);
    if all_up && !operations.stopping.is_cancelled() {
        (StatusCode::OK, Json(Readiness { status: Health::Up, dependencies }))
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, Json(Readiness { status: Health::Down, dependencies }))
    }
}

fn health(answer: &Result<()>) -> Health {
    if answer.is_ok() { Health::Up } else { Health::Down }
}

/// Waits for SIGTERM or Ctrl-C.
pub async fn stop_signal() {
    let terminated = async {
        match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
            Ok(mut signal) => {
                signal.recv().await;
            }
            Err(error) => {
                tracing::warn!(%error, "SIGTERM cannot be listened for; only Ctrl-C ends this process gracefully");
                std::future::pending::<()>().await;
            }
        }
    };
    tokio::select! {
        () = terminated => {}
        result = tokio::signal::ctrl_c() => {
            if let Err(error) = result {
                tracing::warn!(%error, "Ctrl-C cannot be listened for");
                std::future::pending::<()>().await;
            }
        }
    }
}

/// How long a process may take to finish what it has begun.
pub const DRAIN_LIMIT: Duration = Duration::from_secs(10);

/// Asks `http://address/health/ready`; whether the process there is ready. For container health checks.
pub async fn probe(address: std::net::SocketAddr) -> bool {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let target = match address.ip() {
        ip if ip.is_unspecified() => std::net::SocketAddr::from(([127, 0, 0, 1], address.port())),
        _ => address,
    };
    let asked = async {
        let mut connection = tokio::net::TcpStream::connect(target).await?;
        connection.write_all(b"GET /health/ready HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await?;
        let mut answer = [0; 12];
        connection.read_exact(&mut answer).await?;
        std::io::Result::Ok(answer)
    };
    matches!(tokio::time::timeout(Duration::from_secs(3), asked).await, Ok(Ok(answer)) if answer.ends_with(b" 200"))
}
