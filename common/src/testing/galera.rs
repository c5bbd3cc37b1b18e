use std::{
    path::{Path, PathBuf},
    process::{Command as Blocking, Stdio},
    time::Duration,
};

use sqlx::{Connection as _, MySqlConnection};
use tokio::process::{Child, Command};

use super::{eventually, redis_server::free_port};
use crate::identifiers::new_uuid;

const PROVIDERS: [&str; 2] = ["/usr/lib/galera/libgalera_smm.so", "/usr/lib64/galera-4/libgalera_smm.so"];
const SERVER: &str = "/usr/sbin/mariadbd";
/// A node that joins copies all data of another.
const LIMIT: Duration = Duration::from_mins(2);

/// A cluster of `MariaDB` nodes of a test's own. It ends when the value is dropped.
pub struct Galera {
    nodes: Vec<GaleraNode>,
    folder: PathBuf,
}

struct GaleraNode {
    port: u16,
    process: Child,
}

/// Ports of one node: of clients, of the group, and two for copies of the data.
type Ports = [u16; 4];

impl Galera {
    /// Why a cluster cannot be started here; none when it can.
    pub fn missing() -> Option<&'static str> {
        match () {
            () if !Path::new(SERVER).exists() => Some("mariadbd is not installed"),
            () if provider().is_none() => Some("galera-4 is not installed"),
            () if Blocking::new("rsync").arg("--version").output().is_err() => Some("rsync is not installed"),
            () => None,
        }
    }

    /// Starts so many nodes, and waits until all of them have the same data.
    pub async fn start(size: usize) -> Self {
        let folder = std::env::temp_dir().join(format!("dibs-galera-{}", new_uuid()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let ports: Vec<Ports> = (0..size).map(|_| [free_port(), free_port(), free_port(), free_port()]).collect();
        let group: Vec<String> = ports.iter().map(|[_, group, ..]| format!("127.0.0.1:{group}")).collect();
        let group = format!("gcomm://{}", group.join(","));
        let mut cluster = Self { nodes: Vec::new(), folder };
        for (number, ports) in ports.into_iter().enumerate() {
            let process = cluster.start_node(number, ports, &group);
            cluster.nodes.push(GaleraNode { port: ports[0], process });
            let url = cluster.url(number);
            // One after the other: a node gives its data to one other at a time.
            eventually("the node is synced", LIMIT, async || is_synced(&url, number + 1).await).await;
        }
        cluster
    }

    fn start_node(&self, number: usize, ports: Ports, group: &str) -> Child {
        let folder = self.folder.join(number.to_string());
        std::fs::create_dir_all(&folder).expect("a folder");
        let user = user();
        let data = format!("--datadir={}", folder.join("data").display());
        let made = Blocking::new("mariadb-install-db")
            .args(["--no-defaults", &data, "--auth-root-authentication-method=normal", "--skip-test-db"])
            .arg(format!("--user={user}"))
            .output()
            .expect("mariadb-install-db");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        if user == "mysql" {
            // The server and the programs that it starts do not stay root.
            let owned = Blocking::new("chown").args(["-R", "mysql"]).arg(&folder).status().expect("chown");
            assert!(owned.success(), "chown");
        }
        let [port, group_port, incremental, copy] = ports;
        let provider = provider().expect("galera-4");
        Command::new(SERVER)
            .args(["--no-defaults", &data, "--socket=socket", "--bind-address=127.0.0.1"])
            .arg(format!("--user={user}"))
            .arg(format!("--port={port}"))
            .arg(format!("--tmpdir={}", folder.display()))
            .args(["--wsrep-on=ON", "--binlog-format=ROW", "--innodb-autoinc-lock-mode=2", "--wsrep-sst-method=rsync"])
            .args(["--innodb-flush-log-at-trx-commit=2", "--max-connections=500"])
            .arg(format!("--wsrep-provider={provider}"))
            .arg(format!("--wsrep-cluster-address={group}"))
            .arg(format!("--wsrep-node-address=127.0.0.1:{group_port}"))
            .arg(format!("--wsrep-sst-receive-address=127.0.0.1:{copy}"))
            .arg(format!(
                "--wsrep-provider-options=gmcast.listen_addr=tcp://127.0.0.1:{group_port};\
                 ist.recv_addr=127.0.0.1:{incremental};gcache.size=32M"
            ))
            .args(if number == 0 { &["--wsrep-new-cluster"][..] } else { &[] })
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(folder.join("log")).expect("a log"))
            .kill_on_drop(true)
            .spawn()
            .expect("mariadbd")
    }

    pub fn port(&self, node: usize) -> u16 {
        self.nodes[node].port
    }

    /// Without a database.
    pub fn url(&self, node: usize) -> String {
        format!("mysql://root@127.0.0.1:{}/", self.port(node))
    }

    /// Ends a node at once, as SIGKILL does.
    pub fn kill(&mut self, node: usize) {
        self.nodes[node].process.start_kill().expect("it runs");
    }
}

impl Drop for Galera {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            let _ended = node.process.start_kill();
        }
        let _removed = std::fs::remove_dir_all(&self.folder);
    }
}

fn provider() -> Option<&'static str> {
    PROVIDERS.into_iter().find(|path| Path::new(path).exists())
}

/// Root's copies with rsync would be made without the rights to read them.
fn user() -> String {
    let name = Blocking::new("id").arg("-un").output().expect("id");
    let name = String::from_utf8(name.stdout).expect("text").trim().to_owned();
    if name == "root" { "mysql".into() } else { name }
}

async fn is_synced(url: &str, size: usize) -> bool {
    let status = async {
        let mut node = MySqlConnection::connect(url).await?;
        let status: Vec<(String, String)> =
            sqlx::query_as("SHOW STATUS WHERE Variable_name IN ('wsrep_local_state_comment', 'wsrep_cluster_size')")
                .fetch_all(&mut node)
                .await?;
        node.close().await?;
        Ok::<_, sqlx::Error>(status)
    };
    let status = status.await.unwrap_or_default();
    let is = |name: &str, value: &str| status.iter().any(|(found, is)| found == name && is == value);
    is("wsrep_local_state_comment", "Synced") && is("wsrep_cluster_size", &size.to_string())
}
