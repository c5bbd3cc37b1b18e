use std::{
    ffi::OsStr,
    net::TcpListener,
    path::{Path, PathBuf},
    process::Stdio,
};

use fred::{
    interfaces::ClientLike as _,
    types::{
        Builder, ClusterHash, CustomCommand, Value,
        config::{Config, Server, ServerConfig},
    },
};
use tokio::process::{Child, Command};

use crate::identifiers::new_uuid;

const PROGRAMS: [&str; 2] = ["redis-server", "valkey-server"];

/// A Redis or Valkey of a test's own, with its own folder and settings. It ends when the value is dropped.
pub struct RedisServer {
    pub port: u16,
    folder: PathBuf,
    arguments: Vec<String>,
    process: Option<Child>,
}

impl RedisServer {
    /// On a free port, with these arguments, such as `--appendonly yes`.
    pub fn start(arguments: &[&str]) -> Self {
        Self::start_on(free_port(), arguments)
    }

    /// The same on a port.
    pub fn start_on(port: u16, arguments: &[&str]) -> Self {
        let folder = std::env::temp_dir().join(format!("dibs-redis-{}", new_uuid()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let common = ["--bind", "127.0.0.1", "--save", "", "--port"].map(str::to_owned).into_iter();
        let arguments = common.chain([port.to_string()]).chain(arguments.iter().map(ToString::to_string)).collect();
        let mut server = Self { port, folder, arguments, process: None };
        server.restart();
        server
    }

    /// The same with TLS only; the arguments are files.
    pub fn start_tls(certificate: &str, key: &str, authority: &str) -> Self {
        let port = free_port().to_string();
        let files = ["--tls-cert-file", certificate, "--tls-key-file", key, "--tls-ca-cert-file", authority];
        let tls = ["--tls-port", &port, "--tls-auth-clients", "no"];
        let mut server = Self::start_on(0, &[&files[..], &tls[..]].concat());
        server.port = port.parse().expect("a port");
        server
    }

    /// Starts it again, with what it had written.
    pub fn restart(&mut self) {
        self.kill();
        self.process = Some(spawn(&self.folder, &self.arguments));
    }

    /// Ends it at once, as SIGKILL does.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ended = process.start_kill();
        }
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// The reply to a command; none when it is an error, or the server does not answer.
    pub async fn ask(&self, words: &[&str]) -> Option<Value> {
        ask(self.port, Login::default(), words).await
    }

    /// The same as another user.
    pub async fn ask_as(&self, user: &str, password: &str, words: &[&str]) -> Option<Value> {
        ask(self.port, Login { user: Some(user), password: Some(password) }, words).await
    }

    pub async fn is_primary(&self) -> bool {
        let role = self.ask(&["ROLE"]).await.map(Value::into_array).unwrap_or_default();
        role.first().and_then(Value::as_str).is_some_and(|role| role == "master")
    }

    /// Whether it has what its primary has.
    pub async fn follows(&self) -> bool {
        let info = self.ask(&["INFO", "replication"]).await.and_then(Value::into_string);
        info.is_some_and(|info| info.contains("master_link_status:up"))
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
        let _removed = std::fs::remove_dir_all(&self.folder);
    }
}

#[derive(Clone, Copy, Default)]
pub(super) struct Login<'l> {
    pub user: Option<&'l str>,
    pub password: Option<&'l str>,
}

/// The reply of the server at a port to one command; none when it is an error, or the server does not answer.
pub(super) async fn ask(port: u16, login: Login<'_>, words: &[&str]) -> Option<Value> {
    let server = ServerConfig::Centralized { server: Server::new("127.0.0.1", port) };
    let (username, password) = (login.user.map(str::to_owned), login.password.map(str::to_owned));
    let client = Builder::from_config(Config { server, username, password, ..Config::default() }).build();
    let client = client.expect("a client");
    client.init().await.ok()?;
    let (command, arguments) = words.split_first().expect("a command");
    let custom = CustomCommand::new((*command).to_owned(), ClusterHash::FirstKey, false);
    let arguments: Vec<Value> = arguments.iter().map(|word| Value::from(*word)).collect();
    let reply = client.custom(custom, arguments).await.ok();
    let _closed = client.quit().await;
    reply
}

/// Starts the first of the programs that is installed.
pub(super) fn spawn(folder: &Path, arguments: &[impl AsRef<OsStr>]) -> Child {
    let process = PROGRAMS.iter().find_map(|program| {
        let mut command = Command::new(program);
        command.current_dir(folder).args(arguments).stdout(Stdio::null()).kill_on_drop(true).spawn().ok()
    });
    process.expect("redis-server or valkey-server on PATH")
}

pub(super) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}
