use std::{
    env,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow};
use dibs_common::identifiers;
use reqwest::Client;
use secrecy::{ExposeSecret, SecretString};
use tokio::process::Command;

use super::{Process, Usage, free_address};
use crate::{
    api::{Api, is_ready},
    stores::StoreArguments,
    wait,
};

const READY_TIMEOUT: Duration = Duration::from_secs(30);
const READY_POLL_INTERVAL: Duration = Duration::from_millis(10);

pub struct StackSettings {
    pub stores: StoreArguments,
    /// The folder of the logs.
    pub folder: PathBuf,
    /// Settings beyond those that every stack needs.
    pub extra: ExtraSettings,
}

/// Environment variables of the programs.
pub type ExtraSettings = Vec<(&'static str, String)>;

/// Resident memory, in bytes; 0 for a process that does not run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResidentBytes {
    pub api: u64,
    pub worker: u64,
}

/// The programs of a stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    Api,
    Worker,
}

/// An API and an optional worker of this run's own. Their programs are in the folder of this one.
pub struct Stack {
    settings: StackSettings,
    api: Process,
    worker: Option<Process>,
    /// What the killed processes of API and worker had used.
    used: [Usage; 2],
    api_address: SocketAddr,
    worker_address: SocketAddr,
    token: SecretString,
    client: Client,
}

impl Stack {
    /// Runs the migrations and starts the API, without a worker.
    pub async fn start(settings: StackSettings) -> Result<Self> {
        let (api_address, worker_address) = (free_address()?, free_address()?);
        let token: SecretString = identifiers::new_uuid().to_string().into();
        let environment = Environment { settings: &settings, api_address, worker_address, token: &token };
        // Before the API: it does not start on a schema that is behind.
        environment.run_to_end("dibs-worker", &["migrate"]).await?;
        let api = environment.start("dibs-api", &[])?;
        let client = Client::builder().build().context("creating an HTTP client")?;
        let used = [Usage::default(); 2];
        let mut stack = Self { api, worker: None, used, api_address, worker_address, token, client, settings };
        until_ready(&mut stack.api, &stack.client, api_address).await?;
        Ok(stack)
    }

    pub fn api_address(&self) -> SocketAddr {
        self.api_address
    }

    /// That of the administrator.
    pub const fn token(&self) -> &SecretString {
        &self.token
    }

    /// The administrator's client.
    pub fn api(&self) -> Result<Api> {
        Api::new(&format!("http://{}", self.api_address), self.token.clone())
    }

    /// Starts the worker and waits until it is ready.
    pub async fn start_worker(&mut self) -> Result<()> {
        self.launch_worker()?;
        self.until_worker_ready().await
    }

    /// Starts the worker without waiting for it.
    pub fn launch_worker(&mut self) -> Result<()> {
        self.worker = Some(self.environment().start("dibs-worker", &["run"])?);
        Ok(())
    }

    /// Starts another command of the worker's program, such as a job.
    pub fn start_command(&self, arguments: &[&str]) -> Result<Process> {
        self.environment().start("dibs-worker", arguments)
    }

    /// Runs another command of the worker's program to its end.
    pub async fn command_worker(&self, arguments: &[&str]) -> Result<()> {
        self.environment().run_to_end("dibs-worker", arguments).await
    }

    fn environment(&self) -> Environment<'_> {
        let Self { settings, api_address, worker_address, token, .. } = self;
        Environment { settings, api_address: *api_address, worker_address: *worker_address, token }
    }

    /// Waits until the worker and its dependencies are ready.
    pub async fn until_worker_ready(&mut self) -> Result<()> {
        match &mut self.worker {
            Some(worker) => until_ready(worker, &self.client, self.worker_address).await,
            None => Ok(()),
        }
    }

    /// Whether API and worker are ready, and their dependencies.
    pub async fn is_ready(&self) -> bool {
        let is_ready = async |address| is_ready(&self.client, &format!("http://{address}")).await;
        is_ready(self.api_address).await && is_ready(self.worker_address).await
    }

    /// Resident memory of API and worker.
    pub fn resident_bytes(&self) -> Result<ResidentBytes> {
        let worker = self.worker.as_ref().map_or(Ok(0), Process::resident_bytes)?;
        Ok(ResidentBytes { api: self.api.resident_bytes()?, worker })
    }

    /// What all processes of a program have used.
    pub fn usage(&self, program: Program) -> Result<Usage> {
        let current = self.process(program).map_or(Ok(Usage::default()), Process::usage)?;
        Ok(self.used[program as usize].and(current))
    }

    fn process(&self, program: Program) -> Option<&Process> {
        match program {
            Program::Api => Some(&self.api),
            Program::Worker => self.worker.as_ref(),
        }
    }

    /// SIGKILL, and another process of the program.
    pub async fn kill_and_restart(&mut self, program: Program) -> Result<()> {
        // Before the kill: the system forgets with a process what it has used.
        self.used[program as usize] = self.usage(program)?;
        match program {
            Program::Api => {
                self.api.kill().await?;
                self.api = self.environment().start("dibs-api", &[])?;
                Ok(())
            }
            Program::Worker => {
                if let Some(mut worker) = self.worker.take() {
                    worker.kill().await?;
                }
                self.launch_worker()
            }
        }
    }

    /// SIGSTOP, and SIGCONT after a while.
    pub async fn freeze(&self, program: Program, duration: Duration) -> Result<()> {
        match self.process(program) {
            Some(process) => process.freeze(duration).await,
            None => Ok(()),
        }
    }

    /// SIGTERM to the worker, which then finishes its batch.
    pub async fn stop_worker(&mut self) -> Result<()> {
        match self.worker.take() {
            Some(mut worker) => worker.stop().await,
            None => Ok(()),
        }
    }

    /// Fails when a process exited unexpectedly.
    pub fn expect_alive(&mut self) -> Result<()> {
        self.api.expect_alive()?;
        self.worker.as_mut().map_or(Ok(()), Process::expect_alive)
    }

    /// SIGTERM to worker and API.
    pub async fn stop(&mut self) -> Result<()> {
        self.stop_worker().await?;
        self.api.stop().await
    }
}

async fn until_ready(process: &mut Process, client: &Client, address: SocketAddr) -> Result<()> {
    let base = format!("http://{address}");
    wait::until(format!("{} to be ready", process.name), READY_TIMEOUT, READY_POLL_INTERVAL, async || {
        process.expect_alive()?;
        Ok(is_ready(client, &base).await)
    })
    .await
}

/// The environment of a stack's programs.
struct Environment<'s> {
    settings: &'s StackSettings,
    api_address: SocketAddr,
    worker_address: SocketAddr,
    token: &'s SecretString,
}

impl Environment<'_> {
    fn command(&self, program: &str) -> Result<Command> {
        let mut command = Command::new(beside(program)?);
        let stores = &self.settings.stores;
        command
            .env("DATABASE_URL", stores.database_url.expose_secret())
            .env("REDIS_URL", stores.redis_url.expose_secret())
            .env("REDIS_KEY_PREFIX", &stores.redis_key_prefix)
            .env("API_ADDRESS", self.api_address.to_string())
            // No load balancer has to notice that a process stops.
            .env("SHUTDOWN_DELAY_SECONDS", "0")
            .env("WORKER_ADDRESS", self.worker_address.to_string())
            .env("ADMIN_TOKEN", self.token.expose_secret())
            // Logs of every request would be measured, too.
            .env("RUST_LOG", "warn")
            .envs(self.settings.extra.iter().map(|(name, value)| (*name, value)));
        Ok(command)
    }

    fn start(&self, program: &'static str, arguments: &[&str]) -> Result<Process> {
        Process::start(program, self.command(program)?.args(arguments), &self.settings.folder)
    }

    async fn run_to_end(&self, program: &str, arguments: &[&str]) -> Result<()> {
        let mut command = self.command(program)?;
        let output = command.args(arguments).kill_on_drop(true).output().await.with_context(|| program.to_owned())?;
        if output.status.success() {
            return Ok(());
        }
        let errors = String::from_utf8_lossy(&output.stderr);
        Err(anyhow!("{program} {}: {}\n{}", arguments.join(" "), output.status, errors.trim_end()))
    }
}

/// The path of a program in the folder of this one.
fn beside(program: &str) -> Result<PathBuf> {
    let own = env::current_exe().context("finding the own program")?;
    let found = own.parent().unwrap_or(Path::new(".")).join(program);
    if found.is_file() {
        Ok(found)
    } else {
        Err(anyhow!("{} is missing: cargo build --release --workspace", found.display()))
    }
}
