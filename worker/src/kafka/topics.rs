use std::time::Duration;

use dibs_common::error::{Error, Result};
use rdkafka::consumer::{BaseConsumer, Consumer as _};

use super::{CLAIM_REQUESTS, Cluster, sink::EVENTS};

const METADATA_TIMEOUT: Duration = Duration::from_secs(5);

/// A topic that Dibs publishes to or consumes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    /// With the prefix.
    pub name: String,
    /// The fewest replicas of one of its partitions; none when the brokers have no such topic.
    pub replicas: Option<usize>,
}

/// The topics of Dibs as the brokers know them, and how many brokers there are.
pub async fn list_topics(cluster: &Cluster) -> Result<(usize, Vec<Topic>)> {
    let cluster = cluster.clone();
    // The client of Kafka blocks.
    tokio::task::spawn_blocking(move || read(&cluster)).await.map_err(Error::internal)?
}

fn read(cluster: &Cluster) -> Result<(usize, Vec<Topic>)> {
    let consumer: BaseConsumer = cluster.client().create().map_err(Error::internal)?;
    // All topics at once: asked for one by one, brokers may create those that are missing.
    let metadata = consumer.fetch_metadata(None, METADATA_TIMEOUT).map_err(Error::internal)?;
    let topics = EVENTS.into_iter().chain([CLAIM_REQUESTS]).map(|name| {
        let name = cluster.topic(name);
        let found = metadata.topics().iter().find(|topic| topic.name() == name);
        let replicas = found.and_then(|topic| topic.partitions().iter().map(|part| part.replicas().len()).min());
        Topic { name, replicas }
    });
    Ok((metadata.brokers().len(), topics.collect()))
}
