use super::*;
use crate::doctor::{diagnose, finding};

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_names_topics_that_are_missing_or_have_one_replica() {
    let environment = TestEnvironment::new().await;
    let brokers = Brokers::mock();
    let address = brokers.settings.kafka_brokers.clone();
    let (_, report) = diagnose(&environment, &[("KAFKA_BROKERS", &address)]).await;
    let kafka = finding(&report, "kafka");
    assert_eq!(kafka["status"], "WARNING", "{kafka}");
    assert!(kafka["found"].as_str().expect("text").contains("few replicas: order.created (1)"), "{kafka}");
    let elsewhere = [("KAFKA_BROKERS", &*address), ("KAFKA_TOPIC_PREFIX", "other.")];
    let (code, report) = diagnose(&environment, &elsewhere).await;
    let kafka = finding(&report, "kafka");
    assert_eq!((code, &kafka["status"]), (Some(2), &json!("ERROR")), "{kafka}");
    assert!(kafka["found"].as_str().expect("text").contains("missing topics: other.order.created"), "{kafka}");
    let (_, report) = diagnose(&environment, &[("KAFKA_BROKERS", "127.0.0.1:9")]).await;
    assert_eq!(finding(&report, "kafka")["status"], "ERROR", "no broker answers");
    environment.end().await;
}
