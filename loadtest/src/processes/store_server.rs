use std::{
    env,
    net::SocketAddr,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result};
use secrecy::{ExposeSecret as _, SecretString};
use sqlx::{Connection as _, MySqlConnection};
use tokio::{
    fs,
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    process::Command,
    time::timeout,
};

use super::{Process, free_address};
use crate::{output, wait};

/// A server that was killed reads its log again before it answers.
const START_TIMEOUT: Duration = Duration::from_mins(1);
const REDIS_PROGRAMS: [&str; 2] = ["redis-server", "valkey-server"];
const DATABASE_PROGRAMS: [&str; 2] = ["mysqld", "mariadbd"];
/// Where Debian keeps the programs of databases, off a user's PATH.
const SYSTEM_FOLDERS: [&str; 2] = ["/usr/sbin", "/usr/local/sbin"];
const INIT_FILE: &str = "init.sql";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Redis,
    Database,
}

/// A Redis or a database of this run's own. Whatever it answers is durable: it survives SIGKILL.
pub struct StoreServer {
    process: Process,
    kind: Kind,
    program: PathBuf,
    address: SocketAddr,
    folder: PathBuf,
}

impl StoreServer {
    /// Starts Redis or Valkey, the first that is on PATH, with its data in `folder`.
    pub async fn start_redis(folder: &Path) -> Result<Self> {
        let program = find_program(&REDIS_PROGRAMS)?;
        Self::start(Kind::Redis, program, folder.to_owned()).await
    }

    /// Starts MySQL or MariaDB, the first that is on PATH, with its data in a folder in `folder`.
    pub async fn start_database(folder: &Path) -> Result<Self> {
        let program = find_program(&DATABASE_PROGRAMS)?;
        let folder = folder.join("database");
        output::note("creating a database server");
        create_data(&program, &folder).await?;
        fs::write(folder.join(INIT_FILE), "CREATE DATABASE IF NOT EXISTS dibs CHARACTER SET utf8mb4;\n")
            .await
            .context("writing the first statement of the database")?;
        Self::start(Kind::Database, program, folder).await
    }

    async fn start(kind: Kind, program: PathBuf, folder: PathBuf) -> Result<Self> {
        let address = free_address()?;
        let process = launch(kind, &program, address, &folder)?;
        let mut server = Self { process, kind, program, address, folder };
        server.until_ready().await?;
        Ok(server)
    }

    pub fn url(&self) -> SecretString {
        match self.kind {
            Kind::Redis => format!("redis://{}", self.address).into(),
            // Without TLS: both ends are on one machine.
            Kind::Database => format!("mysql://root@{}/dibs?ssl-mode=DISABLED", self.address).into(),
        }
    }

    /// SIGKILL, an outage, and a restart on the same data.
    pub async fn kill_and_restart(&mut self, outage: Duration) -> Result<()> {
        self.process.kill().await?;
        tokio::time::sleep(outage).await;
        self.process = launch(self.kind, &self.program, self.address, &self.folder)?;
        self.until_ready().await
    }

    /// SIGTERM.
    pub async fn stop(&mut self) -> Result<()> {
        self.process.stop().await
    }

    async fn until_ready(&mut self) -> Result<()> {
        let (kind, address, url) = (self.kind, self.address, self.url());
        let process = &mut self.process;
        wait::until(format!("{} to answer", process.name), START_TIMEOUT, Duration::from_millis(10), async || {
            process.expect_alive()?;
            let answers = async {
                match kind {
                    Kind::Redis => is_answering(address).await,
                    Kind::Database => MySqlConnection::connect(url.expose_secret()).await.is_ok(),
                }
            };
            // A connection to a port that is being closed may hang.
            Ok(timeout(Duration::from_secs(1), answers).await.unwrap_or(false))
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

fn launch(kind: Kind, program: &Path, address: SocketAddr, folder: &Path) -> Result<Process> {
    let (host, port) = (address.ip().to_string(), address.port().to_string());
    let mut command = Command::new(program);
    command.current_dir(folder);
    match kind {
        // No snapshots: a restart must replay the log of all writes, as a durable Redis does.
        Kind::Redis => command.args(["--bind", &host, "--port", &port, "--save", ""]).args([
            "--appendonly",
            "yes",
            "--appendfsync",
            "always",
            "--daemonize",
            "no",
        ]),
        // As durable as they come. `loose`: MySQL and MariaDB each pass over what only the other knows.
        Kind::Database => command
            .args(database_arguments(folder))
            .args([&format!("--bind-address={host}"), &format!("--port={port}")])
            .arg(format!("--init-file={}", folder.join(INIT_FILE).display()))
            // Relative to the data: the path of a socket has at most 107 bytes.
            .args(["--socket=socket", "--max-connections=500", "--loose-mysqlx=OFF", "--performance-schema=OFF"])
            .args(["--innodb-buffer-pool-size=512M", "--loose-innodb-redo-log-capacity=512M"])
            .arg("--loose-innodb-log-file-size=512M"),
    };
    let name = match kind {
        Kind::Redis => "redis",
        Kind::Database => "database",
    };
    Process::start(name, &mut command, folder)
}

fn database_arguments(folder: &Path) -> Vec<String> {
    // First of all no settings of this machine: the programs demand that place.
    let fixed = ["--no-defaults".to_owned(), format!("--datadir={}", folder.join("data").display())];
    // root must say that it means to run a server. The owner of a new folder is who runs this.
    let is_root = std::fs::metadata(folder).is_ok_and(|folder| folder.uid() == 0);
    fixed.into_iter().chain(is_root.then(|| "--user=root".to_owned())).collect()
}

/// Creates the data of a database, and its folder.
async fn create_data(program: &Path, folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).await.context("creating the folder of the database")?;
    let version = Command::new(program).args(["--no-defaults", "--version"]).output().await;
    let version = version.with_context(|| program.display().to_string())?;
    let is_mariadb = String::from_utf8_lossy(&version.stdout).contains("MariaDB");
    let mut command = if is_mariadb {
        let mut install = Command::new("mariadb-install-db");
        install.args(database_arguments(folder)).args(["--auth-root-authentication-method=normal", "--skip-test-db"]);
        install
    } else {
        let mut initialize = Command::new(program);
        initialize.args(database_arguments(folder)).arg("--initialize-insecure");
        initialize
    };
    Process::start("database", &mut command, folder)?.until_exited().await
}

fn find_program(programs: &[&str]) -> Result<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = env::split_paths(&path).chain(SYSTEM_FOLDERS.map(PathBuf::from)).collect();
    let candidates = programs.iter().flat_map(|program| folders.iter().map(move |folder| folder.join(program)));
    let found = candidates.into_iter().find(|candidate| candidate.is_file());
    found.with_context(|| format!("neither {} is on PATH: install one of them", programs.join(" nor ")))
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
