//! `dibs-api`: the REST API.

pub mod access;
pub mod app;
pub mod claims;
pub mod console;
pub mod edge;
pub mod extract;
pub mod orders;
pub mod outcome_waiters;
pub mod problem;
pub mod rankings;
pub mod request_id;
pub mod routes;
pub mod settings;

use dibs_common::{
    error::Result,
    http_server::{self, Shutdown},
    shutdown::DRAIN_LIMIT,
};
use tokio::net::TcpListener;

use crate::{access::policy::Listener, app::SharedApp};

/// Serves calls on `listener` until [`app::App::stopping`] is cancelled; then finishes what is in progress.
pub async fn serve(app: SharedApp, listener: TcpListener) -> Result<()> {
    serve_both(app, listener, None).await
}

/// The same with a listener of its own for administration, metrics and documents, when there is one.
pub async fn serve_both(app: SharedApp, shop: TcpListener, administration: Option<TcpListener>) -> Result<()> {
    match administration {
        None => serve_routes(&app, shop, Listener::Only).await,
        Some(administration) => {
            let shop = serve_routes(&app, shop, Listener::Shop);
            tokio::join!(shop, serve_routes(&app, administration, Listener::Administration));
        }
    }
    app.claims.close();
    if tokio::time::timeout(DRAIN_LIMIT, app.supervisor.shut_down()).await.is_err() {
        tracing::warn!("drain limit reached: tasks still running");
    }
    app.redis.close().await;
    app.database.close().await;
    Ok(())
}

async fn serve_routes(app: &SharedApp, listener: TcpListener, served: Listener) {
    let shutdown = Shutdown {
        draining: app.supervisor.draining.clone(),
        stopping: app.stopping.clone(),
        drain_limit: DRAIN_LIMIT,
    };
    // A service is made once: otherwise every request would make each route into one again.
    let routes = routes::router(app.clone(), served).with_state(());
    if !http_server::serve(listener, routes, app.settings.listener.limits(), shutdown).await {
        tracing::warn!("drain limit reached; connections closed with requests in progress");
    }
}
