use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    process::Stdio,
};

use tokio::process::{Child, Command};

use crate::identifiers::new_uuid;

pub(super) const PROGRAMS: [&str; 2] = ["redis-server", "valkey-server"];

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

    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
        let _removed = std::fs::remove_dir_all(&self.folder);
    }
}

/// Starts the first of the programs that is installed.
pub(super) fn spawn(folder: &Path, arguments: &[String]) -> Child {
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
