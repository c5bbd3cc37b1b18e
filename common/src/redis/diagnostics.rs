//! What `dibs-worker doctor` asks the servers of Redis about themselves.

use std::collections::BTreeMap;

use fred::{
    clients::Client,
    interfaces::ClientLike as _,
    types::{ClusterHash, CustomCommand, Value},
};

use super::{Redis, client::Servers, redis_error};
use crate::{
    clock::{self, Timestamp},
    error::Result,
};

/// A server, or a primary of a cluster.
#[derive(Clone, Debug)]
pub struct ServerFacts {
    /// `Redis` or `Valkey`.
    pub name: &'static str,
    pub version: String,
    /// `host:port`; empty where there is one server.
    pub address: String,
    /// The fields of INFO.
    pub info: BTreeMap<String, String>,
    /// The settings that Dibs depends on; none where CONFIG is refused, as managed servers do.
    pub config: Option<BTreeMap<String, String>>,
    pub clock: Timestamp,
}

impl ServerFacts {
    /// A setting, or what INFO says in its place.
    pub fn setting(&self, setting: &str, in_info: &str) -> Option<&str> {
        let set = self.config.as_ref().and_then(|config| config.get(setting));
        set.or_else(|| self.info.get(in_info)).map(String::as_str)
    }
}

/// Of each server that takes writes.
pub async fn find(redis: &Redis) -> Result<Vec<ServerFacts>> {
    let clients: Vec<(String, Client)> = match &redis.servers {
        Servers::Single(single) => vec![(String::new(), single.pool.next().clone())],
        Servers::Cluster(cluster) => cluster.primaries(),
    };
    let mut found = Vec::with_capacity(clients.len());
    for (address, client) in clients {
        found.push(ask(address, &client).await?);
    }
    Ok(found)
}

async fn ask(address: String, client: &Client) -> Result<ServerFacts> {
    let info = run(client, "INFO", &[]).await?.into_string().unwrap_or_default();
    let info: BTreeMap<String, String> =
        info.lines().filter_map(|line| line.split_once(':')).map(|(name, value)| (name.into(), value.into())).collect();
    let config = run(client, "CONFIG", &["GET", "append*"]).await;
    let config = match config {
        Ok(first) => {
            let mut config = pairs(first);
            for setting in ["maxmemory*", "lazyfree-lazy-expire"] {
                config.extend(pairs(run(client, "CONFIG", &["GET", setting]).await?));
            }
            Some(config)
        }
        Err(_) => None,
    };
    let time = run(client, "TIME", &[]).await?.into_array();
    let [seconds, micros] = [0, 1].map(|place| time.get(place).and_then(Value::as_i64).unwrap_or(0));
    let (name, version) = match info.get("valkey_version") {
        Some(version) => ("Valkey", version),
        None => ("Redis", info.get("redis_version").unwrap_or(&address)),
    };
    Ok(ServerFacts {
        name,
        version: version.clone(),
        clock: clock::from_millis(seconds * 1000 + micros / 1000),
        address,
        info,
        config,
    })
}

async fn run(client: &Client, command: &'static str, arguments: &[&str]) -> Result<Value> {
    let command = CustomCommand::new_static(command, ClusterHash::Random, false);
    let arguments: Vec<Value> = arguments.iter().map(|argument| Value::from(*argument)).collect();
    client.custom(command, arguments).await.map_err(redis_error)
}

/// A reply of names and values, one after the other, or a map.
fn pairs(reply: Value) -> BTreeMap<String, String> {
    let values: Vec<String> = match reply {
        Value::Map(map) => map
            .inner()
            .into_iter()
            .flat_map(|(name, value)| [name.into_string().unwrap_or_default(), value.into_string().unwrap_or_default()])
            .collect(),
        list => list.into_array().into_iter().map(|value| value.into_string().unwrap_or_default()).collect(),
    };
    values.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect()
}
