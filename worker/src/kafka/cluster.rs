use rdkafka::ClientConfig;
use secrecy::{ExposeSecret as _, SecretString};

use super::KafkaSettings;

/// The brokers, and the names of topics and consumer groups.
#[derive(Clone)]
pub struct Cluster {
    client: ClientConfig,
    prefix: String,
}

impl Cluster {
    /// The cluster that the settings name; none when they name no brokers. It is not connected to yet.
    pub fn of(settings: &KafkaSettings) -> Option<Self> {
        if !settings.is_set() {
            return None;
        }
        let mut client = ClientConfig::new();
        client
            .set("bootstrap.servers", settings.kafka_brokers.trim())
            .set("client.id", "dibs-worker")
            .set("security.protocol", settings.kafka_security_protocol.into_str())
            // Below the default of 10 s: after an outage of the brokers, events wait no longer than that.
            .set("reconnect.backoff.max.ms", "2000")
            // A topic that is created later is found within this time.
            .set("topic.metadata.refresh.interval.ms", "10000");
        if settings.kafka_security_protocol.has_user() {
            client.set("sasl.mechanism", settings.kafka_sasl_mechanism.into_str());
            client.set("sasl.username", settings.user().unwrap_or_default());
            let password = settings.password().map(SecretString::expose_secret);
            client.set("sasl.password", password.unwrap_or_default());
        }
        if let Some(file) = settings.certificates() {
            client.set("ssl.ca.location", file.to_string_lossy());
        }
        Some(Self { client, prefix: settings.kafka_topic_prefix.clone() })
    }

    pub(super) fn client(&self) -> ClientConfig {
        self.client.clone()
    }

    pub fn topic(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    pub fn group(&self, name: &str) -> String {
        format!("{}dibs-{name}", self.prefix)
    }
}
