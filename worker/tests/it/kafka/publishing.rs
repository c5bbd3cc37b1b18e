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
    let (brokers, (environment, products)) = (Brokers::new().await, shop(3).await);
    register(&environment).await;
    let campaign = environment.campaign(10).await;
    let claims = accept(&environment, &campaign, 1..=10).await;
    work(&environment).await;
    for round in 0..10 {
        let order = buy(&environment, products[round % 3], 2, clock::now()).await;
        if round % 2 == 0 {
            cancel(&environment, order, clock::now()).await;
        }
    }
    send_all(&environment, brokers.sink()).await;
    let found = brokers.published();
    expect_all_in_order(&found, &expected_ids(&environment).await);
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
    environment.end().await;
}

/// I10: brokers that refuse, and even what ends a producer for good, lead to nothing lost and nothing out of order.
#[tokio::test]
async fn i10_messages_that_brokers_fail_are_sent_again_in_order() {
    let (brokers, (environment, products)) = (Brokers::mock(), shop(1).await);
    register(&environment).await;
    let sink = brokers.sink();
    for error in [
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED,
    ] {
        for _ in 0..5 {
            buy(&environment, products[0], 1, clock::now()).await;
        }
        brokers.failing().request_errors(RDKafkaApiKey::Produce, &[error, error]);
        number_all(&environment).await;
        let mut relay = Relay::new(&environment.database, sink.clone());
        let step = async |relay: &mut Relay<KafkaSink>| relay.step(clock::now()).await;
        let mut failures = 0;
        while !matches!(step(&mut relay).await, Ok(StepOutcome::UpToDate)) {
            failures += 1;
            assert!(failures < 50, "not delivered in spite of {error:?}");
        }
        relay.release_lease().await;
    }
    expect_all_in_order(&brokers.published(), &expected_ids(&environment).await);
    environment.end().await;
}

/// A message that brokers never take is a dead letter, and those behind it are sent, each in its order.
#[tokio::test]
async fn a_message_that_brokers_never_take_is_a_dead_letter_and_holds_nothing_up() {
    let (brokers, (environment, products)) = (Brokers::mock(), shop(1).await);
    register(&environment).await;
    let mut relay = Relay::new(&environment.database, brokers.sink());
    let errors =
        [RDKafkaRespErr::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE, RDKafkaRespErr::RD_KAFKA_RESP_ERR_INVALID_RECORD];
    for (round, error) in errors.into_iter().enumerate() {
        for _ in 0..3 {
            buy(&environment, products[0], 1, clock::now()).await;
        }
        number_all(&environment).await;
        // Many that were sent together are refused as one, then the first of them that is sent alone.
        brokers.failing().request_errors(RDKafkaApiKey::Produce, &[error]);
        let _some_are_refused = relay.step(clock::now()).await;
        brokers.failing().clear_request_errors(RDKafkaApiKey::Produce);
        brokers.failing().request_errors(RDKafkaApiKey::Produce, &[error]);
        while relay.step(clock::now()).await.expect("goes on") != StepOutcome::UpToDate {}
        let letters = letters(&environment).await;
        assert_eq!(letters.len(), round + 1, "{letters:?}");
        assert!(letters.iter().all(|(source, _, _)| source == KAFKA), "{letters:?}");
    }
    let mut expected = expected_ids(&environment).await;
    for (_, key, _) in letters(&environment).await {
        assert!(expected.remove(&key), "{key}");
    }
    expect_all_in_order(&brokers.published(), &expected);
    relay.release_lease().await;
    environment.end().await;
}

/// Brokers away: orders go on, so do other sinks, nothing is marked; afterwards all is delivered.
#[tokio::test]
async fn i10_unreachable_brokers_hold_up_nothing_else_and_get_all_afterwards() {
    let (brokers, (environment, products)) = (Brokers::mock(), shop(2).await);
    register(&environment).await;
    buy(&environment, products[0], 1, clock::now()).await;
    send_all(&environment, brokers.sink()).await;
    let delivered = "SELECT delivered_through FROM sinks WHERE name = 'kafka'";
    let before = environment.count(delivered).await;
    brokers.failing().broker_down(-1).expect("down");
    let mut relay = Relay::new(&environment.database, KafkaSink::new(&brokers.cluster(), IMPATIENT));
    for _ in 0..5 {
        buy(&environment, products[1], 2, clock::now()).await;
        number_all(&environment).await;
        let failed = relay.step(clock::now()).await.expect_err("no broker acknowledges");
        assert!(failed.chain().contains("acknowledged"), "{}", failed.chain());
    }
    assert_eq!(environment.count(delivered).await, before, "what is not acknowledged is not marked");
    deliver_all(&environment).await;
    expect_scores_of_orders(&environment, "the ranking went on").await;
    brokers.failing().broker_up(-1).expect("up");
    relay.release_lease().await;
    // As patient as a worker is: on a busy machine a new producer may take longer to find its brokers.
    let mut relay = Relay::new(&environment.database, brokers.sink());
    let deadline = tokio::time::Instant::now() + LIMIT;
    while environment.count(delivered).await < environment.count("SELECT last_sequence FROM outbox_sequence").await {
        assert!(tokio::time::Instant::now() < deadline, "not delivered when brokers were back");
        let _still_away = relay.step(clock::now()).await;
    }
    expect_all_in_order(&brokers.published(), &expected_ids(&environment).await);
    relay.release_lease().await;
    environment.end().await;
}
