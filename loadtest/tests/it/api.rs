//! An API process, in this process.

use clap::Parser as _;
use dibs_api::{app::App, serve, settings::ApiSettings};
use dibs_common::{config::Settings, supervisor::Supervisor, testing::no_metrics};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;

pub const ADMIN_TOKEN: &str = "a token of the tests";

/// Its address, and the task that serves until `stopping`.
pub async fn serve_api(shared: Settings, stopping: &CancellationToken) -> (String, JoinHandle<()>) {
    let given =
        ["test", "--database-url=mysql://unused/unused", "--redis-url=redis://unused", "--admin-token", ADMIN_TOKEN];
    let mut settings = ApiSettings::try_parse_from(given).expect("settings");
    settings.shared = shared;
    let app = App::start(settings, no_metrics(), Supervisor::new(stopping.clone())).await.expect("the API");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let base = format!("http://{}", listener.local_addr().expect("an address"));
    (base, tokio::spawn(async move { serve(app, listener).await.expect("served") }))
}
