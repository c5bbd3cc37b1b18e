//! Events to Kafka.

use std::collections::BTreeSet;

use dibs_common::{clock, identifiers::ClaimId};
use dibs_worker::{
    kafka::{KAFKA, KafkaSink},
    relay::{Relay, StepOutcome},
};
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

use super::{
    Brokers, Found, IMPATIENT, LIMIT, expect_all_in_order, expected_ids, letters, number_all, register, send_all,
};
use crate::{
    ranking::{buy, cancel, deliver_all, expect_scores_of_orders, shop},
    support::{accept, work},
};

/// I10: each event is a message at least, those of an order in their order, and nothing else is published.
#[tokio::test]
async fn i10_every_event_is_published_to_kafka_in_order_for_each_key() {
    let (brokers, (place, products)) = (Brokers::new().await, shop(3).await);
    register(&place).await;
    let campaign = place.campaign(10).await;
    let claims = accept(&place, &campaign, 1..=10).await;
    work(&place).await;
    for round in 0..10 {
        let order = buy(&place, products[round % 3], 2, clock::now()).await;
        if round % 2 == 0 {
            cancel(&place, order, clock::now()).await;
        }
    }
    send_all(&place, brokers.sink()).await;
    let found = brokers.published();
    expect_all_in_order(&found, &expected_ids(&place).await);
    assert_eq!(found.len(), 10 + 10 + 10 + 5, "issued, created, paid, cancelled, each once");
    let issued: BTreeSet<String> = found
        .iter()
        .filter(|message| message.topic.ends_with("coupon.issued"))
        .map(|message| message.value["data"]["userCouponId"].as_str().expect("an id").to_owned())
        .collect();
    assert_eq!(issued, claims.iter().map(ClaimId::to_string).collect());
    for Found { topic, key, value, headers, .. } in &found {
        assert_eq!(key, value["aggregateId"].as_str().expect("an id"));
        assert_eq!(headers["id"], value["id"]);
        assert_eq!(headers["type"], value["type"]);
        assert!(topic.ends_with(&headers["type"]), "{topic}");
    }
    place.end().await;
}

/// I10: brokers that refuse, and even what ends a producer for good, lead to nothing lost and nothing out of order.
#[tokio::test]
async fn i10_messages_that_brokers_fail_are_sent_again_in_order() {
    let (brokers, (place, products)) = (Brokers::mock(), shop(1).await);
    register(&place).await;
    let sink = brokers.sink();
    for error in [
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED,
    ] {
        for _ in 0..5 {
            buy(&place, products[0], 1, clock::now()).await;
        }
        brokers.failing().request_errors(RDKafkaApiKey::Produce, &[error, error]);
        number_all(&place).await;
        let mut relay = Relay::new(&place.database, sink.clone());
        let step = async |relay: &mut Relay<KafkaSink>| relay.step(clock::now()).await;
        let mut failures = 0;
        while !matches!(step(&mut relay).await, Ok(StepOutcome::UpToDate)) {
            failures += 1;
            assert!(failures < 50, "not delivered in spite of {error:?}");
        }
        relay.release_lease().await;
    }
    expect_all_in_order(&brokers.published(), &expected_ids(&place).await);
    place.end().await;
}

/// A message that brokers never take is a dead letter, and those behind it are sent, each in its order.
#[tokio::test]
async fn a_message_that_brokers_never_take_is_a_dead_letter_and_holds_nothing_up() {
    let (brokers, (place, products)) = (Brokers::mock(), shop(1).await);
    register(&place).await;
    let mut relay = Relay::new(&place.database, brokers.sink());
    let errors =
        [RDKafkaRespErr::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE, RDKafkaRespErr::RD_KAFKA_RESP_ERR_INVALID_RECORD];
    for (round, error) in errors.into_iter().enumerate() {
        for _ in 0..3 {
            buy(&place, products[0], 1, clock::now()).await;
        }
        number_all(&place).await;
        // Many that were sent together are refused as one, then the first of them that is sent alone.
        brokers.failing().request_errors(RDKafkaApiKey::Produce, &[error]);
        let _some_are_refused = relay.step(clock::now()).await;
        brokers.failing().clear_request_errors(RDKafkaApiKey::Produce);
        brokers.failing().request_errors(RDKafkaApiKey::Produce, &[error]);
        while relay.step(clock::now()).await.expect("goes on") != StepOutcome::UpToDate {}
        let letters = letters(&place).await;
        assert_eq!(letters.len(), round + 1, "{letters:?}");
        assert!(letters.iter().all(|(source, _, _)| source == KAFKA), "{letters:?}");
    }
    let mut expected = expected_ids(&place).await;
    for (_, key, _) in letters(&place).await {
        assert!(expected.remove(&key), "{key}");
    }
    expect_all_in_order(&brokers.published(), &expected);
    relay.release_lease().await;
    place.end().await;
}

/// Brokers away: orders go on, so do other sinks, nothing is marked; afterwards all is delivered.
#[tokio::test]
async fn i10_unreachable_brokers_hold_up_nothing_else_and_get_all_afterwards() {
    let (brokers, (place, products)) = (Brokers::mock(), shop(2).await);
    register(&place).await;
    buy(&place, products[0], 1, clock::now()).await;
    send_all(&place, brokers.sink()).await;
    let delivered = "SELECT delivered_through FROM sinks WHERE name = 'kafka'";
    let before = place.count(delivered).await;
    brokers.failing().broker_down(-1).expect("down");
    let mut relay = Relay::new(&place.database, KafkaSink::new(&brokers.cluster(), IMPATIENT));
    for _ in 0..5 {
        buy(&place, products[1], 2, clock::now()).await;
        number_all(&place).await;
        let failed = relay.step(clock::now()).await.expect_err("no broker acknowledges");
        assert!(failed.chain().contains("acknowledged"), "{}", failed.chain());
    }
    assert_eq!(place.count(delivered).await, before, "what is not acknowledged is not marked");
    deliver_all(&place).await;
    expect_scores_of_orders(&place, "the ranking went on").await;
    brokers.failing().broker_up(-1).expect("up");
    relay.release_lease().await;
    // As patient as a worker is: on a busy machine a new producer may take longer to find its brokers.
    let mut relay = Relay::new(&place.database, brokers.sink());
    let deadline = tokio::time::Instant::now() + LIMIT;
    while place.count(delivered).await < place.count("SELECT last_sequence FROM outbox_sequence").await {
        assert!(tokio::time::Instant::now() < deadline, "not delivered when brokers were back");
        let _still_away = relay.step(clock::now()).await;
    }
    expect_all_in_order(&brokers.published(), &expected_ids(&place).await);
    relay.release_lease().await;
    place.end().await;
}
