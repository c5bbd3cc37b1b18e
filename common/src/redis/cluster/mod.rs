//! A Redis Cluster: which node owns a slot, and a pool of connections to each node.
//!
//! The client library can follow redirections itself, but not while a slot is moved: it counts a redirection as one
//! more attempt, of which a command has one; it sends ASKING between commands in flight, whose replies it then
//! confuses; and a redirection that fails ends the client for good. So each node has clients that know nothing of the
//! cluster, and redirections are followed here.

mod route;

use std::{
    collections::HashMap,
    future::Future,
    sync::{Arc, OnceLock, PoisonError, RwLock},
    time::Duration,
};

use fred::{
    clients::{Client, Pool},
    error::{Error as RedisError, ErrorKind},
    interfaces::{ClientLike, ClusterInterface},
    types::{
        Value,
        config::{Config, Server, ServerConfig},
    },
    util::redis_keyslot,
};
pub(super) use route::{Route, Target, ask};
use tokio::{sync::Mutex, time::timeout};

use super::client::{COMMAND_TIMEOUT, WatchedPool, builder};

const SLOTS: usize = 16_384;
/// How long a node may take to accept a connection, or to list the slots.
const NODE_TIMEOUT: Duration = Duration::from_millis(500);

/// The nodes of a cluster, as this process knows them.
pub(super) struct Cluster {
    config: Config,
    /// To each node.
    connections: usize,
    topology: RwLock<Arc<Topology>>,
    refreshing: Mutex<()>,
    /// Connections on which ASKING is followed by one operation, and nothing comes in between.
    asking: Mutex<HashMap<Server, Arc<Mutex<Client>>>>,
    /// The library's own client for clusters.
    library_client: OnceLock<Client>,
}

/// The owner of each slot.
#[derive(Clone, Default)]
struct Topology {
    nodes: Vec<Node>,
    /// By slot, an index into `nodes`; none while a slot has no owner.
    owners: Vec<Option<u16>>,
}

#[derive(Clone)]
struct Node {
    server: Server,
    connections: WatchedPool,
}

impl Node {
    const fn pool(&self) -> &Pool {
        &self.connections.pool
    }
}

impl Topology {
    fn owner(&self, slot: u16) -> Option<&Node> {
        let owner = self.owners.get(usize::from(slot)).copied().flatten()?;
        self.nodes.get(usize::from(owner))
    }

    fn node(&self, server: &Server) -> Option<&Node> {
        self.nodes.iter().find(|node| node.server == *server)
    }

    /// The index of a node, which `open` adds when it is new.
    fn index(&mut self, server: &Server, open: impl FnOnce() -> Result<Node, RedisError>) -> Result<u16, RedisError> {
        let known = self.nodes.iter().position(|node| node.server == *server);
        let place = if let Some(place) = known {
            place
        } else {
            self.nodes.push(open()?);
            self.nodes.len() - 1
        };
        u16::try_from(place).map_err(|_| RedisError::new(ErrorKind::Cluster, "the cluster has too many nodes"))
    }
}

impl Cluster {
    /// Reads the topology from one of the hosts of `config`.
    pub async fn connect(config: Config, connections: usize) -> Result<Self, RedisError> {
        let cluster = Self {
            config,
            connections,
            topology: RwLock::default(),
            refreshing: Mutex::default(),
            asking: Mutex::default(),
            library_client: OnceLock::new(),
        };
        // At once: a cluster that no host of the URL knows fails the start, not the first command.
        cluster.read_topology(None).await?;
        Ok(cluster)
    }

    /// Runs an operation on the owner of `key`, and again where a redirection leads.
    pub async fn run<T, F>(&self, key: &str, operation: impl Fn(Client) -> F) -> Result<T, RedisError>
    where
        F: Future<Output = Result<T, RedisError>>,
    {
        let mut route = self.route(key);
        loop {
            let done = match route.next().await? {
                Target { server, is_asked: true, .. } => self.run_asking(&server, &operation).await,
                Target { client, .. } => operation(client).await,
            };
            match done {
                Ok(done) => return Ok(done),
                Err(error) => route.follow(error).await?,
            }
        }
    }

    /// The way to the owner of `key`.
    pub fn route(&self, key: &str) -> Route<'_> {
        Route::new(self, redis_keyslot(key.as_bytes()))
    }

    async fn run_asking<T, F>(&self, server: &Server, operation: &impl Fn(Client) -> F) -> Result<T, RedisError>
    where
        F: Future<Output = Result<T, RedisError>>,
    {
        let client = self.asking_client(server).await?;
        let client = client.lock().await;
        ask(&client).await?;
        let done = operation(client.clone()).await;
        if done.as_ref().is_err_and(|error| matches!(error.kind(), ErrorKind::IO | ErrorKind::Timeout)) {
            // The next operation connects again.
            self.asking.lock().await.remove(server);
        }
        done
    }

    async fn asking_client(&self, server: &Server) -> Result<Arc<Mutex<Client>>, RedisError> {
        let mut clients = self.asking.lock().await;
        if let Some(client) = clients.get(server) {
            return Ok(Arc::clone(client));
        }
        let client = Arc::new(Mutex::new(self.connect_to(server, COMMAND_TIMEOUT).await?));
        clients.insert(server.clone(), Arc::clone(&client));
        Ok(client)
    }

    /// A connection of its own to a node.
    pub async fn connect_to(&self, server: &Server, command_timeout: Duration) -> Result<Client, RedisError> {
        let mut config = self.config_of(server);
        // A node that is down must not be waited for: another one may be the owner by now.
        config.fail_fast = true;
        let client = builder(config, command_timeout).build()?;
        let connected = timeout(NODE_TIMEOUT, client.init()).await;
        connected.map_err(|_| RedisError::new(ErrorKind::Timeout, "a node of the cluster does not answer"))??;
        Ok(client)
    }

    fn config_of(&self, server: &Server) -> Config {
        Config { server: ServerConfig::Centralized { server: server.clone() }, ..self.config.clone() }
    }

    fn open_node(&self, server: &Server) -> Result<Node, RedisError> {
        let pool = builder(self.config_of(server), COMMAND_TIMEOUT).build_pool(self.connections)?;
        // Not awaited: commands wait in its queue until it is connected.
        drop(pool.connect());
        Ok(Node { server: server.clone(), connections: WatchedPool::new(pool) })
    }

    fn topology(&self) -> Arc<Topology> {
        Arc::clone(&self.topology.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// A node has said who owns the slot.
    fn set_owner(&self, slot: u16, server: &Server) -> Result<(), RedisError> {
        let mut current = self.topology.write().unwrap_or_else(PoisonError::into_inner);
        // All commands in flight are redirected; the first of them to come here has put it right.
        if current.owner(slot).is_some_and(|owner| owner.server == *server) {
            return Ok(());
        }
        let mut topology = Topology::clone(&current);
        let owner = topology.index(server, || self.open_node(server))?;
        if let Some(slot) = topology.owners.get_mut(usize::from(slot)) {
            *slot = Some(owner);
        }
        *current = Arc::new(topology);
        Ok(())
    }

    /// Reads the topology again, unless another task does. `failed` is asked last: it may be wrong, or gone.
    async fn refresh(&self, failed: Option<&Server>) {
        let Ok(_refreshing) = self.refreshing.try_lock() else { return };
        if let Err(error) = self.read_topology(failed).await {
            tracing::warn!(%error, "slots of the redis cluster not read; retrying");
        }
    }

    async fn read_topology(&self, failed: Option<&Server>) -> Result<(), RedisError> {
        let current = self.topology();
        let mut servers: Vec<Server> = current.nodes.iter().map(|node| node.server.clone()).collect();
        servers.extend(self.config.server.hosts());
        servers.sort_by_key(|server| Some(server) == failed);
        let mut last_error = RedisError::new(ErrorKind::Cluster, "the cluster has no node");
        for server in servers {
            match self.read_slots(&current, &server).await {
                Ok(slots) => return self.put_topology(&slots, &server),
                Err(error) => last_error = error,
            }
        }
        Err(last_error)
    }

    async fn read_slots(&self, topology: &Topology, server: &Server) -> Result<Value, RedisError> {
        let read = async |client: &Client| {
            let slots = timeout(NODE_TIMEOUT, client.cluster_slots::<Value>()).await;
            slots.map_err(|_| RedisError::new(ErrorKind::Timeout, "a node of the cluster does not answer"))?
        };
        if let Some(node) = topology.node(server) {
            return read(node.pool().next()).await;
        }
        let client = self.connect_to(server, COMMAND_TIMEOUT).await?;
        let slots = read(&client).await;
        let _closed = client.quit().await;
        slots
    }

    /// Reads a reply to CLUSTER SLOTS: `[first, last, [host, port, ..], replicas ..]` for each range.
    fn put_topology(&self, slots: &Value, from: &Server) -> Result<(), RedisError> {
        let mut current = self.topology.write().unwrap_or_else(PoisonError::into_inner);
        let mut topology = Topology { nodes: Vec::new(), owners: vec![None; SLOTS] };
        for range in array(slots) {
            let [first, last, primary, ..] = array(range) else { return Err(unexpected(slots)) };
            let [host, port, ..] = array(primary) else { return Err(unexpected(slots)) };
            let slot = |slot: &Value| slot.as_u64().and_then(|slot| usize::try_from(slot).ok());
            let (Some(first), Some(last), Some(port)) = (slot(first), slot(last), port.as_u64()) else {
                return Err(unexpected(slots));
            };
            let server =
                node(host.as_str().as_deref().unwrap_or_default(), port, from).ok_or_else(|| unexpected(slots))?;
            let known = current.node(&server).cloned();
            let owner = topology.index(&server, || known.map_or_else(|| self.open_node(&server), Ok))?;
            topology.owners.get_mut(first..=last).ok_or_else(|| unexpected(slots))?.fill(Some(owner));
        }
        let gone = current.nodes.iter().filter(|node| topology.node(&node.server).is_none());
        for node in gone {
            // In a task of its own: it waits for the node, and the lock of the topology must not be held that long.
            let pool = node.pool().clone();
            tokio::spawn(async move { pool.quit().await });
        }
        *current = Arc::new(topology);
        Ok(())
    }

    /// The library's own client. It fails while a slot is moved.
    pub fn library_client(&self) -> &Client {
        self.library_client.get_or_init(|| {
            let client = Client::new(self.config.clone(), None, None, None);
            drop(client.connect());
            client
        })
    }

    /// Ends all connections.
    /// A client of each primary, with its address.
    pub fn primaries(&self) -> Vec<(String, Client)> {
        let client = |node: &Node| (node.server.to_string(), node.pool().next().clone());
        self.topology().nodes.iter().map(client).collect()
    }

    pub async fn quit(&self) -> Result<(), RedisError> {
        for client in self.asking.lock().await.values() {
            client.lock().await.quit().await?;
        }
        for node in &self.topology().nodes {
            node.pool().quit().await?;
        }
        Ok(())
    }
}

fn array(value: &Value) -> &[Value] {
    match value {
        Value::Array(values) => values,
        _ => &[],
    }
}

/// A node that leaves its host out is on the host of the node that names it.
fn node(host: &str, port: u64, named_by: &Server) -> Option<Server> {
    let host = if host.is_empty() { &*named_by.host } else { host };
    Some(Server::new(host.to_owned(), u16::try_from(port).ok()?))
}

fn unexpected(slots: &Value) -> RedisError {
    RedisError::new(ErrorKind::Protocol, format!("an unexpected reply to CLUSTER SLOTS: {slots:?}"))
}
