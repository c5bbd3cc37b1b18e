//! The process `dibs-worker`.

use std::{process::ExitCode, time::Duration};

use dibs_common::{
    clock,
    config::{self, Parsed},
    error::{Error, Result},
    health::{self, ProcessHealth},
    http_server, presence, runtime, shutdown,
    supervisor::Supervisor,
    telemetry,
    traces::TraceExport,
};
use dibs_worker::{
    Worker, cli, doctor,
    keys::KeysCommand,
    seed,
    settings::{Command, WorkerSettings},
    streams::ReclaimPolicy,
};
use tokio_util::sync::CancellationToken;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const DATABASE_CONNECTIONS: u32 = 24;
const REDIS_CONNECTIONS: usize = 2;

fn main() -> ExitCode {
    config::read_environment_file();
    let executed = config::parse().and_then(|Parsed { settings, shown, files }| {
        let settings = WorkerSettings { secret_files: files, ..settings };
        let runtime = runtime::build(settings.shared.runtime_threads, runtime::cores()).map_err(Error::internal)?;
        runtime.block_on(Box::pin(execute(settings, &shown)))
    });
    match executed {
        Ok(code) => code,
        Err(error) => {
            config::report(&error);
            ExitCode::FAILURE
        }
    }
}

async fn execute(settings: WorkerSettings, shown: &str) -> Result<ExitCode> {
    match settings.command {
        Command::Health if health::probe(settings.worker_address).await => return Ok(ExitCode::SUCCESS),
        Command::Health => {
            return Err(Error::Setting("WORKER_ADDRESS", format!("nothing is ready at {}", settings.worker_address)));
        }
        Command::Completions { shell } => {
            config::print_completions::<WorkerSettings>(shell);
            return Ok(ExitCode::SUCCESS);
        }
        Command::Doctor(options) => return Box::pin(doctor::run(&settings, options)).await,
        _ => {}
    }
    settings.shared.check()?;
    clock::set_offset(settings.shared.clock_offset());
    settings.webhooks.webhooks()?;
    settings.kafka.check()?;
    if !matches!(settings.command, Command::Run) {
        // `run` watches its connections, and logs in when that is needed.
        settings.shared.database(1)?.ensure_login().await;
    }
    let done = match &settings.command {
        Command::Audit(audit) => return Box::pin(cli::audit(&settings, *audit)).await,
        Command::Drift(drift) => return Box::pin(cli::drift(&settings, *drift)).await,
        Command::Run => Box::pin(run(settings, shown)).await,
        Command::Migrate => settings.shared.database(1)?.migrate().await,
        Command::Seed => seed_and_print(&settings).await,
        Command::Rebuild(rebuild) => run_logged(&settings, Box::pin(cli::rebuild(&settings, rebuild.clone()))).await,
        Command::Restored => cli::restored(&settings).await,
        Command::Job(run) => run_logged(&settings, Box::pin(cli::job(&settings, *run))).await,
        Command::DeadLetters(letters) => cli::dead_letters(&settings, letters).await,
        Command::Keys(command) => run_keys(&settings, command.clone()).await,
        // Answered above, without the servers.
        Command::Health | Command::Completions { .. } | Command::Doctor(_) => Ok(()),
    };
    done.map(|()| ExitCode::SUCCESS)
}

async fn run(settings: WorkerSettings, shown: &str) -> Result<()> {
    let metrics = telemetry::start(&settings.shared)?;
    let traces = TraceExport::start(&settings.shared.traces, "dibs-worker")?;
    tracing::info!(values = shown, "settings");
    let address = settings.worker_address;
    // Before the dependencies: an address that is taken ends the start at once.
    let listener = http_server::listen("WORKER_ADDRESS", address).await?;
    let database = settings.shared.database(DATABASE_CONNECTIONS)?;
    database.check_server().await?;
    let payment_gateway = settings.shared.payment_gateway()?;
    let webhooks = settings.webhooks.webhooks()?;
    let redis = settings.shared.redis(REDIS_CONNECTIONS).await?;
    let stopping = CancellationToken::new();
    let supervisor = Supervisor::new(stopping.clone());
    supervisor.spawn(shutdown::signal_task(&supervisor, Duration::ZERO));
    supervisor.spawn(database.watch_task(&stopping));
    supervisor.spawn(telemetry::upkeep_task(metrics.clone()));
    let mut watch = settings.secret_files.watch();
    if let Some(secrets) = webhooks.secrets() {
        watch.on_change("WEBHOOK_SECRET", move |secret| secrets.replace(&secret));
    }
    watch.spawn(&supervisor);
    let process =
        ProcessHealth { database: database.clone(), redis: redis.clone(), metrics, supervisor: supervisor.clone() };
    supervisor.spawn(health::server_task(listener, health::router(process), settings.listener.limits(), &supervisor)?);
    let presence = presence::of("dibs-worker", address, &settings.shared, settings.shared_by_workers());
    supervisor.spawn(presence::task(&database, presence, &stopping));
    tracing::info!(%address, "worker started");
    let worker = Worker {
        database,
        redis,
        payment_gateway,
        webhooks,
        reclaim: ReclaimPolicy::default(),
        rules: settings.order_rules(),
        drift_claims_per_second: settings.drift_claims_per_second,
        retention: settings.retention,
        kafka: settings.kafka,
        supervisor,
    };
    // A drain without an end would keep the entries in flight from the next worker.
    tokio::select! {
        () = worker.clone().run(settings.shared.claim_partitions) => {}
        () = shutdown::drain_limit(&stopping) => tracing::warn!("drain limit reached; another worker reclaims the rest"),
    }
    worker.redis.close().await;
    worker.database.close().await;
    traces.end().await;
    Ok(())
}

/// Runs a command whose steps are logged.
async fn run_logged(settings: &WorkerSettings, command: impl Future<Output = Result<()>>) -> Result<()> {
    telemetry::start(&settings.shared)?;
    command.await
}

#[expect(clippy::print_stdout, reason = "scripts read the id")]
async fn seed_and_print(settings: &WorkerSettings) -> Result<()> {
    let coupon = seed::seed(&settings.shared, &settings.shared.database(1)?).await?;
    println!("couponId={coupon}");
    Ok(())
}

#[expect(clippy::print_stdout, reason = "people and scripts read it")]
async fn run_keys(settings: &WorkerSettings, command: KeysCommand) -> Result<()> {
    for line in dibs_worker::keys::run(&settings.shared.database(1)?, command).await? {
        println!("{line}");
    }
    Ok(())
}
