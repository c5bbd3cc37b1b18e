//! Kafka: [`KafkaSink`] publishes events, [`RankingConsumer`] counts sales from them in place of the relay, and
//! [`ClaimRequestConsumer`] submits claim requests as claims.
//!
//! Its client is C, so all but the settings is behind the feature `kafka`. A worker without it refuses to start when
//! brokers are set.

#[cfg(feature = "kafka")]
mod claim_requests;
#[cfg(feature = "kafka")]
mod cluster;
#[cfg(feature = "kafka")]
mod consumer;
#[cfg(feature = "kafka")]
mod dead_letters;
#[cfg(feature = "kafka")]
mod ranking;
mod settings;
#[cfg(feature = "kafka")]
mod sink;
#[cfg(feature = "kafka")]
mod topics;

#[cfg(feature = "kafka")]
pub use claim_requests::{CLAIM_REQUESTS, ClaimRequestConsumer, ClaimRequestHandler};
#[cfg(feature = "kafka")]
pub use cluster::Cluster;
#[cfg(feature = "kafka")]
pub use consumer::{Consumer, Handler, Record};
#[cfg(feature = "kafka")]
pub use ranking::{RankingConsumer, RankingHandler};
pub use settings::{KafkaSettings, RankingSource, SaslMechanism, SecurityProtocol};
#[cfg(feature = "kafka")]
pub use sink::{ACK_TIMEOUT, KAFKA, KafkaSink};
#[cfg(feature = "kafka")]
pub use topics::{Topic, list_topics};
