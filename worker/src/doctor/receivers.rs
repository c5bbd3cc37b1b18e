use dibs_common::integrations::webhooks::WebhookEndpoint;

use super::{Finding, Status};
use crate::settings::WorkerSettings;

/// The receivers of webhooks, and Kafka.
pub async fn check(settings: &WorkerSettings) -> Vec<Finding> {
    let mut findings = Vec::new();
    // Settings were checked before.
    let webhooks = settings.webhooks.webhooks().unwrap_or_default();
    for (name, endpoint) in [("data platform", webhooks.data_platform), ("notifications", webhooks.notifications)] {
        if let Some(endpoint) = endpoint {
            findings.push(webhook(name, &endpoint).await);
        }
    }
    #[cfg(feature = "kafka")]
    findings.extend(kafka::check(settings).await);
    findings
}

async fn webhook(name: &str, endpoint: &WebhookEndpoint) -> Finding {
    let answer = endpoint.probe().await;
    let found = match &answer {
        Ok(status) => format!("{} answers HEAD with {status}", endpoint.described()),
        Err(why) => format!("{}: {why}", endpoint.described()),
    };
    // Any other status says that something answers. The URL may take nothing but messages.
    let is_up = matches!(answer, Ok(status) if !matches!(status, 502..=504));
    Finding::new(format!("webhook {name}"), found, "the receiver answers").unless(
        is_up,
        Status::Error,
        "correct the URL, or let the receiver answer; see docs/operations.md#events-are-not-delivered",
    )
}

#[cfg(feature = "kafka")]
mod kafka {
    use super::{Finding, Status, WorkerSettings};
    use crate::{
        doctor::unavailable,
        kafka::{Cluster, Topic, list_topics},
    };

    /// A message on fewer brokers is lost with the one that holds it.
    const MIN_REPLICAS: usize = 2;

    pub async fn check(settings: &WorkerSettings) -> Option<Finding> {
        let cluster = Cluster::of(&settings.kafka)?;
        let (brokers, topics) = match list_topics(&cluster).await {
            Ok(listed) => listed,
            Err(error) => return Some(unavailable("kafka", &error, "see docs/failure-modes.md#kafka-is-unreachable")),
        };
        let missing: Vec<&str> =
            topics.iter().filter(|topic| topic.replicas.is_none()).map(|topic| &*topic.name).collect();
        let few: Vec<String> = topics.iter().filter_map(too_few).collect();
        let join = |names: &[String]| if names.is_empty() { "none".into() } else { names.join(", ") };
        let missing: Vec<String> = missing.into_iter().map(Into::into).collect();
        let found = format!("{brokers} brokers; missing topics: {}; few replicas: {}", join(&missing), join(&few));
        let expected = format!("every topic exists, with at least {MIN_REPLICAS} replicas");
        let finding = Finding::new("kafka", found, expected);
        let finding = finding.unless(missing.is_empty(), Status::Error, "create the topics (kafka-topics.sh --create)");
        Some(finding.unless(few.is_empty(), Status::Warning, "add replicas (kafka-reassign-partitions.sh)"))
    }

    fn too_few(topic: &Topic) -> Option<String> {
        let replicas = topic.replicas.filter(|replicas| *replicas < MIN_REPLICAS)?;
        Some(format!("{} ({replicas})", topic.name))
    }
}
