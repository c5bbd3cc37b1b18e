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
use crate::wait;

const START_TIMEOUT: Duration = Duration::from_secs(30);
const PROGRAMS: [&str; 2] = ["redis-server", "valkey-server"];

/// A Redis or Valkey of this run's own. `appendfsync always` makes every write durable before its response.
pub struct RedisServer {
    process: Process,
    program: PathBuf,
    address: SocketAddr,
    folder: PathBuf,
}

impl RedisServer {
    /// Starts the first of [`PROGRAMS`] that is on PATH, with its data in `folder`.
    pub async fn start(folder: &Path) -> Result<Self> {
        let program = find_program()?;
        let address = free_address()?;
        let process = launch(&program, address, folder)?;
        let mut server = Self { process, program, address, folder: folder.to_owned() };
        server.until_ready().await?;
        Ok(server)
    }

    pub fn url(&self) -> SecretString {
        format!("redis://{}", self.address).into()
    }

    /// SIGKILL, an outage, and a restart on the same data.
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
        wait::until("Redis to answer", START_TIMEOUT, Duration::from_millis(10), async || {
            process.expect_alive()?;
            // A connection to a port that is being closed may hang.
            Ok(timeout(Duration::from_secs(1), is_answering(address)).await.unwrap_or(false))
        })
        .await
    }
}

/// Whether a PING succeeds. While Redis reads its data it answers LOADING instead.
async fn is_answering(address: SocketAddr) -> bool {
    let ping = async {
        let mut connection = TcpStream::connect(address).await?;
        connection.write_all(b"PING\r\n").await?;
        let mut answer = [0; 5];
        connection.read_exact(&mut answer).await?;
        std::io::Result::Ok(&answer == b"+PONG")
    };
    ping.await.unwrap_or(false)
}

fn launch(program: &Path, address: SocketAddr, folder: &Path) -> Result<Process> {
    let mut command = Command::new(program);
    command.current_dir(folder).args(["--bind", &address.ip().to_string(), "--port", &address.port().to_string()]);
    // No snapshots: a restart must replay the log of all writes, as a durable Redis does.
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
    async fn a_free_port_does_not_answer() {
        assert!(!is_answering(free_address().expect("an address")).await);
    }

    /// A server that answers every connection with `answer`.
    async fn server(answer: &'static [u8]) -> SocketAddr {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(async move {
            while let Ok((mut connection, _)) = listener.accept().await {
                let _sent = connection.write_all(answer).await;
            }
        });
        address
    }

    #[tokio::test]
    async fn a_redis_that_still_loads_its_data_is_not_answering() {
        assert!(is_answering(server(b"+PONG\r\n").await).await);
        assert!(!is_answering(server(b"-LOADING Redis is loading the dataset in memory\r\n").await).await);
    }
}
