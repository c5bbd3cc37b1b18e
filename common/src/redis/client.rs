//! The way to Redis: one small module between Dibs and its client library.
//!
//! There are three kinds of connection, which must not wait for each other: a pool for scripts and short commands, one
//! connection for each stream reader (a blocking read holds up every other command on it), and one for each subscriber.
//! A command is sent once, unless a reply says that it was not executed, as that of a cluster which is moving its slot.
//! A caller whose script is idempotent may send it again.

use std::{future::Future, sync::Arc, time::Duration};

use bytes::Bytes;
use fred::{
    clients::{Client, Pool, SubscriberClient},
    error::Error as RedisError,
    interfaces::{ClientLike, EventInterface, PubsubInterface},
    types::{
        Builder, ClusterHash, CustomCommand, Message, Value,
        config::{Config, ReconnectError, ReconnectPolicy, UnresponsiveConfig},
    },
};
use secrecy::{ExposeSecret, SecretString};
use tokio::{
    sync::broadcast::{Receiver, error::RecvError},
    task::JoinSet,
    time::timeout,
};

use super::{blocking_reader::BlockingReader, cluster::Cluster, silence::watch};
use crate::{
    error::{Dependency, Error, Result},
    redis::keys::Keys,
};

/// A short command that takes longer counts as an unreachable server.
pub const COMMAND_TIMEOUT: Duration = Duration::from_millis(700);
/// How long a blocking read waits for an entry.
pub const BLOCK: Duration = Duration::from_secs(1);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
const RECONNECT_DELAY_MS: u32 = 100;
/// Its node is asked whether Redis is ready.
const PING_KEY: &str = "ping";

/// Connections to Redis, and the spelling of keys.
#[derive(Clone)]
pub struct Redis {
    pub(super) servers: Servers,
    pub(super) config: Config,
    /// Spells the keys of this installation.
    pub keys: Keys,
}

#[derive(Clone)]
pub(super) enum Servers {
    /// One server, also one that sentinels name.
    Single(WatchedPool),
    Cluster(Arc<Cluster>),
}

/// Connections to one server. Those that fall silent are replaced.
#[derive(Clone)]
pub(super) struct WatchedPool {
    pub pool: Pool,
    /// End with the last copy.
    _watches: Arc<JoinSet<()>>,
}

impl WatchedPool {
    pub fn new(pool: Pool) -> Self {
        let watches = pool.clients().iter().cloned().map(watch).collect();
        Self { pool, _watches: Arc::new(watches) }
    }
}

impl Redis {
    /// Connects `connections` times to the server, cluster or sentinels at `url`; waits for at most 10 s.
    pub async fn connect(url: &SecretString, keys: Keys, connections: usize) -> Result<Self> {
        let mut config = Config::from_url(url.expose_secret()).map_err(redis_error)?;
        // A process may start before Redis does: `init` then waits for it, up to the timeout.
        config.fail_fast = false;
        let servers = if config.server.is_clustered() {
            let connected = within_limit(Box::pin(Cluster::connect(config.clone(), connections))).await?;
            Servers::Cluster(Arc::new(connected))
        } else {
            let pool = builder(config.clone(), COMMAND_TIMEOUT).build_pool(connections).map_err(redis_error)?;
            within_limit(pool.init()).await?;
            Servers::Single(WatchedPool::new(pool))
        };
        Ok(Self { servers, config, keys })
    }

    /// Runs an operation on the server that holds `key`; all keys that it touches share its hash tag. In a cluster it
    /// runs again where a redirection leads, for up to 3 s.
    pub async fn run<T, F>(&self, key: &str, operation: impl Fn(Client) -> F) -> Result<T>
    where
        F: Future<Output = Result<T, RedisError>>,
    {
        self.try_run(key, operation).await.map_err(redis_error)
    }

    /// The same, with the error of the client library.
    pub(super) async fn try_run<T, F>(&self, key: &str, operation: impl Fn(Client) -> F) -> Result<T, RedisError>
    where
        F: Future<Output = Result<T, RedisError>>,
    {
        match &self.servers {
            Servers::Single(WatchedPool { pool, .. }) => operation(pool.next().clone()).await,
            // Boxed, as callers outside a cluster need no room for it.
            Servers::Cluster(cluster) => Box::pin(cluster.run(key, operation)).await,
        }
    }

    /// A connection to the one server, the next in turn; none in a cluster.
    pub(super) fn single(&self) -> Option<&Client> {
        match &self.servers {
            Servers::Single(WatchedPool { pool, .. }) => Some(pool.next()),
            Servers::Cluster(_) => None,
        }
    }

    /// A client for tests and tools. In a cluster it does not follow slots that are being moved.
    pub fn client(&self) -> &Client {
        match &self.servers {
            Servers::Single(WatchedPool { pool, .. }) => pool.next(),
            Servers::Cluster(cluster) => cluster.library_client(),
        }
    }

    /// A connection of its own for blocking reads of `key`.
    pub async fn reader(&self, key: &str) -> Result<BlockingReader> {
        BlockingReader::open(self, key.to_owned()).await
    }

    /// A connection of its own that listens on `channel`, again after each reconnection.
    pub async fn subscribe(&self, channel: &str) -> Result<Subscription> {
        let client = builder(self.config.clone(), COMMAND_TIMEOUT).build_subscriber_client().map_err(redis_error)?;
        within_limit(client.init()).await?;
        client.manage_subscriptions();
        // Before SUBSCRIBE, so that no message is missed in between.
        let messages = client.message_rx();
        client.subscribe(channel).await.map_err(redis_error)?;
        let watches = [watch(client.clone())].into_iter().collect();
        Ok(Subscription { _client: client, _watches: watches, messages })
    }

    /// Publishes a message to the current subscribers of `channel`.
    pub async fn publish(&self, channel: &str, message: Bytes) -> Result<()> {
        // A cluster passes messages on to all its nodes, so any key's would do.
        let publish = async |client: Client| client.publish::<(), _, _>(channel, message.clone()).await;
        self.run(channel, publish).await
    }

    /// Returns when Redis answers and takes writes.
    pub async fn ping(&self) -> Result<()> {
        // A replica answers PING as well.
        let role = CustomCommand::new_static("ROLE", ClusterHash::Random, false);
        let role: Value = self
            .run(PING_KEY, |client| {
                let role = role.clone();
                async move { client.custom(role, Vec::<Value>::new()).await }
            })
            .await?;
        if role.into_array().first().and_then(Value::as_str).is_some_and(|role| role == "master") {
            return Ok(());
        }
        // A write would make the client connect again. While this process is not ready, there may be none.
        if let Servers::Single(WatchedPool { pool, .. }) = &self.servers {
            pool.force_reconnection().await.map_err(redis_error)?;
        }
        Err(Error::unavailable(Dependency::Redis, "the server is a replica"))
    }

    /// Ends all connections of the pool.
    pub async fn close(&self) {
        let closing = async {
            match &self.servers {
                Servers::Single(WatchedPool { pool, .. }) => pool.quit().await,
                Servers::Cluster(cluster) => cluster.quit().await,
            }
        };
        // A connection that leads nowhere must not hold up the end of the process.
        match timeout(CLOSE_TIMEOUT, closing).await {
            Ok(Ok(())) => {}
            closed => tracing::debug!(?closed, "redis connections were not closed cleanly"),
        }
    }
}

/// A subscription to one channel. Messages that are published while its connection is broken are lost.
pub struct Subscription {
    _client: SubscriberClient,
    _watches: JoinSet<()>,
    messages: Receiver<Message>,
}

impl Subscription {
    /// The next message; none when there will be no more.
    pub async fn next(&mut self) -> Option<Bytes> {
        loop {
            match self.messages.recv().await {
                Ok(message) => return Some(message.value.into_bytes().unwrap_or_default()),
                Err(RecvError::Lagged(missed)) => tracing::warn!(missed, "subscription lagged; messages dropped"),
                Err(RecvError::Closed) => return None,
            }
        }
    }
}

/// A client of its own for the one server of `config`.
pub(super) async fn connect_single(config: &Config, command_timeout: Duration) -> Result<Client> {
    let client = builder(config.clone(), command_timeout).build().map_err(redis_error)?;
    within_limit(client.init()).await?;
    Ok(client)
}

async fn within_limit<T>(connecting: impl Future<Output = Result<T, RedisError>>) -> Result<T> {
    let connected = timeout(CONNECT_TIMEOUT, connecting).await;
    connected.map_err(|elapsed| Error::unavailable(Dependency::Redis, elapsed))?.map_err(redis_error)
}

pub(super) fn builder(config: Config, command_timeout: Duration) -> Builder {
    let mut builder = Builder::from_config(config);
    builder
        .with_performance_config(|performance| performance.default_command_timeout = command_timeout)
        .with_connection_config(|connection| {
            connection.connection_timeout = Duration::from_millis(500);
            connection.internal_command_timeout = Duration::from_secs(1);
            // fred sends a command again after it has reconnected, also one that Redis has executed.
            // A claim or a command would then be executed twice in one request.
            connection.max_command_attempts = 1;
            // The server was made a replica, or replicates: a new connection may reach the new primary.
            connection.reconnect_errors = vec![
                ReconnectError::ReadOnly,
                ReconnectError::MasterDown,
                ReconnectError::ClusterDown,
                ReconnectError::Loading,
            ];
            connection.tcp.nodelay = Some(true);
            // A machine that vanished closes no connection: the kernel would notice after minutes.
            connection.unresponsive = UnresponsiveConfig {
                max_timeout: Some(command_timeout + Duration::from_millis(300)),
                // The extra time lets a command that is merely slow time out alone, before its whole connection
                // is closed.
                interval: Duration::from_millis(200),
            };
        })
        // 0 is no bound on attempts: a process outlives any outage of Redis.
        .set_policy(ReconnectPolicy::new_constant(0, RECONNECT_DELAY_MS));
    builder
}

/// The client library's error as an error of Dibs: an error of a script is a defect, all else means that Redis cannot
/// be used now.
pub fn redis_error(error: fred::error::Error) -> Error {
    use fred::error::ErrorKind;
    // What the client library does not classify, and what passes when the server recovers: its own words for a
    // connection that has just broken, and error replies.
    let of_library = ["Failed to route command", "Too many failed write attempts"];
    let of_server =
        ["BUSY", "LOADING", "READONLY", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "OOM", "MISCONF", "NOREPLICAS"];
    let details = error.details();
    let is_defect = matches!(
        error.kind(),
        ErrorKind::InvalidArgument | ErrorKind::InvalidCommand | ErrorKind::Parse | ErrorKind::Unknown
    );
    if is_defect && !of_library.iter().chain(&of_server).any(|prefix| details.starts_with(prefix)) {
        Error::internal(error)
    } else {
        Error::unavailable(Dependency::Redis, error)
    }
}

#[cfg(test)]
mod tests {
    use fred::error::{Error as RedisError, ErrorKind};

    use super::*;

    #[test]
    fn a_connection_that_broke_is_no_defect_and_an_error_of_a_script_is() {
        let is_unavailable = |details: &'static str| {
            matches!(redis_error(RedisError::new(ErrorKind::Unknown, details)), Error::DependencyUnavailable { .. })
        };
        assert!(is_unavailable("Too many failed write attempts.") && is_unavailable("Failed to route command."));
        assert!(is_unavailable("READONLY You can't write against a read only replica."));
        assert!(!is_unavailable("ERR user_script:1: broken"));
    }
}
