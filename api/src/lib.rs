//! `dibs-api`: answers the shop's calls.

pub mod app;
pub mod claims;
pub mod edge;
pub mod extract;
pub mod orders;
pub mod outcome_waiters;
pub mod problem;
pub mod rankings;
pub mod request_id;
pub mod routes;
pub mod settings;

use std::future::IntoFuture as _;

use axum::serve::ListenerExt as _;
use dibs_common::{
    error::{Error, Result},
    shutdown::{self, DRAIN_LIMIT},
};
use tokio::net::TcpListener;

use crate::app::SharedApp;

/// Serves calls on `listener` until [`app::App::stopping`] is cancelled; then finishes what it has begun.
pub async fn serve(app: SharedApp, listener: TcpListener) -> Result<()> {
    let listener = listener.tap_io(|connection| {
        if let Err(error) = connection.set_nodelay(true) {
            tracing::debug!(%error, "a connection is answered without TCP_NODELAY");
        }
    });
    let stopping = app.stopping.clone();
    // Made into a service once: else every connection would copy every route.
    let routes = routes::router(app.clone()).into_make_service();
    let serving =
        axum::serve(listener, routes).with_graceful_shutdown(app.stopping.clone().cancelled_owned()).into_future();
    tokio::select! {
        served = serving => served.map_err(Error::internal)?,
        () = shutdown::drain_limit(&stopping) => tracing::warn!("some connections were still busy at the end of the drain limit"),
    }
    app.tasks.close();
    app.claims.close();
    if tokio::time::timeout(DRAIN_LIMIT, app.tasks.wait()).await.is_err() {
        tracing::warn!("some work was still going on at the end of the drain limit");
    }
    app.redis.close().await;
    app.database.close().await;
    Ok(())
}
