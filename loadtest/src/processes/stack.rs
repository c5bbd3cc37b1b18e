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

use super::{Process, free_address};
use crate::{
    api::{Api, is_ready},
    stores::StoreArguments,
    waiting,
};

const READY_LIMIT: Duration = Duration::from_secs(30);
const READY_EVERY: Duration = Duration::from_millis(10);

/// What a stack runs on.
pub struct StackSettings {
    /// Its database and Redis.
    pub stores: StoreArguments,
    /// Where its logs go.
    pub folder: PathBuf,
    /// Settings of its programs beyond what they need, by name.
    pub more: MoreSettings,
}

/// Settings of programs, by name.
pub type MoreSettings = Vec<(&'static str, String)>;

/// An API and, when wanted, a worker of this run's own, from the programs beside this one.
pub struct Stack {
    settings: StackSettings,
    api: Process,
    worker: Option<Process>,
    api_address: SocketAddr,
    worker_address: SocketAddr,
    token: SecretString,
    client: Client,
}

impl Stack {
    /// Brings the tables up to date and starts the API; the worker is started separately.
    pub async fn start(settings: StackSettings) -> Result<Self> {
        let (api_address, worker_address) = (free_address()?, free_address()?);
        let token: SecretString = identifiers::new_uuid().to_string().into();
        let environment = Environment { settings: &settings, api_address, worker_address, token: &token };
        environment.run_to_end("dibs-worker", &["migrate"]).await?;
        let api = environment.start("dibs-api", &[])?;
        let client = Client::builder().build().context("making an HTTP client")?;
        let mut stack = Self { api, worker: None, api_address, worker_address, token, client, settings };
        until_ready(&mut stack.api, &stack.client, api_address).await?;
        Ok(stack)
    }

    /// Where the API is.
    pub fn api_address(&self) -> SocketAddr {
        self.api_address
    }

    /// Its administrator's client.
    pub fn api(&self) -> Result<Api> {
        Api::new(&format!("http://{}", self.api_address), self.token.clone())
    }

    /// Starts the worker and waits until it is ready.
    pub async fn start_worker(&mut self) -> Result<()> {
        self.launch_worker()?;
        self.until_worker_ready().await
    }

    /// Starts the worker.
    pub fn launch_worker(&mut self) -> Result<()> {
        self.worker = Some(self.environment().start("dibs-worker", &["run"])?);
        Ok(())
    }

    /// Starts the worker's program to do something else than work, beside a worker or without one.
    pub fn start_command(&self, arguments: &[&str]) -> Result<Process> {
        self.environment().start("dibs-worker", arguments)
    }

    /// Lets the worker's program do something else than work, beside a worker or without one.
    pub async fn command_worker(&self, arguments: &[&str]) -> Result<()> {
        self.environment().run_to_end("dibs-worker", arguments).await
    }

    fn environment(&self) -> Environment<'_> {
        let Self { settings, api_address, worker_address, token, .. } = self;
        Environment { settings, api_address: *api_address, worker_address: *worker_address, token }
    }

    /// Waits until the worker is ready, and so is what it depends on.
    pub async fn until_worker_ready(&mut self) -> Result<()> {
        match &mut self.worker {
            Some(worker) => until_ready(worker, &self.client, self.worker_address).await,
            None => Ok(()),
        }
    }

    /// Whether the worker says that it is ready.
    pub async fn worker_is_ready(&self) -> bool {
        is_ready(&self.client, &format!("http://{}", self.worker_address)).await
    }

    /// Memory that API and worker have in hand, in bytes; 0 for one that does not run.
    pub fn resident_bytes(&self) -> Result<(u64, u64)> {
        Ok((self.api.resident_bytes()?, self.worker.as_ref().map_or(Ok(0), Process::resident_bytes)?))
    }

    /// SIGKILL.
    pub async fn kill_worker(&mut self) -> Result<()> {
        match self.worker.take() {
            Some(mut worker) => worker.kill().await,
            None => Ok(()),
        }
    }

    /// SIGTERM to the worker: it finishes what it has begun.
    pub async fn stop_worker(&mut self) -> Result<()> {
        match self.worker.take() {
            Some(mut worker) => worker.stop().await,
            None => Ok(()),
        }
    }

    /// Fails when a process ended that nobody killed.
    pub fn expect_alive(&mut self) -> Result<()> {
        self.api.expect_alive()?;
        self.worker.as_mut().map_or(Ok(()), Process::expect_alive)
    }

    /// SIGTERM to both.
    pub async fn stop(&mut self) -> Result<()> {
        self.stop_worker().await?;
        self.api.stop().await
    }
}

async fn until_ready(process: &mut Process, client: &Client, address: SocketAddr) -> Result<()> {
    let base = format!("http://{address}");
    waiting::until(format!("{} ready", process.name), READY_LIMIT, READY_EVERY, async || {
        process.expect_alive()?;
        Ok(is_ready(client, &base).await)
    })
    .await
}

/// What the programs of a stack are told.
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
            .env("WORKER_ADDRESS", self.worker_address.to_string())
            .env("ADMIN_TOKEN", self.token.expose_secret())
            .env("RUST_LOG", "warn")
            .envs(self.settings.more.iter().map(|(name, value)| (*name, value)));
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

/// The program of that name in the folder of this one.
fn beside(program: &str) -> Result<PathBuf> {
    let own = env::current_exe().context("looking for the own program")?;
    let found = own.parent().unwrap_or(Path::new(".")).join(program);
    if found.is_file() {
        Ok(found)
    } else {
        Err(anyhow!("{} is missing: cargo build --release --workspace", found.display()))
    }
}
