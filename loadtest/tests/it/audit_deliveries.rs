//! The audit of deliveries: it finds every planted fault, by the tables and by the records of the receivers.

use std::net::SocketAddr;

use dibs_common::{
    clock, db,
    integrations::{
        messages::Receiver as Recipient,
        webhooks::{WebhookEndpoint, WebhookSecrets},
    },
    testing::TestEnvironment,
};
use dibs_loadtest::{
    audit::{Evidence, audit_shop},
    receiver::{Faults, Receiver},
    record::Deliveries,
};
use dibs_worker::{
    relay::{Relay, StepOutcome},
    webhooks::WebhookSink,
};
use tokio_util::sync::CancellationToken;

use crate::{
    audit_campaign::{broken, stores},
    audit_shop::SETTINGS,
};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// A message in the retry queue.
const RETRY_QUEUED: &str = "INSERT INTO webhook_retry_queue (sink, sequence, place, ordering_key, kind, aggregate_id, payload, attempts, \
                      next_attempt_at) VALUES ('notifications', 1, 0, 'x', 'coupon.issued', '3', '{}', 1, NOW(3))";

fn secrets() -> WebhookSecrets {
    WebhookSecrets::parse(&SECRET.into()).expect("a secret")
}

async fn receiver(record: Option<&std::path::Path>) -> Receiver {
    let anywhere = SocketAddr::from(([127, 0, 0, 1], 0));
    Receiver::start(anywhere, secrets(), Faults::default(), record).await.expect("a receiver")
}

/// Delivers three events of coupons, each of two issuances.
async fn deliver(environment: &TestEnvironment, receiver: &Receiver) {
    let name = Recipient::Notifications.name();
    for recipient in Recipient::ALL {
        db::outbox::register_sink(&environment.database.pool(), recipient.name(), clock::now())
            .await
            .expect("registered");
    }
    let issuance = |user: u32| format!(r#"{{"userCouponId": "c{user}", "userId": {user}, "validUntil": null}}"#);
    let payload = format!(r#"{{"couponId": 3, "issuedAt": null, "issuances": [{}, {}]}}"#, issuance(1), issuance(2));
    for _ in 0..3 {
        environment
            .execute(&format!(
                "INSERT INTO outbox_events (aggregate_type, aggregate_id, type, payload, created_at) \
                 VALUES ('COUPON', '3', 'coupon.issued', '{payload}', NOW(3))"
            ))
            .await;
    }
    db::outbox::sequence_events(&environment.database).await.expect("numbered");
    let endpoint = WebhookEndpoint::at("NOTIFICATION_URL", &receiver.url(name).into(), secrets()).expect("a URL");
    let sink = WebhookSink::new(Recipient::Notifications, endpoint, &environment.database, CancellationToken::new());
    let mut relay = Relay::new(&environment.database, sink);
    while relay.step(clock::now()).await.expect("delivered") == StepOutcome::Delivered {}
    relay.release_lease().await;
    // None of the events is for the other sink.
    environment.execute("UPDATE sinks SET delivered_through = 3").await;
}

async fn found(environment: &TestEnvironment, deliveries: Option<&Deliveries>) -> Vec<&'static str> {
    let evidence = Evidence { client: None, deliveries };
    let mut broken = broken(&audit_shop(&stores(environment), SETTINGS, evidence).await.expect("an audit"));
    // No ranking runs here, so the sales of I9 are not counted.
    broken.retain(|invariant| *invariant != "I9");
    broken
}

#[tokio::test]
async fn i10_every_missing_delivery_is_found() {
    let environment = TestEnvironment::new().await;
    let receiver = receiver(None).await;
    deliver(&environment, &receiver).await;
    let deliveries = receiver.deliveries();
    let sink = &deliveries.sinks["notifications"];
    assert_eq!((sink.attempts, sink.faults.count(), sink.accepted().count()), (6, 0, 6));
    assert_eq!(found(&environment, Some(&deliveries)).await, Vec::<&str>::new());
    assert_eq!(found(&environment, Some(&Deliveries::default())).await, ["I10"], "nothing was recorded");
    let recorded_after = |sequence| Deliveries { recorded_after: sequence, ..Deliveries::default() };
    assert_eq!(found(&environment, Some(&recorded_after(2))).await, ["I10"], "the third event is missing");
    assert_eq!(found(&environment, Some(&recorded_after(3))).await, Vec::<&str>::new(), "the receiver started later");
    let later = Deliveries { recorded_after: 3, ..deliveries.clone() };
    assert_eq!(found(&environment, Some(&later)).await, Vec::<&str>::new(), "earlier events were delivered, too");
    let letter = |key: &str, status: &str, reason: &str| {
        format!(
            "INSERT INTO dead_letters (source, source_key, kind, payload, payload_bytes, redrivable, reason, attempts, \
             status, dead_lettered_at) VALUES ('notifications', '{key}', 'coupon.issued', '', 0, TRUE, '{reason}', 1, \
             '{status}', NOW(3))"
        )
    };
    for (planted, undone) in [
        ("UPDATE sinks SET delivered_through = 2", "UPDATE sinks SET delivered_through = 3"),
        (
            "INSERT INTO outbox_events (aggregate_type, aggregate_id, type, payload, created_at) \
             VALUES ('COUPON', '3', 'coupon.expired', '{}', NOW(3))",
            "DELETE FROM outbox_events WHERE sequence IS NULL",
        ),
        (RETRY_QUEUED, "DELETE FROM webhook_retry_queue"),
        (&letter("event-1-0", "DEAD", "no answer in time"), "DELETE FROM dead_letters"),
        (&letter("event-1-0", "REDRIVE", "it answered 422 Unprocessable Entity"), "DELETE FROM dead_letters"),
        (
            "UPDATE sinks SET name = 'another' WHERE name = 'data-platform'",
            "UPDATE sinks SET name = 'data-platform' WHERE name = 'another'",
        ),
        // The receiver has a message of an event that does not exist.
        (
            "UPDATE outbox_events SET type = 'coupon.expired' WHERE sequence = 2",
            "UPDATE outbox_events SET type = 'coupon.issued'",
        ),
    ] {
        environment.execute(planted).await;
        assert_eq!(found(&environment, Some(&deliveries)).await, ["I10"], "{planted}");
        environment.execute(undone).await;
    }
    environment.execute("UPDATE sinks SET delivered_through = 1, updated_at = NOW(3) - INTERVAL 8 DAY").await;
    environment.execute(RETRY_QUEUED).await;
    environment.execute(&letter("event-1-0", "DEAD", "it answered 422 Unprocessable Entity: no")).await;
    assert_eq!(
        found(&environment, None).await,
        Vec::<&str>::new(),
        "an abandoned sink, and a permanently rejected message"
    );
    environment.end().await;
}

#[tokio::test]
async fn a_record_has_every_attempt_and_those_with_a_wrong_signature() {
    let environment = TestEnvironment::new().await;
    let path = std::env::temp_dir().join(format!("dibs-record-{}", dibs_common::identifiers::new_uuid()));
    let receiver = receiver(Some(&path)).await;
    deliver(&environment, &receiver).await;
    let recorded = Deliveries::read(&path).expect("a record");
    assert_eq!(found(&environment, Some(&recorded)).await, Vec::<&str>::new());
    drop(receiver);
    // It was killed while it wrote; the next receiver continues the record.
    let whole = std::fs::read(&path).expect("a record");
    std::fs::write(&path, [&whole[..], b"{\"sink\": \"notif"].concat()).expect("written");
    let receiver = self::receiver(Some(&path)).await;
    assert_eq!(std::fs::read(&path).expect("a record"), whole);
    let other = WebhookSecrets::parse(&format!("whsec_{}", "7".repeat(32)).into()).expect("a secret");
    let url = receiver.url("notifications").into();
    let other_sender = WebhookEndpoint::at("NOTIFICATION_URL", &url, other).expect("a URL");
    let answer = other_sender.send("event-1-0", bytes::Bytes::from_static(b"{}"), None).await;
    let dibs_common::integrations::webhooks::Delivery::Failed(failure) = answer else { panic!("{answer:?}") };
    let reason = failure.reason;
    assert_eq!(reason, "it answered 401 Unauthorized");
    let recorded = Deliveries::read(&path).expect("a record");
    assert_eq!(found(&environment, Some(&recorded)).await, ["I10"], "a wrong signature");
    std::fs::remove_file(path).expect("removed");
    environment.end().await;
}
