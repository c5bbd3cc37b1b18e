use std::fs;

use anyhow::{Context as _, Result, bail};
use reqwest::Url;
use secrecy::{ExposeSecret as _, SecretString};

use super::Usage;

/// A server that this run has not started, and that runs on this machine.
#[derive(Clone, Copy, Debug)]
pub struct ServerProcess {
    id: u32,
}

impl ServerProcess {
    /// The process that listens on the port of a URL.
    pub fn of_url(url: &SecretString, default_port: u16) -> Result<Self> {
        let url: Url = url.expose_secret().parse().context("parsing the URL of a server")?;
        Self::listening_on(url.port().unwrap_or(default_port))
    }

    fn listening_on(port: u16) -> Result<Self> {
        let sockets: Vec<String> = ["/proc/net/tcp", "/proc/net/tcp6"]
            .iter()
            // A machine without IPv6 has one of them.
            .filter_map(|table| fs::read_to_string(table).ok())
            .flat_map(|table| listening_sockets(&table, port))
            .collect();
        for entry in fs::read_dir("/proc").context("listing processes")?.flatten() {
            let Some(id) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            // Of other users' processes the files cannot be listed.
            let Ok(files) = fs::read_dir(entry.path().join("fd")) else { continue };
            let mut opened = files.flatten().filter_map(|file| fs::read_link(file.path()).ok());
            if opened.any(|opened| sockets.iter().any(|socket| opened.as_os_str() == socket.as_str())) {
                return Ok(Self { id });
            }
        }
        bail!(
            "no process on this machine is seen to listen on port {port}: CPU time is read from /proc, as its user or root"
        )
    }

    pub fn usage(self) -> Result<Usage> {
        Usage::of(self.id)
    }
}

/// The sockets of `/proc/net/tcp` that listen on a port, as links in `/proc/PID/fd` name them.
fn listening_sockets(table: &str, port: u16) -> Vec<String> {
    const LISTEN: &str = "0A";
    let socket = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (local, state, inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
        let is_wanted = u16::from_str_radix(local.rsplit_once(':')?.1, 16).ok()? == port && *state == LISTEN;
        is_wanted.then(|| format!("socket:[{inode}]"))
    };
    table.lines().skip(1).filter_map(socket).collect()
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};

    use super::*;

    #[test]
    fn the_process_behind_a_port_is_found() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let url = SecretString::from(format!("redis://127.0.0.1:{port}"));
        assert_eq!(ServerProcess::of_url(&url, 1).expect("found").id, std::process::id());
        drop(listener);
        let error = ServerProcess::of_url(&url, 1).expect_err("nothing listens").to_string();
        assert!(error.contains(&format!("port {port}")), "{error}");
    }

    #[test]
    fn only_sockets_that_listen_on_the_port_count() {
        let table = "sl local_address rem_address st tx_queue tr retrnsmt uid timeout inode\n\
             0: 0100007F:1F90 00000000:0000 0A 0:0 00:0 0 0 0 77 1\n\
             1: 0100007F:1F90 0100007F:9999 01 0:0 00:0 0 0 0 78 1\n\
             2: 0100007F:1F91 00000000:0000 0A 0:0 00:0 0 0 0 79 1\n";
        assert_eq!(listening_sockets(table, 0x1F90), ["socket:[77]"]);
    }
}
