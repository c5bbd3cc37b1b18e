//! Receivers that are unreachable, and come back.

use chrono::TimeDelta;
use dibs_common::{
    clock, db,
    domain::{dead_letter::DeadLetterStatus, ranking::business_day},
    integrations::messages::Receiver,
    redis::sales,
    testing::TestEnvironment,
};
use dibs_worker::{
    relay::{Relay, StepOutcome},
    webhooks::Limits,
};

use super::{Line, behind, issue, letters, orders, queued, sink, write};
use crate::{
    ranking::{ZONE, buy, deliver_all, shop},
    receiver::{OK, endpoint},
};

/// An unreachable receiver says nothing about a message: the retry queue is tried again when the circuit closes.
#[tokio::test]
async fn i10_nothing_is_dead_lettered_while_the_circuit_is_open() {
    let environment = TestEnvironment::new().await;
    for (failure_threshold, retry_queue_size, waiting) in [(8, 1_000, 13), (8, 4, 16), (100, 1_000, 0)] {
        environment.execute("DELETE FROM sinks").await;
        let limits = Limits { failure_threshold, retry_queue_size, ..Limits::default() };
        let mut line = Line::with(&environment, Receiver::DataPlatform, limits).await;
        let mut unreachable = sink(&environment, Receiver::DataPlatform, &line.receiver);
        (unreachable.limits, unreachable.endpoint) = (limits, endpoint("http://127.0.0.1:1/"));
        line.relay = Relay::new(&environment.database, unreachable.clone());
        for number in 0..20 {
            write(&environment, "ORDER", &format!("o{number}"), "order.created", "{}").await;
            db::outbox::sequence_events(&environment.database).await.expect("numbered");
            line.after_seconds(60).await;
        }
        for hour in 0..48 {
            if hour == 40 {
                // Another process, which has not seen the receiver yet.
                line.relay.release_lease().await;
                line.relay = Relay::new(&environment.database, unreachable.clone());
            }
            line.after(TimeDelta::hours(1)).await;
        }
        assert_eq!((behind(&environment, "data-platform").await, queued(&environment).await), (waiting, 20 - waiting));
        line.relay.release_lease().await;
        let mut back = unreachable.clone();
        back.endpoint = line.receiver.endpoint();
        line.relay = Relay::new(&environment.database, back);
        line.for_minutes(16).await;
        assert_eq!((line.receiver.taken().len(), queued(&environment).await), (20, 0));
        assert_eq!(letters(&environment, DeadLetterStatus::Dead).await, []);
        line.relay.release_lease().await;
    }
    environment.end().await;
}

/// One message at a time probes an unreachable receiver; when the circuit closes, it gets all.
#[tokio::test]
async fn i10_a_receiver_that_is_unreachable_for_a_while_gets_everything() {
    let (environment, mut line) = Line::start(Receiver::DataPlatform).await;
    line.receiver.will(|_| (503, "", None));
    let ids: Vec<String> = (0..100).map(|number| format!("o{number}")).collect();
    orders(&environment, &ids.iter().map(String::as_str).collect::<Vec<_>>()).await;
    assert_eq!(line.after_seconds(1).await, StepOutcome::Blocked);
    let first = line.receiver.arrivals().len();
    assert!(first <= 40, "{first}");
    line.for_minutes(10).await;
    let looks = line.receiver.arrivals().len() - first;
    assert!((10..=40).contains(&looks), "{looks} looks in ten minutes");
    assert_eq!(
        (behind(&environment, "data-platform").await, queued(&environment).await),
        (300, 0),
        "the outbox keeps it"
    );
    line.recover_and_end(environment, 2, 100).await;
}

/// Any response closes the circuit: what fails now is this message alone.
#[tokio::test]
async fn a_response_of_500_closes_the_circuit() {
    let (environment, mut line) = Line::start(Receiver::Notifications).await;
    line.receiver.will(|_| (504, "", None));
    issue(&environment, "3", 20).await;
    line.for_minutes(1).await;
    assert_eq!((behind(&environment, "notifications").await, queued(&environment).await), (1, 0));
    line.receiver.will(|_| (500, "", None));
    line.for_minutes(1).await;
    assert_eq!((behind(&environment, "notifications").await, queued(&environment).await), (0, 20));
    line.end(environment).await;
}

#[tokio::test]
async fn retry_after_is_respected() {
    let (environment, mut line) = Line::start(Receiver::DataPlatform).await;
    line.receiver.will(|arrival| if arrival.attempt == 1 { (429, "", Some("120")) } else { OK });
    write(&environment, "ORDER", "a", "order.created", "{}").await;
    db::outbox::sequence_events(&environment.database).await.expect("numbered");
    line.after_seconds(1).await;
    line.after_seconds(118).await;
    assert_eq!(line.receiver.arrivals().len(), 1);
    line.after_seconds(3).await;
    assert_eq!(line.receiver.taken().len(), 1);
    line.end(environment).await;
}

/// One receiver is unreachable, and the other receives its messages all the same.
#[tokio::test]
async fn i10_a_dead_receiver_holds_up_no_other_sink() {
    let (environment, mut line) = Line::start(Receiver::DataPlatform).await;
    db::outbox::register_sink(&environment.database.pool(), "notifications", clock::now()).await.expect("registered");
    let unreachable = endpoint("http://127.0.0.1:1/");
    let mut dead = sink(&environment, Receiver::Notifications, &line.receiver);
    dead.endpoint = unreachable;
    let mut dead = Relay::new(&environment.database, dead);
    let payload =
        r#"{"couponId": 3, "issuedAt": null, "issuances": [{"userCouponId": "c", "userId": 1, "validUntil": null}]}"#;
    for _ in 0..20 {
        write(&environment, "COUPON", "3", "coupon.issued", payload).await;
    }
    orders(&environment, &["a"]).await;
    assert_eq!(dead.step(clock::now()).await.expect("looked"), StepOutcome::Blocked);
    assert_eq!(line.after_seconds(1).await, StepOutcome::UpToDate);
    assert_eq!((line.receiver.taken().len(), behind(&environment, "data-platform").await), (3, 0));
    assert_eq!(behind(&environment, "notifications").await, 23);
    dead.release_lease().await;
    line.end(environment).await;
}

/// The receiver is unreachable, and orders go on, and count.
#[tokio::test]
async fn i10_a_dead_receiver_holds_up_neither_orders_nor_the_ranking() {
    let (environment, products) = shop(1).await;
    deliver_all(&environment).await;
    let line = Line::new(&environment, Receiver::DataPlatform).await;
    let mut dead = sink(&environment, Receiver::DataPlatform, &line.receiver);
    dead.endpoint = endpoint("http://127.0.0.1:1/");
    let mut dead = Relay::new(&environment.database, dead);
    buy(&environment, products[0], 5, clock::now()).await;
    db::outbox::sequence_events(&environment.database).await.expect("numbered");
    dead.step(clock::now()).await.expect("looked");
    buy(&environment, products[0], 2, clock::now()).await;
    deliver_all(&environment).await;
    assert_eq!(behind(&environment, "ranking").await, 0);
    let day = business_day(clock::now(), ZONE);
    assert_eq!(sales::daily(&environment.redis, day).await.expect("redis").get(&products[0]), Some(&7));
    assert_eq!(queued(&environment).await, 2, "the events of the first order");
    dead.release_lease().await;
    environment.end().await;
}
