//! Processes that a run starts. Dropping one kills it, so none outlives the run.

mod dedicated_stack;
mod server_process;
mod stack;
mod store_server;
mod usage;
mod work_directory;

use std::{
    fs::{self, OpenOptions},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow};
pub use dedicated_stack::DedicatedStack;
pub use server_process::ServerProcess;
pub use stack::{ExtraSettings, Program, ResidentBytes, Stack, StackSettings};
pub use store_server::StoreServer;
use tokio::process::{Child, Command};
pub use usage::Usage;
pub use work_directory::WorkDirectory;

const STOP_TIMEOUT: Duration = Duration::from_secs(15);
const LOG_LINES: usize = 12;

/// A running program. Its output goes to a log file.
pub struct Process {
    name: &'static str,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a program. Its output is appended to `name.log` in `folder`.
    pub fn start(name: &'static str, command: &mut Command, folder: &Path) -> Result<Self> {
        let log = folder.join(format!("{name}.log"));
        let output = OpenOptions::new().create(true).append(true).open(&log).context("opening a log")?;
        let errors = output.try_clone().context("opening a log")?;
        // No terminal: a program that asked for input would hang the run.
        command.stdin(Stdio::null()).stdout(output).stderr(errors).kill_on_drop(true);
        let child = command.spawn().with_context(|| format!("starting {name}"))?;
        Ok(Self { name, child, log })
    }

    /// Fails with the end of the log when the process has exited.
    pub fn expect_alive(&mut self) -> Result<()> {
        match self.child.try_wait().context("reading the status of a process")? {
            None => Ok(()),
            Some(status) => Err(anyhow!("{} exited unexpectedly ({status}):\n{}", self.name, self.log_end())),
        }
    }

    pub fn is_running(&mut self) -> Result<bool> {
        Ok(self.child.try_wait().context("reading the status of a process")?.is_none())
    }

    /// Waits until it exits; fails with the end of the log when it failed.
    pub async fn until_exited(&mut self) -> Result<()> {
        let status = self.child.wait().await.context("waiting for a process")?;
        if status.success() {
            return Ok(());
        }
        Err(anyhow!("{} failed ({status}):\n{}", self.name, self.log_end()))
    }

    /// Resident memory in bytes; 0 after it exited.
    pub fn resident_bytes(&self) -> Result<u64> {
        let Some(id) = self.child.id() else { return Ok(0) };
        let status = fs::read_to_string(format!("/proc/{id}/status")).context("reading the memory of a process")?;
        usage::field_bytes(&status, "VmRSS:").context("/proc/PID/status has no VmRSS")
    }

    /// What it has used so far; nothing after it exited.
    pub fn usage(&self) -> Result<Usage> {
        self.child.id().map_or(Ok(Usage::default()), Usage::of)
    }

    /// SIGSTOP, and SIGCONT after a while: it stands still, and its connections stay open.
    pub async fn freeze(&self, duration: Duration) -> Result<()> {
        self.signal("STOP").await?;
        tokio::time::sleep(duration).await;
        self.signal("CONT").await
    }

    async fn signal(&self, signal: &str) -> Result<()> {
        let Some(id) = self.child.id() else { return Ok(()) };
        // The standard library sends only SIGKILL, so a shell sends the signal.
        let sent = Command::new("sh").args(["-c", "kill -$0 $1", signal, &id.to_string()]).status().await;
        sent.with_context(|| format!("sending SIG{signal}")).map(drop)
    }

    /// SIGKILL.
    pub async fn kill(&mut self) -> Result<()> {
        self.child.kill().await.with_context(|| format!("killing {}", self.name))
    }

    /// SIGTERM, and SIGKILL after a timeout.
    pub async fn stop(&mut self) -> Result<()> {
        self.signal("TERM").await?;
        if let Ok(status) = tokio::time::timeout(STOP_TIMEOUT, self.child.wait()).await {
            return status.with_context(|| format!("stopping {}", self.name)).map(drop);
        }
        self.kill().await?;
        Err(anyhow!("{} did not stop within {} s of SIGTERM", self.name, STOP_TIMEOUT.as_secs()))
    }

    fn log_end(&self) -> String {
        // A missing log must not hide the error that it would explain.
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
    }
}

/// A loopback address with a free port.
pub fn free_address() -> Result<SocketAddr> {
    // The port may be taken before the program binds it; the program then exits, and the run fails with its log.
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("finding a free port")?;
    listener.local_addr().context("finding a free port")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs `script` with its log in a folder of its own.
    fn start(script: &str) -> (WorkDirectory, Process) {
        let folder = WorkDirectory::new(&format!("test-{}", dibs_common::identifiers::new_uuid())).expect("a folder");
        let process = Process::start("script", Command::new("sh").args(["-c", script]), folder.path());
        (folder, process.expect("a process"))
    }

    #[tokio::test]
    async fn a_failed_process_is_reported_with_the_end_of_its_log() {
        let (_folder, mut process) = start("seq 1 20; echo broken >&2; exit 3");
        let error = process.until_exited().await.expect_err("a failure").to_string();
        assert!(error.starts_with("script failed (exit status: 3):\n10\n"), "{error}");
        assert!(error.ends_with("20\nbroken"), "{error}");
        assert!(process.expect_alive().expect_err("a failure").to_string().contains("exited unexpectedly"));
        assert!(!process.is_running().expect("a status"));
    }

    #[tokio::test]
    async fn a_process_that_succeeds_is_no_error() {
        let (_folder, mut process) = start("exit 0");
        process.until_exited().await.expect("success");
    }

    #[tokio::test]
    async fn sigterm_stops_a_process_and_its_memory_is_known_until_then() {
        let (_folder, mut process) = start("exec sleep 60");
        process.expect_alive().expect("alive");
        assert!(process.resident_bytes().expect("its memory") > 0);
        process.stop().await.expect("stopped");
        assert!(!process.is_running().expect("a status"));
        assert_eq!(process.resident_bytes().expect("no memory"), 0);
    }

    #[tokio::test]
    async fn sigkill_ends_a_process_that_ignores_sigterm() {
        let (_folder, mut process) = start("trap '' TERM; exec sleep 60");
        process.kill().await.expect("killed");
        assert!(!process.is_running().expect("a status"));
    }

    #[tokio::test]
    async fn a_frozen_process_goes_on_afterwards() {
        let (folder, mut process) = start("trap 'echo stopped; exit 0' TERM; while :; do sleep 0.01; done");
        process.freeze(Duration::from_millis(50)).await.expect("frozen");
        process.stop().await.expect("it handles SIGTERM again");
        let log = fs::read_to_string(folder.path().join("script.log")).expect("its log");
        assert_eq!(log, "stopped\n");
    }

    #[test]
    fn a_free_address_can_be_listened_on() {
        let address = free_address().expect("an address");
        assert!(address.ip().is_loopback());
        TcpListener::bind(address).expect("free");
    }
}
