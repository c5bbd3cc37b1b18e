use std::{
    env,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result};
use secrecy::SecretString;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    process::Command,
    time::timeout,
};

use super::{Process, free_address};
use crate::waiting;

const START_LIMIT: Duration = Duration::from_secs(30);
const PROGRAMS: [&str; 2] = ["redis-server", "valkey-server"];

/// A Redis, or Valkey, of this run's own, that loses nothing it has answered: every write is on disk first.
pub struct RedisServer {
    process: Process,
    program: PathBuf,
    address: SocketAddr,
    folder: PathBuf,
}

impl RedisServer {
    /// Starts the first of the two that is on PATH, with its data in `folder`.
    pub async fn start(folder: &Path) -> Result<Self> {
        let program = find_program()?;
        let address = free_address()?;
        let process = launch(&program, address, folder)?;
        let mut server = Self { process, program, address, folder: folder.to_owned() };
        server.until_ready().await?;
        Ok(server)
    }

    /// Where it is.
    pub fn url(&self) -> SecretString {
        format!("redis://{}", self.address).into()
    }

    /// SIGKILL, an outage, and the same server again on the same data.
    pub async fn kill_and_restart(&mut self, outage: Duration) -> Result<()> {
        self.process.kill().await?;
        tokio::time::sleep(outage).await;
        self.process = launch(&self.program, self.address, &self.folder)?;
        self.until_ready().await
    }

    /// SIGTERM.
    pub async fn stop(&mut self) -> Result<()> {
        self.process.stop().await
    }

    async fn until_ready(&mut self) -> Result<()> {
        let (process, address) = (&mut self.process, self.address);
        waiting::until("a Redis that answers", START_LIMIT, Duration::from_millis(10), async || {
            process.expect_alive()?;
            Ok(timeout(Duration::from_secs(1), answers(address)).await.unwrap_or(false))
        })
        .await
    }
}

/// While it reads its data, Redis answers LOADING instead.
async fn answers(address: SocketAddr) -> bool {
    let asked = async {
        let mut connection = TcpStream::connect(address).await?;
        connection.write_all(b"PING\r\n").await?;
        let mut answer = [0; 5];
        connection.read_exact(&mut answer).await?;
        std::io::Result::Ok(&answer == b"+PONG")
    };
    asked.await.unwrap_or(false)
}

fn launch(program: &Path, address: SocketAddr, folder: &Path) -> Result<Process> {
    let mut command = Command::new(program);
    command.current_dir(folder).args(["--bind", &address.ip().to_string(), "--port", &address.port().to_string()]);
    command.args(["--save", "", "--appendonly", "yes", "--appendfsync", "always", "--daemonize", "no"]);
    Process::start("redis", &mut command, folder)
}

fn find_program() -> Result<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let candidates =
        PROGRAMS.iter().flat_map(|program| env::split_paths(&path).map(move |folder| folder.join(program)));
    let found = candidates.into_iter().find(|candidate| candidate.is_file());
    found.context("neither redis-server nor valkey-server is on PATH: install one of them")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn nobody_answers_at_a_free_port() -> Result<()> {
        assert!(!answers(free_address()?).await);
        Ok(())
    }
}
