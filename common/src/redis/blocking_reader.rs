use std::{future::Future, time::Duration};

use fred::{
    clients::Client,
    error::{Error as RedisError, ErrorKind},
    interfaces::ClientLike,
    types::config::Server,
};
use tokio::sync::Mutex;

use super::{
    Redis,
    client::{BLOCK, Servers, connect_single},
    cluster::{Cluster, Target, ask},
    silence::reconnect,
};
use crate::error::Result;

/// Longer than [`BLOCK`], or every empty read would end as a command that timed out.
const READ_TIMEOUT: Duration = BLOCK.saturating_add(Duration::from_secs(4));

/// A connection of its own for blocking reads of one key: a blocking read holds up every other command on its
/// connection. In a cluster it leads to the node that owns the key's slot.
pub struct BlockingReader {
    redis: Redis,
    key: String,
    connection: Mutex<Option<Connection>>,
}

struct Connection {
    client: Client,
    /// None outside a cluster, where it is never replaced.
    node: Option<Server>,
}

impl BlockingReader {
    pub(super) async fn open(redis: &Redis, key: String) -> Result<Self> {
        let connection = match &redis.servers {
            Servers::Single(_) => {
                let client = connect_single(&redis.config, READ_TIMEOUT).await?;
                Some(Connection { client, node: None })
            }
            Servers::Cluster(_) => None,
        };
        Ok(Self { redis: redis.clone(), key, connection: Mutex::new(connection) })
    }

    /// Runs an operation on the connection, one at a time.
    pub async fn run<T, F>(&self, operation: impl Fn(Client) -> F) -> Result<T, RedisError>
    where
        F: Future<Output = Result<T, RedisError>>,
    {
        match &self.redis.servers {
            Servers::Single(_) => {
                let client = self.connection.lock().await.as_ref().map(|connection| connection.client.clone());
                let client = client.ok_or_else(closed)?;
                let done = operation(client.clone()).await;
                if done.as_ref().is_err_and(|error| *error.kind() == ErrorKind::Timeout) {
                    // Redis answers after `BLOCK`, whatever there is.
                    reconnect(&client).await;
                }
                done
            }
            // Boxed, as callers outside a cluster need no room for it.
            Servers::Cluster(cluster) => Box::pin(self.run_on(cluster, operation)).await,
        }
    }

    async fn run_on<T, F>(&self, cluster: &Cluster, operation: impl Fn(Client) -> F) -> Result<T, RedisError>
    where
        F: Future<Output = Result<T, RedisError>>,
    {
        let mut connection = self.connection.lock().await;
        let mut route = cluster.route(&self.key);
        loop {
            let Target { server, is_asked, .. } = route.next().await?;
            let done = async {
                if connection.as_ref().is_none_or(|connection| connection.node.as_ref() != Some(&server)) {
                    close(connection.take()).await;
                    let client = cluster.connect_to(&server, READ_TIMEOUT).await?;
                    *connection = Some(Connection { client, node: Some(server.clone()) });
                }
                let client = connection.as_ref().ok_or_else(closed)?.client.clone();
                if is_asked {
                    ask(&client).await?;
                }
                operation(client).await
            };
            let error = match done.await {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            if let Err(error) = route.follow(error).await {
                // The next read connects to whichever node owns the slot by then.
                if !matches!(error.kind(), ErrorKind::Unknown) {
                    close(connection.take()).await;
                }
                return Err(error);
            }
        }
    }

    /// Ends the connection.
    pub async fn close(&self) {
        close(self.connection.lock().await.take()).await;
    }
}

fn closed() -> RedisError {
    RedisError::new(ErrorKind::Canceled, "the reader is closed")
}

async fn close(connection: Option<Connection>) {
    if let Some(connection) = connection
        && let Err(error) = connection.client.quit().await
    {
        tracing::debug!(%error, "connection lost before it was closed");
    }
}
