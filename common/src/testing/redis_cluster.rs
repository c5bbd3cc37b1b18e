use std::{net::TcpListener, path::PathBuf, time::Duration};

use fred::{
    clients::Client,
    interfaces::ClientLike as _,
    types::{
        Builder, ClusterHash, CustomCommand, Value,
        config::{Config, Server, ServerConfig},
    },
    util::redis_keyslot,
};
use tokio::process::Child;

use super::{eventually, redis_server::spawn};
use crate::identifiers::new_uuid;

const SLOTS: u16 = 16_384;
/// The nodes talk to each other on a port that is higher by this.
const BUS: u16 = 10_000;
const LIMIT: Duration = Duration::from_secs(30);

/// A Redis Cluster of a test's own. It ends when the value is dropped.
pub struct RedisCluster {
    nodes: Vec<ClusterNode>,
    folder: PathBuf,
}

struct ClusterNode {
    port: u16,
    id: String,
    client: Client,
    process: Child,
}

impl RedisCluster {
    /// Starts so many primaries, which share the slots evenly, each with a replica.
    pub async fn with_replicas(primaries: u16) -> Self {
        let mut cluster = Self::start(primaries).await;
        for number in 0..primaries {
            let replica = ClusterNode::start(cluster.folder.join(format!("replica-{number}"))).await;
            let primary = &cluster.nodes[usize::from(number)];
            replica.run(&["CLUSTER", "MEET", "127.0.0.1", &primary.port.to_string()]).await;
            eventually("the replica knows its primary", LIMIT, async || {
                let nodes = replica.run(&["CLUSTER", "NODES"]).await.into_string().expect("text");
                nodes.contains(&primary.id) && !nodes.contains("handshake")
            })
            .await;
            replica.run(&["CLUSTER", "REPLICATE", &primary.id]).await;
            cluster.nodes.push(replica);
        }
        let all = format!("cluster_known_nodes:{}", 2 * primaries);
        for node in &cluster.nodes {
            eventually("the cluster is formed, and the replicas follow", LIMIT, async || {
                let info = node.run(&["CLUSTER", "INFO"]).await.into_string().expect("text");
                let replication = node.run(&["INFO", "replication"]).await.into_string().expect("text");
                let follows = replication.contains("role:master") || replication.contains("master_link_status:up");
                follows && info.contains("cluster_state:ok") && info.contains(&all)
            })
            .await;
        }
        cluster
    }

    /// Ends a node at once, as SIGKILL does.
    pub fn kill(&mut self, node: usize) {
        self.nodes[node].process.start_kill().expect("it runs");
    }

    /// Starts so many primaries, which share the slots evenly.
    pub async fn start(primaries: u16) -> Self {
        let folder = std::env::temp_dir().join(format!("dibs-cluster-{}", new_uuid()));
        let mut nodes = Vec::new();
        for number in 0..primaries {
            nodes.push(ClusterNode::start(folder.join(number.to_string())).await);
        }
        let cluster = Self { nodes, folder };
        for (number, node) in (0..primaries).zip(&cluster.nodes) {
            let first = SLOTS / primaries * number;
            let last = if number + 1 == primaries { SLOTS - 1 } else { SLOTS / primaries * (number + 1) - 1 };
            node.run(&["CLUSTER", "ADDSLOTSRANGE", &first.to_string(), &last.to_string()]).await;
            node.run(&["CLUSTER", "MEET", "127.0.0.1", &cluster.nodes[0].port.to_string()]).await;
        }
        for node in &cluster.nodes {
            eventually("the cluster is formed", LIMIT, async || {
                let info = node.run(&["CLUSTER", "INFO"]).await.into_string().expect("text");
                info.contains("cluster_state:ok") && info.contains(&format!("cluster_known_nodes:{primaries}"))
            })
            .await;
        }
        cluster
    }

    pub fn url(&self) -> String {
        let [first, others @ ..] = &self.nodes[..] else { panic!("a cluster has nodes") };
        let others: Vec<String> = others.iter().map(|node| format!("node=127.0.0.1:{}", node.port)).collect();
        format!("redis-cluster://127.0.0.1:{}?{}", first.port, others.join("&"))
    }

    /// The slot of a key.
    pub fn slot(key: &str) -> u16 {
        redis_keyslot(key.as_bytes())
    }

    /// How many nodes there are.
    pub fn size(&self) -> usize {
        self.nodes.len()
    }

    /// The number of the node that owns a slot.
    pub async fn owner(&self, slot: u16) -> usize {
        let ranges = self.nodes[0].run(&["CLUSTER", "SLOTS"]).await.into_array();
        let port = ranges.into_iter().map(Value::into_array).find_map(|range| {
            let (first, last) = (range[0].as_u64()?, range[1].as_u64()?);
            (first..=last).contains(&slot.into()).then(|| range[2].clone().into_array()[1].as_u64())?
        });
        self.nodes.iter().position(|node| Some(u64::from(node.port)) == port).expect("a node")
    }

    /// The keys of a slot that a node holds.
    pub async fn keys(&self, slot: u16, node: usize) -> Vec<String> {
        let keys = self.nodes[node].run(&["CLUSTER", "GETKEYSINSLOT", &slot.to_string(), "1000"]).await;
        keys.into_array().into_iter().map(|key| key.into_string().expect("a key")).collect()
    }

    /// From now on keys of the slot may be at either node.
    pub async fn begin_move(&self, slot: u16, from: usize, to: usize) {
        let (slot, source, target) = (slot.to_string(), &self.nodes[from], &self.nodes[to]);
        target.run(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &source.id]).await;
        source.run(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &target.id]).await;
    }

    /// Moves keys, all at once.
    pub async fn move_keys(&self, keys: &[String], from: usize, to: usize) {
        let port = self.nodes[to].port.to_string();
        let command = ["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "KEYS"];
        let command: Vec<&str> = command.into_iter().chain(keys.iter().map(String::as_str)).collect();
        self.nodes[from].run(&command).await;
    }

    /// All keys have been moved: the slot follows.
    pub async fn end_move(&self, slot: u16, to: usize) {
        // The new owner first, or the slot would have no owner for a moment.
        let (slot, id) = (slot.to_string(), &self.nodes[to].id);
        let target = std::iter::once(&self.nodes[to]);
        let others = self.nodes.iter().filter(|node| node.id != *id);
        for node in target.chain(others) {
            node.run(&["CLUSTER", "SETSLOT", &slot, "NODE", id]).await;
        }
    }

    /// Moves a slot as `redis-cli --cluster reshard` does, but key by key.
    pub async fn move_slot(&self, slot: u16, from: usize, to: usize) {
        self.begin_move(slot, from, to).await;
        loop {
            let keys = self.keys(slot, from).await;
            if keys.is_empty() {
                break;
            }
            for key in keys {
                self.move_keys(&[key], from, to).await;
            }
        }
        self.end_move(slot, to).await;
    }
}

impl Drop for RedisCluster {
    fn drop(&mut self) {
        // Its processes are killed, and write nothing that is missed.
        let _removed = std::fs::remove_dir_all(&self.folder);
    }
}

impl ClusterNode {
    async fn start(folder: PathBuf) -> Self {
        std::fs::create_dir_all(&folder).expect("a folder");
        let port = free_port();
        let server = ["--bind", "127.0.0.1", "--port", &port.to_string(), "--save", "", "--appendonly", "no"];
        let cluster = ["--cluster-enabled", "yes", "--cluster-node-timeout", "2000"];
        let process = spawn(&folder, &[&server[..], &cluster[..]].concat());
        let server = ServerConfig::Centralized { server: Server::new("127.0.0.1", port) };
        let client = Builder::from_config(Config { server, fail_fast: false, ..Config::default() })
            .set_policy(fred::types::config::ReconnectPolicy::new_constant(0, 50))
            .build()
            .expect("a client");
        client.init().await.expect("connected");
        let mut node = Self { port, id: String::new(), client, process };
        node.id = node.run(&["CLUSTER", "MYID"]).await.into_string().expect("an id");
        node
    }

    async fn run(&self, words: &[&str]) -> Value {
        let (command, arguments) = words.split_first().expect("a command");
        let custom = CustomCommand::new((*command).to_owned(), ClusterHash::FirstKey, false);
        let arguments: Vec<Value> = arguments.iter().map(|word| Value::from(*word)).collect();
        self.client.custom(custom, arguments).await.unwrap_or_else(|error| panic!("{words:?}: {error}"))
    }
}

fn free_port() -> u16 {
    loop {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        // A node does not start unless its bus port is free as well.
        if port < u16::MAX - BUS && TcpListener::bind(("127.0.0.1", port + BUS)).is_ok() {
            return port;
        }
    }
}
