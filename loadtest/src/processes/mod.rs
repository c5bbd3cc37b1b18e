//! Processes that a run starts, and stops on every path: whoever drops one kills it.

mod own_stack;
mod redis_server;
mod stack;
mod work_folder;

use std::{
    fs::{self, OpenOptions},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow};
pub use own_stack::OwnStack;
pub use redis_server::RedisServer;
pub use stack::{MoreSettings, Stack, StackSettings};
use tokio::process::{Child, Command};
pub use work_folder::WorkFolder;

const STOP_LIMIT: Duration = Duration::from_secs(15);
const LOG_LINES: usize = 12;

/// A running program, whose output goes to a log.
pub struct Process {
    name: &'static str,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `program`; its output is appended to `name.log` in `folder`.
    pub fn start(name: &'static str, command: &mut Command, folder: &Path) -> Result<Self> {
        let log = folder.join(format!("{name}.log"));
        let output = OpenOptions::new().create(true).append(true).open(&log).context("opening a log")?;
        let errors = output.try_clone().context("opening a log")?;
        command.stdin(Stdio::null()).stdout(output).stderr(errors).kill_on_drop(true);
        let child = command.spawn().with_context(|| format!("starting {name}"))?;
        Ok(Self { name, child, log })
    }

    /// Fails with the end of its log when it has ended by itself.
    pub fn expect_alive(&mut self) -> Result<()> {
        match self.child.try_wait().context("looking after a process")? {
            None => Ok(()),
            Some(status) => Err(anyhow!("{} ended by itself ({status}):\n{}", self.name, self.log_end())),
        }
    }

    /// Whether it has not ended yet.
    pub fn is_running(&mut self) -> Result<bool> {
        Ok(self.child.try_wait().context("looking after a process")?.is_none())
    }

    /// Waits until it has ended by itself; fails with the end of its log when it failed.
    pub async fn until_ended(&mut self) -> Result<()> {
        let status = self.child.wait().await.context("waiting for a process")?;
        if status.success() {
            return Ok(());
        }
        Err(anyhow!("{} failed ({status}):\n{}", self.name, self.log_end()))
    }

    /// Memory that it has in hand, in bytes.
    pub fn resident_bytes(&self) -> Result<u64> {
        let Some(id) = self.child.id() else { return Ok(0) };
        let status = fs::read_to_string(format!("/proc/{id}/status")).context("the memory of a process")?;
        let kibibytes =
            status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next()?.parse().ok());
        let kibibytes: u64 = kibibytes.context("/proc names no VmRSS")?;
        Ok(kibibytes * 1024)
    }

    /// SIGKILL.
    pub async fn kill(&mut self) -> Result<()> {
        self.child.kill().await.with_context(|| format!("killing {}", self.name))
    }

    /// SIGTERM, and SIGKILL when it does not heed that.
    pub async fn stop(&mut self) -> Result<()> {
        let Some(id) = self.child.id() else { return Ok(()) };
        // The standard library sends no other signal than SIGKILL; a shell does.
        let sent = Command::new("sh").args(["-c", "kill -TERM \"$0\"", &id.to_string()]).status().await;
        sent.context("sending SIGTERM")?;
        if let Ok(status) = tokio::time::timeout(STOP_LIMIT, self.child.wait()).await {
            return status.with_context(|| format!("stopping {}", self.name)).map(drop);
        }
        self.kill().await?;
        Err(anyhow!("{} did not stop within {} s of SIGTERM", self.name, STOP_LIMIT.as_secs()))
    }

    fn log_end(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
    }
}

/// A loopback address that nobody listens on.
pub fn free_address() -> Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("looking for a free port")?;
    listener.local_addr().context("looking for a free port")
}
