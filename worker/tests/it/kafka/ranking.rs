//! Sales counted from Kafka.

use chrono::TimeDelta;
use dibs_common::{
    clock, db,
    domain::{
        order::OrderRules,
        ranking::{EVENTS, business_day, days_before, start_of},
    },
    integrations::messages::messages,
    redis::sales,
    testing::{TestEnvironment, eventually},
};
use dibs_worker::kafka::{Handler as _, RankingHandler, Record};
use fred::interfaces::KeysInterface as _;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::{
    Brokers, LIMIT, all_is_counted, counter, handle, letters, live_and_die, number_all, register, sales_messages,
    send_all,
};
use crate::ranking::{RULES, ZONE, buy, cancel, cancel_by, deliver_all, expect_scores_of_orders, shop};

/// A new consumer counts so many messages. After that Redis has the scores of the orders.
async fn expect_counted(brokers: &Brokers, environment: &TestEnvironment, messages: usize, when: &str) {
    let mut consumer = counter(brokers, environment);
    Box::pin(handle(&mut consumer, messages)).await;
    expect_scores_of_orders(environment, when).await;
    consumer.leave().await;
}

/// I9 and I10: messages that come twice, a consumer that dies before it notes where it is, another that takes its
/// place: each event counts once.
#[tokio::test]
async fn i10_a_message_that_kafka_delivers_twice_counts_once() {
    let (brokers, (environment, products)) = (Brokers::new().await, shop(3).await);
    let mut consumer = counter(&brokers, &environment);
    consumer.step().await.expect("begun");
    let mut orders = Vec::new();
    for round in 0..20 {
        orders.push(buy(&environment, products[round % 3], 3, clock::now()).await);
    }
    for order in orders.drain(..7) {
        cancel(&environment, order, clock::now()).await;
    }
    send_all(&environment, brokers.sink()).await;
    // The sink loses what it knew: all is sent again, behind what is there.
    environment.execute("UPDATE sinks SET delivered_through = 0 WHERE name = 'kafka'").await;
    buy(&environment, products[0], 1, clock::now()).await;
    send_all(&environment, brokers.sink()).await;
    assert_eq!(sales_messages(&brokers), 27 * 2 + 1);
    handle(&mut consumer, 55).await;
    expect_scores_of_orders(&environment, "with every message twice").await;
    consumer.leave().await;
    environment.end().await;
}

/// I10: what was counted and not noted comes again to the next consumer, and counts once.
#[tokio::test]
async fn i10_a_consumer_that_dies_before_it_notes_what_it_counted_is_followed_by_another() {
    let (brokers, (environment, products)) = (Brokers::new().await, shop(2).await);
    register(&environment).await;
    buy(&environment, products[0], 1, clock::now()).await;
    send_all(&environment, brokers.sink()).await;
    for quantity in 1..3 {
        Box::pin(live_and_die(&brokers, &EVENTS, RankingHandler::new(&environment.database, &environment.redis, ZONE)))
            .await;
        // It has read some or all, as Kafka gives it.
        assert!(sales::is_counted_from_kafka(&environment.redis).await.expect("redis"), "it counted before it died");
        let order = buy(&environment, products[1], quantity, clock::now()).await;
        if quantity == 2 {
            cancel(&environment, order, clock::now()).await;
        }
        send_all(&environment, brokers.sink()).await;
    }
    expect_counted(&brokers, &environment, 4, "after two deaths").await;
    environment.end().await;
}

/// I9 and I10: partitions go from one consumer to another and back while orders are paid and cancelled.
#[tokio::test(flavor = "multi_thread")]
async fn i10_consumers_that_come_and_go_count_each_event_once() {
    let (brokers, (environment, products)) = (Brokers::new().await, shop(3).await);
    let (first, second) = (CancellationToken::new(), CancellationToken::new());
    let mut running = vec![tokio::spawn(counter(&brokers, &environment).run(first.clone()))];
    let (sink, mut orders) = (brokers.sink(), Vec::new());
    for round in 0..30 {
        orders.push(buy(&environment, products[round % 3], 2, clock::now()).await);
        if round % 4 == 3 {
            cancel(&environment, orders.swap_remove(0), clock::now()).await;
        }
        send_all(&environment, sink.clone()).await;
        match round {
            10 => running.push(tokio::spawn(counter(&brokers, &environment).run(second.clone()))),
            20 => first.cancel(),
            _ => {}
        }
    }
    eventually("all is counted", LIMIT, || all_is_counted(&environment)).await;
    expect_scores_of_orders(&environment, "with consumers that came and went").await;
    second.cancel();
    for consumer in running {
        consumer.await.expect("stopped");
    }
    environment.end().await;
}

/// A message that cannot be read is a dead letter, and those behind it count.
#[tokio::test]
async fn a_message_that_the_ranking_cannot_read_is_a_dead_letter_and_holds_nothing_up() {
    let (brokers, (environment, products)) = (Brokers::new().await, shop(1).await);
    register(&environment).await;
    let mut consumer = counter(&brokers, &environment);
    consumer.step().await.expect("begun");
    buy(&environment, products[0], 3, clock::now()).await;
    send_all(&environment, brokers.sink()).await;
    handle(&mut consumer, 1).await;
    let message = |kind: &str, sequence: u64, paid_at: Option<&str>| {
        let items = json!([{"productId": products[0], "quantity": 100}]);
        json!({"type": kind, "sequence": sequence, "data": {"items": items, "paidAt": paid_at}}).to_string()
    };
    let unreadable = [
        "oops".into(),
        "{}".into(),
        message("order.lost", 1, None),
        message("order.paid", 1 << 60, None),
        // Nothing that really follows would count, were it believed.
        message("order.paid", 1 << 40, None),
        message("order.paid", 1, Some("+262142-12-31T23:59:59Z")),
        message("order.paid", 1, Some("1969-12-31T23:59:59Z")),
        json!({"type": "order.paid", "sequence": 1, "data": {"items": [], "paidOn": "+262142-12-31"}}).to_string(),
        String::new(),
    ];
    brokers.produce("order.paid", unreadable.map(|value| ("7".into(), value.into_bytes()))).await;
    buy(&environment, products[0], 4, clock::now()).await;
    send_all(&environment, brokers.sink()).await;
    handle(&mut consumer, 10).await;
    expect_scores_of_orders(&environment, "behind what cannot be read").await;
    let letters = letters(&environment).await;
    assert_eq!(letters.len(), 9, "{letters:?}");
    let topic = brokers.cluster().topic("order.paid");
    assert!(letters.iter().all(|(source, key, _)| source == "ranking" && key.starts_with(&topic)), "{letters:?}");
    for part in ["order.lost", "which no event has", "from 1970 to 9999"] {
        assert!(letters.iter().any(|(_, _, reason)| reason.contains(part)), "{part}: {letters:?}");
    }
    consumer.leave().await;
    environment.end().await;
}

/// Messages of paid orders, as if all were in one partition.
async fn paid_records(environment: &TestEnvironment) -> Vec<Record> {
    records(environment, &EVENTS[..1]).await
}

async fn records(environment: &TestEnvironment, kinds: &[&str]) -> Vec<Record> {
    let mut connection = environment.database.pool().acquire().await.expect("a connection");
    let events = db::outbox::list_between(&mut connection, 1..=u64::from(u32::MAX), kinds).await.expect("events");
    let values = events.iter().flat_map(|event| messages(event).expect("readable"));
    let values = values.map(|message| serde_json::to_vec(&message).expect("JSON"));
    let record = |(offset, value): (i64, Vec<u8>)| Record {
        topic: EVENTS[0].into(),
        partition: 0,
        offset,
        at: 0,
        bytes: value.len(),
        value,
    };
    (0..).zip(values).map(record).collect()
}

/// I9: a message that is not there among those read together, and a Redis that came back with older data while nothing
/// happened: both are noticed, and the days are rebuilt.
#[tokio::test]
async fn i9_what_is_missing_in_kafka_or_in_redis_is_noticed() {
    let (environment, products) = shop(2).await;
    let mut counter = RankingHandler::new(&environment.database, &environment.redis, ZONE);
    counter.handle(&[]).await.expect("begun");
    for product in [0, 1, 0] {
        buy(&environment, products[product], 3, clock::now()).await;
    }
    number_all(&environment).await;
    let mut records = paid_records(&environment).await;
    records.remove(1);
    counter.handle(&records).await.expect("handled");
    expect_scores_of_orders(&environment, "with a gap").await;
    buy(&environment, products[1], 5, clock::now()).await;
    number_all(&environment).await;
    counter.handle(&paid_records(&environment).await[3..]).await.expect("handled");
    expect_scores_of_orders(&environment, "behind the gap").await;
    let (keys, client) = (&environment.redis.keys, environment.redis.client());
    let today = keys.daily_sales(business_day(clock::now(), ZONE));
    client.del::<(), _>(vec![keys.sales_counted(), today]).await.expect("deleted");
    counter.handle(&[]).await.expect("handled");
    expect_scores_of_orders(&environment, "when Redis had lost what was counted last").await;
    environment.end().await;
}

/// The shop changes its time zone between a sale and its cancellation.
#[tokio::test]
async fn i9_messages_of_kafka_count_on_the_day_of_the_sale_whatever_the_time_zone_is_now() {
    let (environment, products) = shop(1).await;
    let mut counter = RankingHandler::new(&environment.database, &environment.redis, ZONE);
    counter.handle(&[]).await.expect("begun");
    let today = business_day(clock::now(), ZONE);
    // Of the day before in UTC.
    let order = buy(&environment, products[0], 3, start_of(today, ZONE) + TimeDelta::hours(1)).await;
    number_all(&environment).await;
    counter.handle(&records(&environment, &EVENTS).await).await.expect("handled");
    let units = async |day| sales::daily(&environment.redis, day).await.expect("redis").get(&products[0]).copied();
    assert_eq!(units(today).await, Some(3));
    let rules = OrderRules { time_zone: chrono_tz::UTC, ..RULES };
    cancel_by(&environment, order, &rules, clock::now()).await;
    number_all(&environment).await;
    let mut counter = RankingHandler::new(&environment.database, &environment.redis, chrono_tz::UTC);
    counter.handle(&records(&environment, &EVENTS).await).await.expect("handled");
    assert_eq!((units(today).await, units(days_before(today, 1)).await), (None, None));
    environment.end().await;
}

/// I9: the ranking is fed by the relay, then from Kafka, then by the relay again, then from Kafka; and Redis loses all.
#[tokio::test]
async fn i9_from_either_source_scores_are_the_sums_of_the_orders() {
    let (brokers, (environment, products)) = (Brokers::new().await, shop(2).await);
    let sell = async || {
        let order = buy(&environment, products[0], 3, clock::now()).await;
        buy(&environment, products[1], 2, clock::now()).await;
        cancel(&environment, order, clock::now()).await;
        buy(&environment, products[0], 1, clock::now()).await;
    };
    sell().await;
    deliver_all(&environment).await;
    // None of these is in Kafka, nor those before.
    sell().await;
    number_all(&environment).await;
    let mut consumer = counter(&brokers, &environment);
    consumer.step().await.expect("begun");
    expect_scores_of_orders(&environment, "from Kafka, before any event is in it").await;
    sell().await;
    send_all(&environment, brokers.sink()).await;
    handle(&mut consumer, 4).await;
    expect_scores_of_orders(&environment, "from Kafka").await;
    environment.lose_redis().await;
    consumer.step().await.expect("nothing happened since, and yet it looks");
    expect_scores_of_orders(&environment, "from Kafka, when Redis had lost all").await;
    sell().await;
    send_all(&environment, brokers.sink()).await;
    handle(&mut consumer, 4).await;
    consumer.leave().await;
    sell().await;
    deliver_all(&environment).await;
    expect_scores_of_orders(&environment, "by the relay again").await;
    sell().await;
    send_all(&environment, brokers.sink()).await;
    expect_counted(&brokers, &environment, 8, "from Kafka again").await;
    environment.end().await;
}
