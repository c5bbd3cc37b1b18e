//! Messages on their way to receivers by HTTP, whatever these answer.

use chrono::TimeDelta;
use dibs_common::{
    clock::{self, Timestamp},
    db::{self, Lease, dead_letters::DeadLettersPage},
    domain::{
        dead_letter::{DeadLetter, DeadLetterStatus},
        ranking::business_day,
    },
    error::{Error, Result},
    identifiers::random_below,
    integrations::messages::Receiver,
    redis::sales,
    testing::TestEnvironment,
};
use dibs_worker::{
    redrive_source,
    relay::{Batch, Relay, Sink, StepOutcome},
    webhooks::{Limits, RETRIED_FOR, WebhookSink},
};
use tokio_util::sync::CancellationToken;

use crate::{
    ranking::{ZONE, buy, deliver_all, shop},
    receiver::{OK, TestReceiver, endpoint},
};

const KINDS: [&str; 3] = ["order.created", "order.paid", "order.confirmed"];

async fn write(place: &TestEnvironment, (aggregate_type, id): (&str, &str), kind: &str, payload: &str) {
    place
        .execute(&format!(
            "INSERT INTO outbox_events (aggregate_type, aggregate_id, type, payload, created_at) \
             VALUES ('{aggregate_type}', '{id}', '{kind}', '{payload}', NOW(3))"
        ))
        .await;
}

/// What happens to these orders: three events each, the first of all orders first.
async fn orders(place: &TestEnvironment, ids: &[&str]) {
    for kind in KINDS {
        for id in ids {
            write(place, ("ORDER", id), kind, &format!(r#"{{"orderId": "{id}"}}"#)).await;
        }
    }
    while db::outbox::sequence_events(&place.database).await.expect("numbered") > 0 {}
}

/// A sink, its receiver, and the time, which passes as the test says.
struct Line {
    receiver: TestReceiver,
    relay: Relay<WebhookSink>,
    now: Timestamp,
}

fn sink(place: &TestEnvironment, to: Receiver, at: &TestReceiver) -> WebhookSink {
    WebhookSink::new(to, at.endpoint(), &place.database, CancellationToken::new())
}

impl Line {
    async fn new(place: &TestEnvironment, to: Receiver) -> Self {
        Self::with(place, to, Limits::default()).await
    }

    async fn with(place: &TestEnvironment, to: Receiver, limits: Limits) -> Self {
        let now = clock::now();
        db::outbox::register_sink(&place.database.pool(), to.name(), now).await.expect("registered");
        let receiver = TestReceiver::new().await;
        let mut sink = sink(place, to, &receiver);
        sink.limits = limits;
        Self { relay: Relay::new(&place.database, sink), receiver, now }
    }

    /// Lets so much time pass, and then delivers what can be delivered.
    async fn after(&mut self, pause: TimeDelta) -> StepOutcome {
        self.now += pause;
        loop {
            let step = self.relay.step(self.now).await.expect("delivered");
            if step != StepOutcome::Delivered {
                return step;
            }
        }
    }

    async fn after_seconds(&mut self, seconds: i64) -> StepOutcome {
        self.after(TimeDelta::seconds(seconds)).await
    }

    /// Delivers for so long, a look each few seconds.
    async fn for_minutes(&mut self, minutes: i64) {
        for _ in 0..minutes * 10 {
            self.after_seconds(6).await;
        }
    }
}

async fn letters(place: &TestEnvironment, status: DeadLetterStatus) -> Vec<DeadLetter> {
    let page = DeadLettersPage { status: Some(status), limit: 100, ..DeadLettersPage::default() };
    db::dead_letters::list(&place.database.pool(), &page).await.expect("letters")
}

async fn count_letters(place: &TestEnvironment, status: DeadLetterStatus) -> i64 {
    place.count(&format!("SELECT COUNT(*) FROM dead_letters WHERE status = '{}'", status.into_str())).await
}

/// Issues so many coupons of a campaign, a hundred in an event.
async fn issue(place: &TestEnvironment, coupon: &str, count: u32) {
    for first in (0..count).step_by(100) {
        let users = first..count.min(first + 100);
        let issuance = |user: u32| format!(r#"{{"userCouponId": "c{user}", "userId": {user}, "validUntil": null}}"#);
        let issuances: Vec<String> = users.map(issuance).collect();
        let issuances = issuances.join(",");
        let payload = format!(r#"{{"couponId": {coupon}, "issuedAt": null, "issuances": [{issuances}]}}"#);
        write(place, ("COUPON", coupon), "coupon.issued", &payload).await;
    }
    db::outbox::sequence_events(&place.database).await.expect("numbered");
}

async fn parked(place: &TestEnvironment) -> i64 {
    place.count("SELECT COUNT(*) FROM webhook_retry_queue").await
}

async fn behind(place: &TestEnvironment, sink: &str) -> i64 {
    let sql = "SELECT CAST(last_sequence AS SIGNED) - CAST(delivered_through AS SIGNED) FROM outbox_sequence, sinks";
    place.count(&format!("{sql} WHERE name = '{sink}'")).await
}

/// The data platform is told of each order what happened to it, in order, signed, and of nothing else.
#[tokio::test]
async fn i10_the_data_platform_is_told_each_event_of_an_order_in_order() {
    let place = TestEnvironment::new().await;
    let mut line = Line::new(&place, Receiver::DataPlatform).await;
    write(&place, ("POINTS", "7"), "points.charged", "{}").await;
    orders(&place, &["a", "b"]).await;
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
    assert_eq!(behind(&place, "data-platform").await, 0);
    line.relay.release_lease().await;
    place.end().await;
}

#[tokio::test]
async fn i10_each_recipient_of_a_coupon_is_notified() {
    let place = TestEnvironment::new().await;
    let mut line = Line::new(&place, Receiver::Notifications).await;
    let issuance = |user: u32| format!(r#"{{"userCouponId": "c{user}", "userId": {user}, "validUntil": null}}"#);
    let issuances: Vec<String> = (1..=100).map(issuance).collect();
    let payload = format!(r#"{{"couponId": 3, "issuedAt": null, "issuances": [{}]}}"#, issuances.join(","));
    write(&place, ("COUPON", "3"), "coupon.issued", &payload).await;
    write(&place, ("COUPON", "3"), "coupon.expired", "{}").await;
    db::outbox::sequence_events(&place.database).await.expect("numbered");
    line.receiver.will(|arrival| if arrival.id == "event-1-7" && arrival.attempt == 1 { (500, "", None) } else { OK });
    line.after_seconds(1).await;
    assert_eq!((line.receiver.taken().len(), parked(&place).await), (99, 1), "one failing holds up nobody");
    line.after_seconds(5).await;
    assert_eq!((line.receiver.taken().len(), parked(&place).await), (100, 0));
    let arrivals = line.receiver.arrivals();
    let again = arrivals.last().expect("an arrival");
    assert_eq!((&*again.id, again.message["data"]["userId"].as_u64(), again.attempt), ("event-1-7", Some(8), 2));
    line.relay.release_lease().await;
    place.end().await;
}

/// The order whose first event fails waits, all others go on; each comes again with its own id.
#[tokio::test]
async fn i10_an_order_waits_for_its_first_event_and_the_others_do_not() {
    let place = TestEnvironment::new().await;
    let mut line = Line::new(&place, Receiver::DataPlatform).await;
    line.receiver.will(|arrival| {
        let fails = arrival.text("aggregateId") == "a" && arrival.text("type") == "order.created";
        if fails && arrival.attempt < 3 { (500, "not now", None) } else { OK }
    });
    orders(&place, &["a", "b", "c"]).await;
    line.after_seconds(1).await;
    assert_eq!((line.receiver.taken().len(), behind(&place, "data-platform").await), (6, 0));
    assert_eq!(parked(&place).await, 3);
    write(&place, ("ORDER", "a"), "order.cancelled", "{}").await;
    db::outbox::sequence_events(&place.database).await.expect("numbered");
    line.after_seconds(1).await;
    assert_eq!(parked(&place).await, 4, "what comes later waits, too");
    assert_eq!(place.texts("SELECT last_response FROM webhook_retry_queue WHERE attempts > 0").await.len(), 1);
    line.for_minutes(1).await;
    assert_eq!((parked(&place).await, line.receiver.taken().len()), (0, 10));
    assert_eq!(line.receiver.taken_by_aggregate()["a"], [1, 4, 7, 10]);
    let of_first: Vec<_> = line.receiver.arrivals().into_iter().filter(|arrival| arrival.id == "event-1-0").collect();
    assert_eq!(of_first.iter().map(|arrival| arrival.answered).collect::<Vec<_>>(), [500, 500, 200]);
    assert!(of_first.iter().all(|arrival| arrival.is_signed));
    line.relay.release_lease().await;
    place.end().await;
}

#[tokio::test]
async fn i10_what_is_refused_is_a_dead_letter_and_is_sent_again_when_asked_for() {
    let place = TestEnvironment::new().await;
    let mut line = Line::new(&place, Receiver::DataPlatform).await;
    line.receiver.will(|arrival| if arrival.id == "event-1-0" { (422, "no such\nshop", None) } else { OK });
    orders(&place, &["a"]).await;
    line.after_seconds(1).await;
    assert_eq!(line.receiver.taken(), ["event-2-0", "event-3-0"], "the others of its order go on");
    let dead = letters(&place, DeadLetterStatus::Dead).await;
    let [letter] = &dead[..] else { panic!("{dead:?}") };
    assert_eq!((&*letter.source, &*letter.source_key, letter.attempts), ("data-platform", "event-1-0", 1));
    assert_eq!(letter.reason, "it answered 422 Unprocessable Entity: no such shop");
    let ask = async || {
        db::dead_letters::request_redrive(&place.database.pool(), letter.id, clock::now()).await.expect("asked")
    };
    ask().await;
    line.after_seconds(1).await;
    assert_eq!(letters(&place, DeadLetterStatus::Dead).await[0].attempts, 2, "refused once more");
    ask().await;
    line.receiver.will(|arrival| if arrival.attempt == 3 { (503, "", None) } else { OK });
    line.after_seconds(1).await;
    assert_eq!((letters(&place, DeadLetterStatus::Redrive).await.len(), parked(&place).await), (1, 1));
    line.after_seconds(5).await;
    let sent = letters(&place, DeadLetterStatus::Sent).await;
    assert_eq!((sent.len(), sent[0].attempts, parked(&place).await), (1, 4, 0), "twice, and twice again");
    assert_eq!(line.receiver.taken().last().map(String::as_str), Some("event-1-0"));
    assert!(line.receiver.arrivals().iter().all(|arrival| arrival.is_signed));
    line.relay.release_lease().await;
    place.end().await;
}

#[tokio::test]
async fn i10_after_a_day_of_failures_a_message_is_a_dead_letter_and_its_order_goes_on() {
    let place = TestEnvironment::new().await;
    let mut line = Line::new(&place, Receiver::DataPlatform).await;
    line.receiver.will(|arrival| if arrival.id == "event-1-0" { (500, "broken", None) } else { OK });
    orders(&place, &["a"]).await;
    line.after_seconds(1).await;
    let began = line.now;
    while line.now - began < RETRIED_FOR - TimeDelta::minutes(15) {
        line.after(TimeDelta::minutes(15)).await;
    }
    assert_eq!((letters(&place, DeadLetterStatus::Dead).await.len(), parked(&place).await), (0, 3));
    line.after(TimeDelta::minutes(16)).await;
    let dead = letters(&place, DeadLetterStatus::Dead).await;
    assert_eq!((dead.len(), &*dead[0].reason), (1, "it answered 500 Internal Server Error: broken"));
    assert!(dead[0].attempts > 90, "{}", dead[0].attempts);
    line.after_seconds(1).await;
    assert_eq!((line.receiver.taken().len(), parked(&place).await), (2, 0));
    line.relay.release_lease().await;
    place.end().await;
}

/// A receiver that fails all messages about one campaign is there: they are parked, up to the bound, and given up after
/// a day like any other. Then what stood behind them is told.
#[tokio::test]
async fn i10_a_campaign_whose_messages_all_fail_stops_the_sink_for_a_day_at_most() {
    let place = TestEnvironment::new().await;
    let mut line = Line::new(&place, Receiver::Notifications).await;
    line.receiver.will(|arrival| if arrival.text("aggregateId") == "3" { (500, "broken", None) } else { OK });
    issue(&place, "3", 1_100).await;
    issue(&place, "4", 1).await;
    for _ in 0..20 {
        line.after_seconds(1).await;
    }
    assert_eq!((parked(&place).await, line.receiver.taken().len()), (1_000, 0));
    line.after(RETRIED_FOR).await;
    for _ in 0..20 {
        line.after_seconds(1).await;
    }
    assert_eq!(count_letters(&place, DeadLetterStatus::Dead).await, 1_000);
    assert_eq!((parked(&place).await, line.receiver.taken().len()), (100, 1));
    assert_eq!(behind(&place, "notifications").await, 0);
    line.relay.release_lease().await;
    place.end().await;
}

/// Letters that were asked for hold up neither each other nor what is new.
#[tokio::test]
async fn i10_a_thousand_letters_sent_again_leave_room_for_what_is_new() {
    let place = TestEnvironment::new().await;
    let limits = Limits { batch_size: 2_000, ..Limits::default() };
    let mut line = Line::with(&place, Receiver::Notifications, limits).await;
    line.receiver.will(|_| (422, "no", None));
    issue(&place, "3", 1_000).await;
    line.after_seconds(1).await;
    assert_eq!(count_letters(&place, DeadLetterStatus::Dead).await, 1_000);
    assert_eq!(redrive_source(&place.database.pool(), "notifications").await.expect("asked"), 1_000);
    line.receiver.will(|arrival| if arrival.text("aggregateId") == "3" { (500, "", None) } else { OK });
    for _ in 0..15 {
        line.after_seconds(1).await;
    }
    assert_eq!(parked(&place).await, 500, "half of the bound");
    issue(&place, "4", 1).await;
    line.after_seconds(1).await;
    assert_eq!((line.receiver.taken().len(), behind(&place, "notifications").await), (1, 0), "at once");
    line.receiver.will(|arrival| if arrival.id == "event-1-0" { (500, "", None) } else { OK });
    line.for_minutes(3).await;
    assert_eq!((count_letters(&place, DeadLetterStatus::Sent).await, parked(&place).await), (999, 1));
    line.relay.release_lease().await;
    place.end().await;
}

async fn bury(place: &TestEnvironment, source: &str, status: &str, keys: std::ops::Range<u32>) {
    let sent_at = if status == "SENT" { "NOW(3) - INTERVAL 1 DAY" } else { "NULL" };
    let rows = keys.map(|key| {
        let payload = "커피".repeat(200);
        format!("('{source}', '{key}', 'order.paid', '{payload}', 1, TRUE, '', 1, '{status}', NOW(3), {sent_at})")
    });
    let columns = "source, source_key, kind, payload, payload_bytes, redrivable, reason, attempts, status, dead_lettered_at, \
                   sent_at";
    let rows = rows.collect::<Vec<_>>().join(",");
    place.execute(&format!("INSERT INTO dead_letters ({columns}) VALUES {rows}")).await;
}

#[tokio::test]
async fn all_letters_of_a_source_are_asked_for_at_once() {
    let place = TestEnvironment::new().await;
    bury(&place, "data-platform", "DEAD", 0..1_100).await;
    bury(&place, "data-platform", "SENT", 1_100..1_105).await;
    bury(&place, "notifications", "DEAD", 0..3).await;
    place.execute("UPDATE dead_letters SET redrivable = FALSE WHERE source_key IN ('7', '1099')").await;
    let pool = &place.database.pool();
    assert_eq!(redrive_source(pool, "data-platform").await.expect("asked"), 1_098);
    assert_eq!(redrive_source(pool, "data-platform").await.expect("asked"), 0);
    assert_eq!(count_letters(&place, DeadLetterStatus::Redrive).await, 1_098);
    assert_eq!(count_letters(&place, DeadLetterStatus::Dead).await, 5);
    let page = DeadLettersPage { limit: 1, is_short: true, ..DeadLettersPage::default() };
    let short = db::dead_letters::list(pool, &page).await.expect("a letter");
    assert_eq!((short[0].payload.chars().count(), &*short[0].source), (300, "notifications"));
    place.end().await;
}

#[tokio::test]
async fn only_letters_that_were_sent_are_purged() {
    let place = TestEnvironment::new().await;
    for (number, status) in (0..).zip(["DEAD", "REDRIVE", "SENT", "SENT", "SENT"]) {
        bury(&place, "data-platform", status, number..number + 1).await;
    }
    let purge = async |before| db::dead_letters::purge(&place.database.pool(), before, 2).await.expect("purged");
    let now = clock::now();
    assert_eq!(purge(now - TimeDelta::days(2)).await, 0);
    assert_eq!((purge(now).await, purge(now).await, purge(now).await), (2, 1, 0));
    assert_eq!(place.count("SELECT COUNT(*) FROM dead_letters").await, 2);
    place.end().await;
}

/// That nobody was there says nothing about a message: what waits is tried anew when the receiver is back.
#[tokio::test]
async fn i10_nothing_is_given_up_while_the_receiver_is_away() {
    let place = TestEnvironment::new().await;
    for (failure_threshold, retry_queue_size, waiting) in [(8, 1_000, 13), (8, 4, 16), (100, 1_000, 0)] {
        place.execute("DELETE FROM sinks").await;
        let limits = Limits { failure_threshold, retry_queue_size, ..Limits::default() };
        let mut line = Line::with(&place, Receiver::DataPlatform, limits).await;
        let mut nobody = sink(&place, Receiver::DataPlatform, &line.receiver);
        (nobody.limits, nobody.endpoint) = (limits, endpoint("http://127.0.0.1:1/"));
        line.relay = Relay::new(&place.database, nobody.clone());
        for number in 0..20 {
            write(&place, ("ORDER", &format!("o{number}")), "order.created", "{}").await;
            db::outbox::sequence_events(&place.database).await.expect("numbered");
            line.after_seconds(60).await;
        }
        for hour in 0..48 {
            if hour == 40 {
                // Another process, which has not seen the receiver yet.
                line.relay.release_lease().await;
                line.relay = Relay::new(&place.database, nobody.clone());
            }
            line.after(TimeDelta::hours(1)).await;
        }
        assert_eq!((behind(&place, "data-platform").await, parked(&place).await), (waiting, 20 - waiting));
        line.relay.release_lease().await;
        let mut back = nobody.clone();
        back.endpoint = line.receiver.endpoint();
        line.relay = Relay::new(&place.database, back);
        line.for_minutes(16).await;
        assert_eq!((line.receiver.taken().len(), parked(&place).await), (20, 0));
        assert_eq!(letters(&place, DeadLetterStatus::Dead).await, []);
        line.relay.release_lease().await;
    }
    place.end().await;
}

/// A receiver that is away is asked with one message at a time; when it is back, it gets all.
#[tokio::test]
async fn i10_a_receiver_that_is_away_and_back_gets_everything() {
    let place = TestEnvironment::new().await;
    let mut line = Line::new(&place, Receiver::DataPlatform).await;
    line.receiver.will(|_| (503, "", None));
    let ids: Vec<String> = (0..100).map(|number| format!("o{number}")).collect();
    orders(&place, &ids.iter().map(String::as_str).collect::<Vec<_>>()).await;
    assert_eq!(line.after_seconds(1).await, StepOutcome::Blocked);
    let first = line.receiver.arrivals().len();
    assert!(first <= 40, "{first}");
    line.for_minutes(10).await;
    let looks = line.receiver.arrivals().len() - first;
    assert!((10..=40).contains(&looks), "{looks} looks in ten minutes");
    assert_eq!((behind(&place, "data-platform").await, parked(&place).await), (300, 0), "the outbox keeps it");
    line.receiver.will(|_| OK);
    line.for_minutes(2).await;
    assert_eq!((behind(&place, "data-platform").await, parked(&place).await), (0, 0));
    let taken = line.receiver.taken_by_aggregate();
    assert!(taken.len() == 100 && taken.values().all(|sequences| sequences.len() == 3 && sequences.is_sorted()));
    line.relay.release_lease().await;
    place.end().await;
}

/// Whatever it answers, somebody is there: what fails now is this message's own affair.
#[tokio::test]
async fn a_receiver_that_was_away_and_answers_500_is_back() {
    let place = TestEnvironment::new().await;
    let mut line = Line::new(&place, Receiver::Notifications).await;
    line.receiver.will(|_| (504, "", None));
    issue(&place, "3", 20).await;
    line.for_minutes(1).await;
    assert_eq!((behind(&place, "notifications").await, parked(&place).await), (1, 0));
    line.receiver.will(|_| (500, "", None));
    line.for_minutes(1).await;
    assert_eq!((behind(&place, "notifications").await, parked(&place).await), (0, 20));
    line.relay.release_lease().await;
    place.end().await;
}

#[tokio::test]
async fn a_receiver_is_left_alone_for_as_long_as_it_asks() {
    let place = TestEnvironment::new().await;
    let mut line = Line::new(&place, Receiver::DataPlatform).await;
    line.receiver.will(|arrival| if arrival.attempt == 1 { (429, "", Some("120")) } else { OK });
    write(&place, ("ORDER", "a"), "order.created", "{}").await;
    db::outbox::sequence_events(&place.database).await.expect("numbered");
    line.after_seconds(1).await;
    line.after_seconds(118).await;
    assert_eq!(line.receiver.arrivals().len(), 1);
    line.after_seconds(3).await;
    assert_eq!(line.receiver.taken().len(), 1);
    line.relay.release_lease().await;
    place.end().await;
}

/// Nobody listens for the one, and the other is told all the same.
#[tokio::test]
async fn i10_a_dead_receiver_holds_up_no_other_sink() {
    let place = TestEnvironment::new().await;
    let mut line = Line::new(&place, Receiver::DataPlatform).await;
    db::outbox::register_sink(&place.database.pool(), "notifications", clock::now()).await.expect("registered");
    let nobody = endpoint("http://127.0.0.1:1/");
    let mut dead = sink(&place, Receiver::Notifications, &line.receiver);
    dead.endpoint = nobody;
    let mut dead = Relay::new(&place.database, dead);
    let payload =
        r#"{"couponId": 3, "issuedAt": null, "issuances": [{"userCouponId": "c", "userId": 1, "validUntil": null}]}"#;
    for _ in 0..20 {
        write(&place, ("COUPON", "3"), "coupon.issued", payload).await;
    }
    orders(&place, &["a"]).await;
    assert_eq!(dead.step(clock::now()).await.expect("looked"), StepOutcome::Blocked);
    assert_eq!(line.after_seconds(1).await, StepOutcome::UpToDate);
    assert_eq!((line.receiver.taken().len(), behind(&place, "data-platform").await), (3, 0));
    assert_eq!(behind(&place, "notifications").await, 23);
    dead.release_lease().await;
    line.relay.release_lease().await;
    place.end().await;
}

/// Nobody listens, and orders go on, and count.
#[tokio::test]
async fn i10_a_dead_receiver_holds_up_neither_orders_nor_the_ranking() {
    let (place, products) = shop(1).await;
    deliver_all(&place).await;
    let line = Line::new(&place, Receiver::DataPlatform).await;
    let mut dead = sink(&place, Receiver::DataPlatform, &line.receiver);
    dead.endpoint = endpoint("http://127.0.0.1:1/");
    let mut dead = Relay::new(&place.database, dead);
    buy(&place, products[0], 5, clock::now()).await;
    db::outbox::sequence_events(&place.database).await.expect("numbered");
    dead.step(clock::now()).await.expect("looked");
    buy(&place, products[0], 2, clock::now()).await;
    deliver_all(&place).await;
    assert_eq!(behind(&place, "ranking").await, 0);
    let day = business_day(clock::now(), ZONE);
    assert_eq!(sales::daily(&place.redis, day).await.expect("redis").get(&products[0]), Some(&7));
    assert_eq!(parked(&place).await, 2, "the events of the first order");
    dead.release_lease().await;
    place.end().await;
}

/// Delivers what it is given, and dies before that is noted.
struct Dying(WebhookSink);

impl Sink for Dying {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn kinds(&self) -> &'static [&'static str] {
        self.0.kinds()
    }

    async fn deliver(&mut self, batch: &Batch, lock: &mut Lease) -> Result<u64> {
        self.0.deliver(batch, lock).await?;
        Err(Error::internal("it died"))
    }
}

async fn die(place: &TestEnvironment, receiver: &TestReceiver, now: Timestamp) {
    let mut relay = Relay::new(&place.database, Dying(sink(place, Receiver::DataPlatform, receiver)));
    // It may also have found the lock not yet free of the one before.
    let _: Result<StepOutcome> = relay.step(now).await;
}

#[tokio::test]
async fn i10_a_death_between_delivery_and_noting_it_tells_again_with_the_same_id() {
    let place = TestEnvironment::new().await;
    let mut line = Line::new(&place, Receiver::DataPlatform).await;
    line.receiver.will(|arrival| match &*arrival.id {
        "event-1-0" if arrival.attempt < 3 => (422, "no", None),
        "event-2-0" if arrival.attempt < 3 => (500, "", None),
        _ => OK,
    });
    orders(&place, &["a", "b", "c"]).await;
    for _ in 0..2 {
        die(&place, &line.receiver, line.now).await;
    }
    let noted = "SELECT (SELECT COUNT(*) FROM webhook_retry_queue) + (SELECT COUNT(*) FROM dead_letters)";
    assert_eq!((place.count(noted).await, behind(&place, "data-platform").await), (0, 9), "nothing of a round is left");
    line.after_seconds(1).await;
    assert_eq!((line.receiver.taken().len(), behind(&place, "data-platform").await), (9, 0));
    let again = line.receiver.arrivals().into_iter().filter(|arrival| arrival.id == "event-3-0").count();
    assert_eq!(again, 3, "it came again");
    line.relay.release_lease().await;
    place.end().await;
}

/// So many are parked and no more; then the outbox keeps what follows, and nothing is lost.
#[tokio::test]
async fn i10_when_the_retry_queue_is_full_the_sink_stops_and_later_goes_on() {
    let place = TestEnvironment::new().await;
    let limits = Limits { retry_queue_size: 4, batch_size: 3, max_concurrency: 1, ..Limits::default() };
    let mut line = Line::with(&place, Receiver::DataPlatform, limits).await;
    line.receiver.will(|arrival| if arrival.text("aggregateId").starts_with("bad") { (500, "", None) } else { OK });
    orders(&place, &["bad1", "good1", "bad2", "good2"]).await;
    assert_eq!(line.after_seconds(1).await, StepOutcome::Blocked);
    assert_eq!((parked(&place).await, line.receiver.taken().len()), (4, 4));
    line.for_minutes(3).await;
    assert_eq!((parked(&place).await, behind(&place, "data-platform").await > 0), (4, true));
    line.receiver.will(|_| OK);
    line.for_minutes(12).await;
    assert_eq!((parked(&place).await, behind(&place, "data-platform").await), (0, 0));
    let taken = line.receiver.taken_by_aggregate();
    assert!(taken.len() == 4 && taken.values().all(|sequences| sequences.len() == 3 && sequences.is_sorted()));
    line.relay.release_lease().await;
    place.end().await;
}

#[tokio::test]
async fn an_event_that_is_no_message_is_a_dead_letter_that_holds_up_nobody() {
    let place = TestEnvironment::new().await;
    let mut line = Line::new(&place, Receiver::Notifications).await;
    write(&place, ("COUPON", "3"), "coupon.issued", r#"{"couponId": 3}"#).await;
    db::outbox::sequence_events(&place.database).await.expect("numbered");
    line.after_seconds(1).await;
    let dead = letters(&place, DeadLetterStatus::Dead).await;
    assert_eq!((dead.len(), dead[0].redrivable, behind(&place, "notifications").await), (1, false, 0));
    line.relay.release_lease().await;
    place.end().await;
}

/// Events wait for a sink that is served, moving or not, and no longer for one that nobody has served for a week.
#[tokio::test]
async fn events_are_deleted_once_nobody_has_served_a_sink_for_a_week() {
    let place = TestEnvironment::new().await;
    let mut line = Line::new(&place, Receiver::DataPlatform).await;
    db::outbox::register_sink(&place.database.pool(), "notifications", line.now).await.expect("registered");
    orders(&place, &["a"]).await;
    line.after_seconds(1).await;
    let week = TimeDelta::days(7);
    let purge =
        async |now: Timestamp| db::outbox::purge(&place.database.pool(), now, now - week, 1_000).await.expect("purged");
    let left_alone =
        async |now: Timestamp| db::outbox::list_idle_sinks(&place.database.pool(), now - week).await.expect("names");
    assert_eq!(purge(line.now).await, 0, "the other sink has taken none");
    line.after(week + TimeDelta::minutes(1)).await;
    assert_eq!(left_alone(line.now).await, ["notifications"]);
    assert_eq!(purge(line.now).await, 3);
    assert_eq!(purge(line.now + week * 2).await, 0, "while nobody is served, nothing is deleted");
    line.relay.release_lease().await;
    place.end().await;
}

/// Whatever the receiver answers, and whoever dies: in the end every order is told, in order.
#[tokio::test]
async fn i10_every_order_is_told_in_order_whatever_happens() {
    let place = TestEnvironment::new().await;
    let limits = Limits { retry_queue_size: 20, batch_size: 10, max_concurrency: 4, failure_threshold: 4 };
    let mut line = Line::with(&place, Receiver::DataPlatform, limits).await;
    let ids: Vec<String> = (0..12).map(|number| format!("o{number}")).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let mut trace = String::new();
    for _ in 0..60 {
        let dice = random_below(12);
        trace = format!("{trace}{dice} ");
        match dice {
            0..3 => orders(&place, &ids[usize::from(random_below(12))..]).await,
            3 => line.receiver.will(|_| (503, "", None)),
            4 => line.receiver.will(|_| if random_below(2) == 0 { (500, "", None) } else { OK }),
            5 => line.receiver.will(|_| OK),
            6 => {
                line.relay.release_lease().await;
                die(&place, &line.receiver, line.now).await;
            }
            7 => {
                line.relay.release_lease().await;
                let mut sink = sink(&place, Receiver::DataPlatform, &line.receiver);
                sink.limits = limits;
                line.relay = Relay::new(&place.database, sink);
            }
            _ => {
                line.after_seconds(i64::from(random_below(30))).await;
            }
        }
    }
    line.receiver.will(|_| OK);
    orders(&place, &["last"]).await;
    line.for_minutes(13).await;
    assert_eq!((parked(&place).await, behind(&place, "data-platform").await), (0, 0), "{trace}");
    assert_eq!(letters(&place, DeadLetterStatus::Dead).await, []);
    let told = line.receiver.taken_by_aggregate();
    for (id, sequences) in &told {
        assert!(sequences.is_sorted(), "{id}: {sequences:?} {trace}");
    }
    let all = place.count("SELECT COUNT(*) FROM outbox_events").await;
    assert_eq!(i64::try_from(told.values().map(Vec::len).sum::<usize>()).expect("few"), all, "{trace}");
    line.relay.release_lease().await;
    place.end().await;
}
