//! `dibs-api`, the process.

use std::{process::ExitCode, time::Duration};

use dibs_api::{
    app::App,
    serve_both,
    settings::{ApiSettings, Command},
};
use dibs_common::{
    clock,
    config::{self, Parsed},
    db::processes::SharedSettings,
    error::{Error, Result},
    health, http_server, presence, runtime, shutdown,
    supervisor::Supervisor,
    telemetry,
    traces::TraceExport,
};
use tokio_util::sync::CancellationToken;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    config::read_environment_file();
    let ended = config::parse::<ApiSettings>().and_then(|parsed| {
        let runtime = runtime::build(parsed.settings.shared.runtime_threads, runtime::half_of_the_cores())
            .map_err(Error::internal)?;
        runtime.block_on(execute(parsed))
    });
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            config::report(&error);
            ExitCode::FAILURE
        }
    }
}

async fn execute(Parsed { settings, shown, files }: Parsed<ApiSettings>) -> Result<()> {
    match settings.command {
        None => run(ApiSettings { secret_files: files, ..settings }, &shown).await,
        Some(Command::Health) if health::probe(settings.api_address).await => Ok(()),
        Some(Command::Health) => {
            Err(Error::Setting("API_ADDRESS", format!("nothing is ready at {}", settings.api_address)))
        }
        Some(Command::Openapi) => {
            print_document();
            Ok(())
        }
        Some(Command::Completions { shell }) => {
            config::print_completions::<ApiSettings>(shell);
            Ok(())
        }
    }
}

async fn run(settings: ApiSettings, shown: &str) -> Result<()> {
    let settings = settings.checked()?;
    clock::set_offset(settings.shared.clock_offset());
    let metrics = telemetry::start(&settings.shared)?;
    let traces = TraceExport::start(&settings.shared.traces, "dibs-api")?;
    tracing::info!(values = shown, "settings");
    let address = settings.api_address;
    let listener = http_server::listen("API_ADDRESS", address).await?;
    let administration = match settings.admin_address {
        Some(address) => Some(http_server::listen("ADMIN_ADDRESS", address).await?),
        None => None,
    };
    let supervisor = Supervisor::new(CancellationToken::new());
    let delay = Duration::from_secs(settings.shutdown_delay_seconds.into());
    // First of all tasks, so that a process that waits for Redis at its start can be stopped.
    supervisor.spawn(shutdown::signal_task(&supervisor, delay));
    supervisor.spawn(telemetry::upkeep_task(metrics.clone()));
    let presence = presence::of("dibs-api", address, &settings.shared, SharedSettings::new());
    let app = App::start(settings, metrics, supervisor).await?;
    app.supervisor.spawn(presence::task(&app.database, presence, &app.stopping));
    tracing::info!(%address, "server started");
    let served = serve_both(app, listener, administration).await;
    traces.end().await;
    served
}

#[expect(clippy::print_stdout, reason = "the document is what was asked for")]
fn print_document() {
    println!("{:#}", dibs_api::routes::document());
}
