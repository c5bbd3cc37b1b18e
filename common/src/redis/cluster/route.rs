use std::time::Duration;

use fred::{
    clients::Client,
    error::{Error as RedisError, ErrorKind},
    interfaces::ClientLike,
    types::{ClusterHash, CustomCommand, Value, config::Server},
};

use super::{Cluster, node};
use crate::retry::{Backoff, RetryPolicy};

/// How long an operation waits for keys that are on their way to another node.
const REDIRECTIONS: RetryPolicy =
    RetryPolicy::exponential(Duration::from_millis(10), Duration::from_millis(200)).within(Duration::from_secs(3));

/// The next command of a connection is about a slot that its node is receiving.
pub async fn ask(client: &Client) -> Result<(), RedisError> {
    client.custom(CustomCommand::new_static("ASKING", ClusterHash::FirstKey, false), Vec::<Value>::new()).await
}

/// Where an operation goes, one attempt after the other.
pub struct Route<'c> {
    cluster: &'c Cluster,
    slot: u16,
    asked: Option<Server>,
    last: Option<Server>,
    redirections: u32,
    backoff: Backoff,
}

/// Where an attempt goes.
pub struct Target {
    pub server: Server,
    /// A client of the pool of the slot's owner.
    pub client: Client,
    /// [`ask`] comes before the operation, on a connection of its own to `server`.
    pub is_asked: bool,
}

impl<'c> Route<'c> {
    pub(super) fn new(cluster: &'c Cluster, slot: u16) -> Self {
        Self { cluster, slot, asked: None, last: None, redirections: 0, backoff: Backoff::new(REDIRECTIONS) }
    }

    /// The target of the next attempt.
    pub async fn next(&mut self) -> Result<Target, RedisError> {
        let mut topology = self.cluster.topology();
        if topology.owner(self.slot).is_none() {
            self.cluster.refresh(None).await;
            topology = self.cluster.topology();
        }
        let owner = topology.owner(self.slot);
        let owner = owner.ok_or_else(|| RedisError::new(ErrorKind::Cluster, "CLUSTERDOWN a slot has no owner"))?;
        let (server, is_asked) = match self.asked.take() {
            Some(server) => (server, true),
            None => (owner.server.clone(), false),
        };
        self.last = Some(server.clone());
        Ok(Target { server, client: owner.pool().next().clone(), is_asked })
    }

    /// Prepares another attempt after a redirection, or an error that passes. Such a reply means that the operation was
    /// not executed. Any other error is returned.
    pub async fn follow(&mut self, error: RedisError) -> Result<(), RedisError> {
        let mut words = error.details().split(' ');
        let (word, server) = (words.next().unwrap_or_default(), words.nth(1));
        let last = self.last.clone();
        let server = server.zip(last.as_ref()).and_then(|(address, last)| {
            let (host, port) = address.rsplit_once(':')?;
            node(host, port.parse().ok()?, last)
        });
        let is_redirection = match (word, server) {
            ("MOVED", Some(server)) => self.cluster.set_owner(self.slot, &server).map(|()| true)?,
            ("ASK", Some(server)) => {
                self.asked = Some(server);
                true
            }
            // Some keys of the operation have arrived at the other node, and some have not.
            ("TRYAGAIN", _) => false,
            ("CLUSTERDOWN" | "READONLY" | "MASTERDOWN" | "LOADING", _) => {
                self.cluster.refresh(last.as_ref()).await;
                false
            }
            _ => {
                // The node may be gone, and another one own its slots.
                if matches!(error.kind(), ErrorKind::IO | ErrorKind::Timeout | ErrorKind::Canceled | ErrorKind::Routing)
                {
                    self.cluster.refresh(last.as_ref()).await;
                }
                return Err(error);
            }
        };
        self.redirections += 1;
        // The first one is followed at once. Two nodes may redirect to each other for a moment.
        if is_redirection && self.redirections == 1 {
            return Ok(());
        }
        let Some(delay) = self.backoff.next_delay() else { return Err(error) };
        tokio::time::sleep(delay).await;
        Ok(())
    }
}
