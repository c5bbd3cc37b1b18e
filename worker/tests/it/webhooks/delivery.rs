//! Messages arrive in order, and one that fails holds up its ordering key alone.

use dibs_common::{
    db, domain::dead_letter::DeadLetterStatus, identifiers::random_below, integrations::messages::Receiver,
    testing::TestEnvironment,
};
use dibs_worker::{
    relay::{Relay, StepOutcome},
    webhooks::Limits,
};

use super::{KINDS, Line, behind, letters, orders, progress::die, queued, sink, write};
use crate::receiver::OK;

/// The data platform receives every event of each order, in order, signed, and nothing else.
#[tokio::test]
async fn i10_the_data_platform_receives_each_event_of_an_order_in_order() {
    let (environment, mut line) = Line::start(Receiver::DataPlatform).await;
    write(&environment, "POINTS", "7", "points.charged", "{}").await;
    orders(&environment, &["a", "b"]).await;
    assert_eq!(line.after_seconds(1).await, StepOutcome::UpToDate);
    let arrivals = line.receiver.arrivals();
    assert!(arrivals.len() == 6 && arrivals.iter().all(|arrival| arrival.is_signed), "{arrivals:?}");
    let kinds = |id: &str| {
        let of_order = arrivals.iter().filter(|arrival| arrival.text("aggregateId") == id);
        of_order.map(|arrival| arrival.text("type")).collect::<Vec<_>>()
    };
    assert_eq!((kinds("a"), kinds("b")), (KINDS.map(String::from).to_vec(), KINDS.map(String::from).to_vec()));
    assert_eq!(arrivals[0].message["data"]["orderId"], arrivals[0].text("aggregateId"));
    assert_eq!(arrivals[0].text("id"), arrivals[0].id);
    assert_eq!(behind(&environment, "data-platform").await, 0);
    line.end(environment).await;
}

#[tokio::test]
async fn i10_each_recipient_of_a_coupon_is_notified() {
    let (environment, mut line) = Line::start(Receiver::Notifications).await;
    let issuance = |user: u32| format!(r#"{{"userCouponId": "c{user}", "userId": {user}, "validUntil": null}}"#);
    let issuances: Vec<String> = (1..=100).map(issuance).collect();
    let payload = format!(r#"{{"couponId": 3, "issuedAt": null, "issuances": [{}]}}"#, issuances.join(","));
    write(&environment, "COUPON", "3", "coupon.issued", &payload).await;
    write(&environment, "COUPON", "3", "coupon.expired", "{}").await;
    db::outbox::sequence_events(&environment.database).await.expect("numbered");
    line.receiver.will(|arrival| if arrival.id == "event-1-7" && arrival.attempt == 1 { (500, "", None) } else { OK });
    line.after_seconds(1).await;
    assert_eq!((line.receiver.taken().len(), queued(&environment).await), (99, 1), "one that fails holds up no other");
    line.after_seconds(5).await;
    assert_eq!((line.receiver.taken().len(), queued(&environment).await), (100, 0));
    let arrivals = line.receiver.arrivals();
    let again = arrivals.last().expect("an arrival");
    assert_eq!((&*again.id, again.message["data"]["userId"].as_u64(), again.attempt), ("event-1-7", Some(8), 2));
    line.end(environment).await;
}

/// The order whose first event fails waits, all others go on; each comes again with its own id.
#[tokio::test]
async fn i10_an_order_waits_for_its_first_event_and_the_others_do_not() {
    let (environment, mut line) = Line::start(Receiver::DataPlatform).await;
    line.receiver.will(|arrival| {
        let fails = arrival.text("aggregateId") == "a" && arrival.text("type") == "order.created";
        if fails && arrival.attempt < 3 { (500, "not now", None) } else { OK }
    });
    orders(&environment, &["a", "b", "c"]).await;
    line.after_seconds(1).await;
    assert_eq!((line.receiver.taken().len(), behind(&environment, "data-platform").await), (6, 0));
    assert_eq!(queued(&environment).await, 3);
    write(&environment, "ORDER", "a", "order.cancelled", "{}").await;
    db::outbox::sequence_events(&environment.database).await.expect("numbered");
    line.after_seconds(1).await;
    assert_eq!(queued(&environment).await, 4, "what comes later waits, too");
    assert_eq!(environment.texts("SELECT last_response FROM webhook_retry_queue WHERE attempts > 0").await.len(), 1);
    line.for_minutes(1).await;
    assert_eq!((queued(&environment).await, line.receiver.taken().len()), (0, 10));
    assert_eq!(line.receiver.taken_by_aggregate()["a"], [1, 4, 7, 10]);
    let of_first: Vec<_> = line.receiver.arrivals().into_iter().filter(|arrival| arrival.id == "event-1-0").collect();
    assert_eq!(of_first.iter().map(|arrival| arrival.answered).collect::<Vec<_>>(), [500, 500, 200]);
    assert!(of_first.iter().all(|arrival| arrival.is_signed));
    line.end(environment).await;
}

/// Whatever the receiver answers, and whichever worker dies: in the end every order is delivered, in order.
#[tokio::test]
async fn i10_every_order_is_delivered_in_order_whatever_happens() {
    let environment = TestEnvironment::new().await;
    let limits = Limits { retry_queue_size: 20, batch_size: 10, max_concurrency: 4, failure_threshold: 4 };
    let mut line = Line::with(&environment, Receiver::DataPlatform, limits).await;
    let ids: Vec<String> = (0..12).map(|number| format!("o{number}")).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let mut trace = String::new();
    for _ in 0..60 {
        let choice = random_below(12);
        trace = format!("{trace}{choice} ");
        match choice {
            0..3 => orders(&environment, &ids[usize::from(random_below(12))..]).await,
            3 => line.receiver.will(|_| (503, "", None)),
            4 => line.receiver.will(|_| if random_below(2) == 0 { (500, "", None) } else { OK }),
            5 => line.receiver.will(|_| OK),
            6 => {
                line.relay.release_lease().await;
                die(&environment, &line.receiver, line.now).await;
            }
            7 => {
                line.relay.release_lease().await;
                let mut sink = sink(&environment, Receiver::DataPlatform, &line.receiver);
                sink.limits = limits;
                line.relay = Relay::new(&environment.database, sink);
            }
            _ => {
                line.after_seconds(i64::from(random_below(30))).await;
            }
        }
    }
    line.receiver.will(|_| OK);
    orders(&environment, &["last"]).await;
    line.for_minutes(13).await;
    assert_eq!((queued(&environment).await, behind(&environment, "data-platform").await), (0, 0), "{trace}");
    assert_eq!(letters(&environment, DeadLetterStatus::Dead).await, []);
    let delivered = line.receiver.taken_by_aggregate();
    for (id, sequences) in &delivered {
        assert!(sequences.is_sorted(), "{id}: {sequences:?} {trace}");
    }
    let all = environment.count("SELECT COUNT(*) FROM outbox_events").await;
    assert_eq!(i64::try_from(delivered.values().map(Vec::len).sum::<usize>()).expect("few"), all, "{trace}");
    line.end(environment).await;
}
