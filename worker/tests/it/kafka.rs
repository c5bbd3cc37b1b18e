//! Kafka, out and in: on a mock cluster of Kafka's own client, which speaks its protocol on loopback ports; and on the
//! brokers of `KAFKA_BROKERS` where these are set, but for tests in which brokers go away.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    env,
    time::Duration,
};

use chrono::TimeDelta;
use dibs_common::{
    clock,
    db::{self, dead_letters::DeadLettersPage},
    domain::{
        campaign::CampaignTerms,
        claim::{ClaimOutcome, ClaimRejectReason},
        order::OrderRules,
        ranking::{EVENTS, business_day},
    },
    error::{Error, Result},
    identifiers::{ClaimId, CouponId, new_uuid},
    integrations::messages::messages,
    redis::{
        campaign_state, sales,
        scripts::{CampaignCounts, campaign_put},
    },
    supervisor::Supervisor,
    testing::{TestEnvironment, eventually, open_terms},
};
use dibs_worker::{
    Worker,
    kafka::{
        ACK_TIMEOUT, CLAIM_REQUESTS, ClaimRequestConsumer, ClaimRequestHandler, Cluster, Consumer, Handler, KAFKA,
        KafkaSettings, KafkaSink, RankingConsumer, RankingHandler, RankingSource, Record,
    },
    relay::{Relay, Sink, StepOutcome},
    streams::ReclaimPolicy,
    webhooks::Webhooks,
};
use fred::interfaces::KeysInterface as _;
use rdkafka::{
    Message as _, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    config::ClientConfig,
    consumer::{BaseConsumer, Consumer as _},
    message::Headers as _,
    mocking::MockCluster,
    producer::{DefaultProducerContext, FutureProducer, FutureRecord},
    types::{RDKafkaApiKey, RDKafkaRespErr},
    util::Timeout,
};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::{
    ranking::{ZONE, buy, cancel, deliver_all, expect_scores_of_orders, shop, sums},
    support::{accept, user, work},
};

const LIMIT: Duration = Duration::from_secs(30);
/// A broker that nobody waits for.
const IMPATIENT: Duration = Duration::from_millis(300);
const PARTITIONS: i32 = 3;

/// Brokers, with topics of this test's own.
struct Brokers {
    mock: Option<MockCluster<'static, DefaultProducerContext>>,
    settings: KafkaSettings,
}

/// A message, as it is in Kafka.
#[derive(Debug)]
struct Found {
    topic: String,
    partition: i32,
    key: String,
    value: Value,
    headers: BTreeMap<String, String>,
}

impl Found {
    fn sequence(&self) -> u64 {
        self.value["sequence"].as_u64().expect("a sequence")
    }

    fn id(&self) -> String {
        self.value["id"].as_str().expect("an id").to_owned()
    }
}

const TOPICS: [&str; 7] = [
    "order.created",
    "order.paid",
    "order.confirmed",
    "order.cancelled",
    "order.expired",
    "coupon.issued",
    CLAIM_REQUESTS,
];

impl Brokers {
    /// Those of `KAFKA_BROKERS`, or a mock of them.
    async fn new() -> Self {
        match env::var("KAFKA_BROKERS") {
            Ok(brokers) if !brokers.is_empty() => Self::real(brokers).await,
            _ => Self::mock(),
        }
    }

    /// A mock of brokers, which can be made to fail.
    fn mock() -> Self {
        let mock = MockCluster::new(1).expect("a mock");
        for topic in TOPICS {
            mock.create_topic(topic, PARTITIONS, 1).expect("a topic");
        }
        let settings = KafkaSettings { kafka_brokers: mock.bootstrap_servers(), ..KafkaSettings::default() };
        Self { mock: Some(mock), settings }
    }

    async fn real(kafka_brokers: String) -> Self {
        let kafka_topic_prefix = format!("test-{}.", new_uuid().simple());
        let settings = KafkaSettings { kafka_brokers, kafka_topic_prefix, ..KafkaSettings::default() };
        let brokers = Self { mock: None, settings };
        let admin: AdminClient<DefaultClientContext> = brokers.client().create().expect("an admin");
        let names = TOPICS.map(|topic| brokers.cluster().topic(topic));
        let topics = names.iter().map(|name| NewTopic::new(name, PARTITIONS, TopicReplication::Fixed(1)));
        let topics: Vec<NewTopic<'_>> = topics.collect();
        admin.create_topics(&topics, &AdminOptions::new()).await.expect("topics");
        brokers
    }

    fn cluster(&self) -> Cluster {
        Cluster::of(&self.settings).expect("brokers")
    }

    fn failing(&self) -> &MockCluster<'static, DefaultProducerContext> {
        self.mock.as_ref().expect("a mock")
    }

    fn client(&self) -> ClientConfig {
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", &self.settings.kafka_brokers);
        client
    }

    fn sink(&self) -> KafkaSink {
        KafkaSink::new(&self.cluster(), ACK_TIMEOUT)
    }

    /// Puts values on a topic, in order, as others than Dibs would: each with its key.
    async fn produce(&self, topic: &str, values: impl IntoIterator<Item = (String, Vec<u8>)>) {
        let producer: FutureProducer = self.client().set("enable.idempotence", "true").create().expect("a producer");
        let topic = self.cluster().topic(topic);
        let mut on_their_way = Vec::new();
        for (key, value) in values {
            let sent = producer.send_result(FutureRecord::to(&topic).key(&key).payload(&value));
            on_their_way.push(sent.map_err(|(error, _)| error).expect("queued"));
        }
        for sent in on_their_way {
            sent.await.expect("answered").expect("acknowledged");
        }
    }

    /// All that is on a topic, each partition in its order.
    fn read(&self, topic: &str) -> Vec<Found> {
        let topic = self.cluster().topic(topic);
        let reader: BaseConsumer = self.client().set("group.id", "test-reader").create().expect("a reader");
        let (mut list, mut ends) = (TopicPartitionList::new(), HashMap::new());
        for partition in 0..PARTITIONS {
            let (first, end) = reader.fetch_watermarks(&topic, partition, LIMIT).expect("watermarks");
            if end > first {
                list.add_partition_offset(&topic, partition, Offset::Beginning).expect("listed");
                ends.insert(partition, end);
            }
        }
        reader.assign(&list).expect("assigned");
        let mut found = Vec::new();
        while !ends.is_empty() {
            let message = reader.poll(Timeout::After(LIMIT)).expect("in time").expect("readable");
            if ends.get(&message.partition()).is_some_and(|end| message.offset() + 1 >= *end) {
                ends.remove(&message.partition());
            }
            let headers = message.headers().map(|headers| headers.iter()).into_iter().flatten();
            let text = |bytes: Option<&[u8]>| String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned();
            found.push(Found {
                topic: topic.clone(),
                partition: message.partition(),
                key: text(message.key()),
                value: serde_json::from_slice(message.payload().unwrap_or_default()).expect("JSON"),
                headers: headers.map(|header| (header.key.to_owned(), text(header.value))).collect(),
            });
        }
        found
    }

    /// Messages of all events, as they are in Kafka.
    fn told(&self) -> Vec<Found> {
        TOPICS.iter().filter(|topic| **topic != CLAIM_REQUESTS).flat_map(|topic| self.read(topic)).collect()
    }
}

async fn register(place: &TestEnvironment) {
    db::outbox::register_sink(&place.database.pool(), KAFKA, clock::now()).await.expect("registered");
}

async fn number_all(place: &TestEnvironment) {
    while db::outbox::sequence_events(&place.database).await.expect("numbered") > 0 {}
}

/// Delivers all that happened to a sink.
async fn send_all(place: &TestEnvironment, sink: impl Sink) {
    number_all(place).await;
    let mut relay = Relay::new(&place.database, sink);
    while relay.step(clock::now()).await.expect("delivered") == StepOutcome::Delivered {}
    relay.release_lease().await;
}

/// The ids of all messages that Kafka should have been told of.
async fn expected_ids(place: &TestEnvironment) -> BTreeSet<String> {
    let mut connection = place.database.pool().acquire().await.expect("a connection");
    let kinds = TOPICS.into_iter().filter(|topic| *topic != CLAIM_REQUESTS).collect::<Vec<_>>();
    let events = db::outbox::list_between(&mut connection, 1..=u64::from(u32::MAX), &kinds).await.expect("events");
    events.iter().flat_map(|event| messages(event).expect("readable")).map(|message| message.id.to_string()).collect()
}

/// I10: all is there, and in a partition each comes for the first time behind all that happened before it.
fn expect_all_in_order(found: &[Found], expected: &BTreeSet<String>) {
    assert_eq!(&found.iter().map(Found::id).collect::<BTreeSet<_>>(), expected);
    let mut highest: HashMap<(&str, i32), u64> = HashMap::new();
    let mut seen = BTreeSet::new();
    for message in found {
        if seen.insert(message.id()) {
            let highest = highest.entry((&message.topic, message.partition)).or_default();
            assert!(message.sequence() >= *highest, "{message:?} is behind {highest}");
            *highest = message.sequence();
        }
    }
    let mut homes: HashMap<(&str, &str), i32> = HashMap::new();
    for message in found {
        assert_eq!(*homes.entry((&message.topic, &message.key)).or_insert(message.partition), message.partition);
    }
}

/// I10: each event is a message at least, those of an order in their order, and nothing else is told.
#[tokio::test]
async fn i10_kafka_is_told_of_every_event_in_order_for_each_key() {
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
    let found = brokers.told();
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
async fn i10_what_brokers_refuse_comes_again_in_order() {
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
    expect_all_in_order(&brokers.told(), &expected_ids(&place).await);
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
    expect_all_in_order(&brokers.told(), &expected);
    relay.release_lease().await;
    place.end().await;
}

/// Brokers away: orders go on, so do other sinks, nothing is marked; afterwards all is delivered.
#[tokio::test]
async fn i10_brokers_that_are_away_hold_up_nothing_else_and_get_all_afterwards() {
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
        let failed = relay.step(clock::now()).await.expect_err("nobody acknowledges");
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
    expect_all_in_order(&brokers.told(), &expected_ids(&place).await);
    relay.release_lease().await;
    place.end().await;
}

fn counter(brokers: &Brokers, place: &TestEnvironment) -> RankingConsumer {
    RankingConsumer::join_ranking(&brokers.cluster(), &place.database, &place.redis, ZONE).expect("joined")
}

fn intake(brokers: &Brokers, place: &TestEnvironment) -> ClaimRequestConsumer {
    ClaimRequestConsumer::join_claim_requests(&brokers.cluster(), &place.database, &place.redis).expect("joined")
}

/// Handles until so many records were handled in all.
async fn handle<H: Handler + 'static>(consumer: &mut Consumer<H>, records: usize) {
    let (mut handled, deadline) = (0, tokio::time::Instant::now() + LIMIT);
    while handled < records {
        assert!(tokio::time::Instant::now() < deadline, "{handled} of {records} records in {LIMIT:?}");
        handled += consumer.step().await.expect("handled");
    }
    assert_eq!(handled, records);
}

/// What is on the topics that the ranking reads.
fn sales_messages(brokers: &Brokers) -> usize {
    EVENTS.iter().map(|topic| brokers.read(topic).len()).sum()
}

/// I9 and I10: messages that come twice, a consumer that dies before it notes where it is, another that takes its
/// place: each event counts once.
#[tokio::test]
async fn i10_what_kafka_tells_twice_counts_once() {
    let (brokers, (place, products)) = (Brokers::new().await, shop(3).await);
    let mut consumer = counter(&brokers, &place);
    consumer.step().await.expect("begun");
    let mut orders = Vec::new();
    for round in 0..20 {
        orders.push(buy(&place, products[round % 3], 3, clock::now()).await);
    }
    for order in orders.drain(..7) {
        cancel(&place, order, clock::now()).await;
    }
    send_all(&place, brokers.sink()).await;
    // The sink loses what it knew: all is sent again, behind what is there.
    place.execute("UPDATE sinks SET delivered_through = 0 WHERE name = 'kafka'").await;
    buy(&place, products[0], 1, clock::now()).await;
    send_all(&place, brokers.sink()).await;
    assert_eq!(sales_messages(&brokers), 27 * 2 + 1);
    handle(&mut consumer, 55).await;
    expect_scores_of_orders(&place, "with every message twice").await;
    consumer.leave().await;
    place.end().await;
}

/// Handles what it is given, and dies before that is noted.
struct Dying<H>(H);

impl<H: Handler> Handler for Dying<H> {
    const NAME: &'static str = H::NAME;

    async fn handle(&mut self, records: &[Record]) -> Result<()> {
        self.0.handle(records).await?;
        if records.is_empty() { Ok(()) } else { Err(Error::internal("it died")) }
    }
}

/// Joins with a handler that dies once it has handled something, and lets it.
async fn live_and_die<H: Handler + 'static>(brokers: &Brokers, topics: &[&str], handler: H) {
    let mut dying = Consumer::join(&brokers.cluster(), topics, Dying(handler)).expect("joined");
    let deadline = tokio::time::Instant::now() + LIMIT;
    while dying.step().await.is_ok() {
        assert!(tokio::time::Instant::now() < deadline, "nothing came in {LIMIT:?}");
    }
    dying.leave().await;
}

/// I10: what was counted and not noted comes again to the next consumer, and counts once.
#[tokio::test]
async fn i10_a_consumer_that_dies_before_it_notes_what_it_counted_is_followed_by_another() {
    let (brokers, (place, products)) = (Brokers::new().await, shop(2).await);
    register(&place).await;
    buy(&place, products[0], 1, clock::now()).await;
    send_all(&place, brokers.sink()).await;
    for quantity in 1..3 {
        Box::pin(live_and_die(&brokers, &EVENTS, RankingHandler::new(&place.database, &place.redis, ZONE))).await;
        // It has read some or all, as Kafka gives it.
        assert!(sales::is_counted_from_kafka(&place.redis).await.expect("redis"), "it counted before it died");
        let order = buy(&place, products[1], quantity, clock::now()).await;
        if quantity == 2 {
            cancel(&place, order, clock::now()).await;
        }
        send_all(&place, brokers.sink()).await;
    }
    let mut consumer = counter(&brokers, &place);
    handle(&mut consumer, 4).await;
    expect_scores_of_orders(&place, "after two deaths").await;
    consumer.leave().await;
    place.end().await;
}

/// Whether as much is counted of each product today as orders say.
async fn all_is_counted(place: &TestEnvironment) -> bool {
    let today = business_day(clock::now(), ZONE);
    sales::daily(&place.redis, today).await.expect("redis") == sums(place, today).await
}

/// I9 and I10: partitions go from one consumer to another and back while orders are paid and cancelled.
#[tokio::test(flavor = "multi_thread")]
async fn i10_consumers_that_come_and_go_count_each_event_once() {
    let (brokers, (place, products)) = (Brokers::new().await, shop(3).await);
    let (first, second) = (CancellationToken::new(), CancellationToken::new());
    let mut running = vec![tokio::spawn(counter(&brokers, &place).run(first.clone()))];
    let (sink, mut orders) = (brokers.sink(), Vec::new());
    for round in 0..30 {
        orders.push(buy(&place, products[round % 3], 2, clock::now()).await);
        if round % 4 == 3 {
            cancel(&place, orders.swap_remove(0), clock::now()).await;
        }
        send_all(&place, sink.clone()).await;
        match round {
            10 => running.push(tokio::spawn(counter(&brokers, &place).run(second.clone()))),
            20 => first.cancel(),
            _ => {}
        }
    }
    eventually("all is counted", LIMIT, || all_is_counted(&place)).await;
    expect_scores_of_orders(&place, "with consumers that came and went").await;
    second.cancel();
    for consumer in running {
        consumer.await.expect("stopped");
    }
    place.end().await;
}

/// What dead letters say: source, key, reason.
async fn letters(place: &TestEnvironment) -> Vec<(String, String, String)> {
    let page = DeadLettersPage { limit: 100, ..DeadLettersPage::default() };
    let letters = db::dead_letters::list(&place.database.pool(), &page).await.expect("letters");
    letters.into_iter().rev().map(|letter| (letter.source, letter.source_key, letter.reason)).collect()
}

/// A message that cannot be read is a dead letter, and those behind it count.
#[tokio::test]
async fn a_message_that_the_ranking_cannot_read_is_a_dead_letter_and_holds_nothing_up() {
    let (brokers, (place, products)) = (Brokers::new().await, shop(1).await);
    register(&place).await;
    let mut consumer = counter(&brokers, &place);
    consumer.step().await.expect("begun");
    buy(&place, products[0], 3, clock::now()).await;
    send_all(&place, brokers.sink()).await;
    handle(&mut consumer, 1).await;
    let told = |kind: &str, sequence: u64, paid_at: Option<&str>| {
        let items = json!([{"productId": products[0], "quantity": 100}]);
        json!({"type": kind, "sequence": sequence, "data": {"items": items, "paidAt": paid_at}}).to_string()
    };
    let unreadable = [
        "oops".into(),
        "{}".into(),
        told("order.lost", 1, None),
        told("order.paid", 1 << 60, None),
        // Nothing that really follows would count, were it believed.
        told("order.paid", 1 << 40, None),
        told("order.paid", 1, Some("+262142-12-31T23:59:59Z")),
        told("order.paid", 1, Some("1969-12-31T23:59:59Z")),
        String::new(),
    ];
    brokers.produce("order.paid", unreadable.map(|value| ("7".into(), value.into_bytes()))).await;
    buy(&place, products[0], 4, clock::now()).await;
    send_all(&place, brokers.sink()).await;
    handle(&mut consumer, 9).await;
    expect_scores_of_orders(&place, "behind what cannot be read").await;
    let letters = letters(&place).await;
    assert_eq!(letters.len(), 8, "{letters:?}");
    let topic = brokers.cluster().topic("order.paid");
    assert!(letters.iter().all(|(source, key, _)| source == "ranking" && key.starts_with(&topic)), "{letters:?}");
    for part in ["order.lost", "which no event has", "from 1970 to 9999"] {
        assert!(letters.iter().any(|(_, _, reason)| reason.contains(part)), "{part}: {letters:?}");
    }
    consumer.leave().await;
    place.end().await;
}

/// Messages of paid orders, as if all were in one partition.
async fn paid_records(place: &TestEnvironment) -> Vec<Record> {
    let mut connection = place.database.pool().acquire().await.expect("a connection");
    let events =
        db::outbox::list_between(&mut connection, 1..=u64::from(u32::MAX), &EVENTS[..1]).await.expect("events");
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
/// happened: both are noticed, and the days made anew.
#[tokio::test]
async fn i9_what_is_missing_in_kafka_or_in_redis_is_noticed() {
    let (place, products) = shop(2).await;
    let mut counter = RankingHandler::new(&place.database, &place.redis, ZONE);
    counter.handle(&[]).await.expect("begun");
    for product in [0, 1, 0] {
        buy(&place, products[product], 3, clock::now()).await;
    }
    number_all(&place).await;
    let mut records = paid_records(&place).await;
    records.remove(1);
    counter.handle(&records).await.expect("handled");
    expect_scores_of_orders(&place, "with a gap").await;
    buy(&place, products[1], 5, clock::now()).await;
    number_all(&place).await;
    counter.handle(&paid_records(&place).await[3..]).await.expect("handled");
    expect_scores_of_orders(&place, "behind the gap").await;
    let (keys, client) = (&place.redis.keys, place.redis.client());
    let today = keys.daily_sales(business_day(clock::now(), ZONE));
    client.del::<(), _>(vec![keys.sales_counted(), today]).await.expect("deleted");
    counter.handle(&[]).await.expect("handled");
    expect_scores_of_orders(&place, "when Redis had lost what was counted last").await;
    place.end().await;
}

/// I9: the ranking is fed by the relay, then from Kafka, then by the relay again, then from Kafka; and Redis loses all.
#[tokio::test]
async fn i9_whoever_feeds_the_ranking_scores_are_the_sums_of_the_orders() {
    let (brokers, (place, products)) = (Brokers::new().await, shop(2).await);
    let sell = async || {
        let order = buy(&place, products[0], 3, clock::now()).await;
        buy(&place, products[1], 2, clock::now()).await;
        cancel(&place, order, clock::now()).await;
        buy(&place, products[0], 1, clock::now()).await;
    };
    sell().await;
    deliver_all(&place).await;
    // Nobody has told Kafka of these, nor of those before.
    sell().await;
    number_all(&place).await;
    let mut consumer = counter(&brokers, &place);
    consumer.step().await.expect("begun");
    expect_scores_of_orders(&place, "from Kafka, before it was told of anything").await;
    sell().await;
    send_all(&place, brokers.sink()).await;
    handle(&mut consumer, 4).await;
    expect_scores_of_orders(&place, "from Kafka").await;
    place.lose_redis().await;
    consumer.step().await.expect("nothing happened since, and yet it looks");
    expect_scores_of_orders(&place, "from Kafka, when Redis had lost all").await;
    sell().await;
    send_all(&place, brokers.sink()).await;
    handle(&mut consumer, 4).await;
    consumer.leave().await;
    sell().await;
    deliver_all(&place).await;
    expect_scores_of_orders(&place, "by the relay again").await;
    sell().await;
    send_all(&place, brokers.sink()).await;
    let mut consumer = counter(&brokers, &place);
    handle(&mut consumer, 8).await;
    expect_scores_of_orders(&place, "from Kafka again").await;
    consumer.leave().await;
    place.end().await;
}

/// A worker whose settings name brokers does all of it: events out, sales counted, requests taken in.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_with_brokers_sends_events_counts_sales_and_takes_requests() {
    let (brokers, (place, products)) = (Brokers::new().await, shop(1).await);
    let campaign = place.campaign(1).await;
    let stopping = CancellationToken::new();
    let worker = Worker {
        database: place.database.clone(),
        redis: place.redis.clone(),
        payment_gateway: None,
        webhooks: Webhooks::default(),
        reclaim: ReclaimPolicy::default(),
        rules: OrderRules { expiry: TimeDelta::minutes(30), holding_cap: 1_000_000_000 },
        time_zone: ZONE,
        kafka: KafkaSettings { ranking_source: RankingSource::Kafka, ..brokers.settings.clone() },
        supervisor: Supervisor::new(stopping.clone()),
    };
    register(&place).await;
    let working = tokio::spawn(worker.run(1));
    buy(&place, products[0], 3, clock::now()).await;
    brokers.produce(CLAIM_REQUESTS, [wanted(8, campaign.id, None), wanted(9, campaign.id, None)]).await;
    let issued = async || place.count("SELECT COUNT(*) FROM user_coupons").await == 1;
    eventually("the coupon is issued", LIMIT, issued).await;
    eventually("sales are counted", LIMIT, || all_is_counted(&place)).await;
    let told = "SELECT COUNT(*) FROM outbox_events e JOIN sinks s ON s.name = 'kafka' \
                WHERE COALESCE(e.sequence, 1000) > s.delivered_through";
    eventually("Kafka is told", LIMIT, async || place.count(told).await == 0).await;
    expect_all_in_order(&brokers.told(), &expected_ids(&place).await);
    let refused = async || place.count("SELECT COUNT(*) FROM claim_refusals").await == 1;
    eventually("the other is refused", LIMIT, refused).await;
    assert_eq!(place.count("SELECT COUNT(*) FROM sinks WHERE name = 'ranking'").await, 0, "its relay does not run");
    stopping.cancel();
    working.await.expect("stopped");
    place.end().await;
}

fn wanted(user: u64, coupon: CouponId, request: Option<&str>) -> (String, Vec<u8>) {
    let value = json!({"userId": user, "couponId": coupon, "requestId": request});
    (user.to_string(), value.to_string().into_bytes())
}

/// I1 and I2: a thousand requests of four hundred users for a hundred coupons, some twice with the same id, some without
/// one. The consumer dies when it has claimed, so all come again, which changes nothing.
#[tokio::test]
async fn i1_and_i2_a_rush_by_kafka_issues_each_coupon_once_however_often_requests_come() {
    let (brokers, place) = (Brokers::new().await, TestEnvironment::new().await);
    let campaign = place.campaign(100).await;
    let named: Vec<String> = (0..400).map(|_| new_uuid().to_string()).collect();
    let requests = (0..1_000_u64).map(|number| {
        let user = number % 400 + 1;
        let name = (number % 3 > 0).then(|| named[usize::try_from(number % 400).expect("few")].as_str());
        wanted(user, campaign.id, name)
    });
    brokers.produce(CLAIM_REQUESTS, requests.collect::<Vec<_>>()).await;
    Box::pin(live_and_die(&brokers, &[CLAIM_REQUESTS], ClaimRequestHandler::new(&place.database, &place.redis))).await;
    work(&place).await;
    let mut intake = intake(&brokers, &place);
    handle(&mut intake, 1_000).await;
    work(&place).await;
    assert_eq!(place.count("SELECT COUNT(*) FROM user_coupons").await, 100);
    assert_eq!(place.count("SELECT COUNT(DISTINCT user_id) FROM user_coupons").await, 100);
    assert_eq!(place.count("SELECT COUNT(*) FROM claim_rejections").await, 0);
    let counts =
        campaign_state::counts(&place.redis, campaign.partition, campaign.id).await.expect("redis").expect("held");
    assert_eq!(counts.claimed, 100);
    let both = "SELECT COUNT(*) FROM claim_refusals r JOIN user_coupons u ON u.user_coupon_id = r.claim_id";
    assert_eq!(place.count(both).await, 0, "a claim has one outcome");
    let without = "SELECT 400 - COUNT(DISTINCT user_id) FROM (SELECT user_id FROM claim_refusals \
                   UNION SELECT user_id FROM user_coupons) AS told";
    assert_eq!(place.count(without).await, 0, "every user can read an outcome");
    assert_eq!(place.count("SELECT COUNT(*) FROM claim_refusals WHERE code <> 'COUPON_EXHAUSTED'").await, 0);
    intake.leave().await;
    place.end().await;
}

/// Who is refused can read why; what can never be a claim is a dead letter; those behind both are served.
#[tokio::test]
async fn i3_every_request_by_kafka_has_an_outcome_or_is_a_dead_letter() {
    let (brokers, place) = (Brokers::new().await, TestEnvironment::new().await);
    let open = place.campaign(10).await;
    let (hour, now) = (TimeDelta::hours(1), clock::now());
    let early = CampaignTerms { opens_at: now + hour, closes_at: now + hour * 2, ..open_terms() };
    let late = CampaignTerms { opens_at: now - hour * 2, closes_at: now - hour, ..open_terms() };
    let (early, late) = (place.campaign_of(early).await, place.campaign_of(late).await);
    let unknown = CouponId::try_from(4_711).expect("an id");
    let other = new_uuid().to_string();
    let malformed = ["oops", r#"{"userId": 1}"#, "[1, 2]", r#"{"userId": 1, "couponId": 1, "color": "red"}"#];
    let mut requests: Vec<_> = malformed.map(|value| ("1".to_owned(), value.as_bytes().to_vec())).into();
    requests.extend([
        wanted(1, unknown, None),
        wanted(1, early.id, Some("too-early")),
        wanted(2, late.id, Some(&other)),
        wanted(3, open.id, Some(&other)),
        (String::from("3"), vec![b' '; 300_000]),
    ]);
    brokers.produce(CLAIM_REQUESTS, requests).await;
    let mut intake = intake(&brokers, &place);
    handle(&mut intake, 9).await;
    work(&place).await;
    assert_eq!(place.count("SELECT COUNT(*) FROM user_coupons WHERE user_id = 3").await, 1);
    let long = "SELECT payload_bytes FROM dead_letters WHERE reason LIKE '%longer than%'";
    assert_eq!(place.count(long).await, 300_000, "as long as it was, not as what was kept of it");
    let code = async |coupon, user| {
        let found = db::rejected_requests::find_latest(&place.database.pool(), coupon, user).await.expect("looked");
        found.map(|claim| claim.outcome)
    };
    assert_eq!(code(early.id, user(1)).await, Some(ClaimOutcome::Rejected(ClaimRejectReason::CampaignNotOpen)));
    assert_eq!(code(late.id, user(2)).await, Some(ClaimOutcome::Rejected(ClaimRejectReason::CampaignClosed)));
    assert_eq!(code(open.id, user(3)).await, None);
    let pool = &place.database.pool();
    let (pool, soon) = (pool, clock::now() + hour);
    assert_eq!(
        db::rejected_requests::purge(pool, now - hour, 10).await.expect("purged"),
        0,
        "they are kept for a while"
    );
    assert_eq!(db::rejected_requests::purge(pool, soon, 1).await.expect("purged"), 1);
    assert_eq!(db::rejected_requests::purge(pool, soon, 10).await.expect("purged"), 1);
    let letters = letters(&place).await;
    assert_eq!(letters.len(), 6, "{letters:?}");
    let topic = brokers.cluster().topic(CLAIM_REQUESTS);
    assert!(letters.iter().all(|(source, key, _)| source == CLAIM_REQUESTS && key.starts_with(&topic)), "{letters:?}");
    for part in ["couponId", "color", "an object", "no coupon 4711", "longer than"] {
        assert!(letters.iter().any(|(_, _, reason)| reason.contains(part)), "{part}: {letters:?}");
    }
    intake.leave().await;
    place.end().await;
}

/// I1 and I3: one id for requests of two users for two coupons, among others: each is a claim of its own, none takes
/// another's outcome, and none is lost with them; again, they are the same claims.
#[tokio::test]
async fn i1_and_i3_an_id_that_several_requests_share_takes_nothing_from_any() {
    let (brokers, place) = (Brokers::new().await, TestEnvironment::new().await);
    let (one, other) = (place.campaign(100).await, place.campaign(100).await);
    let shared = new_uuid().to_string();
    for (round, requests) in [(1..31, 34), (31..36, 9)] {
        let mut requests_of_all: Vec<_> = round.map(|user| wanted(user, one.id, None)).collect();
        let sharing = [(40, one.id), (41, one.id), (40, other.id), (41, other.id)];
        requests_of_all.splice(3..3, sharing.map(|(user, coupon)| wanted(user, coupon, Some(&shared))));
        brokers.produce(CLAIM_REQUESTS, requests_of_all).await;
        let mut intake = intake(&brokers, &place);
        handle(&mut intake, requests).await;
        work(&place).await;
        intake.leave().await;
    }
    assert_eq!(place.count("SELECT COUNT(*) FROM user_coupons").await, 39);
    assert_eq!(place.count("SELECT COUNT(DISTINCT coupon_id, user_id) FROM user_coupons").await, 39);
    assert_eq!(place.count("SELECT COUNT(*) FROM user_coupons WHERE user_id IN (40, 41)").await, 4);
    assert_eq!(place.count("SELECT COUNT(*) FROM claim_rejections").await, 0);
    assert_eq!(letters(&place).await, []);
    let counts = campaign_state::counts(&place.redis, one.partition, one.id).await.expect("redis").expect("held");
    assert_eq!(counts.claimed, 37);
    place.end().await;
}

/// I3: Redis is away, or does not hold the campaign yet: requests wait, other campaigns go on, nothing is lost.
#[tokio::test]
async fn i3_requests_by_kafka_wait_for_redis_and_for_their_campaign() {
    let (brokers, place) = (Brokers::new().await, TestEnvironment::new().await);
    let (settings, _database, gate) = place.behind_proxies().await;
    let redis = settings.redis(1).await.expect("redis");
    let held = place.campaign(10).await;
    let absent = place.campaign_in_database(open_terms()).await;
    // Of one key, so in one partition and in one read: who waits holds up what is read after it.
    let together = [wanted(1, absent.id, None), wanted(2, held.id, None)].map(|(_, value)| ("1".to_owned(), value));
    brokers.produce(CLAIM_REQUESTS, together).await;
    let mut intake =
        ClaimRequestConsumer::join_claim_requests(&brokers.cluster(), &place.database, &redis).expect("joined");
    let issued = "SELECT COUNT(*) FROM user_coupons";
    let deadline = tokio::time::Instant::now() + LIMIT;
    while place.count(issued).await == 0 {
        assert!(tokio::time::Instant::now() < deadline, "the other campaign does not go on");
        let _waits = intake.step().await;
        work(&place).await;
    }
    let waits = intake.step().await.expect_err("redis does not hold the campaign");
    assert!(matches!(waits, Error::CampaignUnavailable(coupon) if coupon == absent.id), "{waits}");
    gate.shut();
    intake.step().await.expect_err("redis is away");
    gate.open();
    campaign_put(&place.redis, &absent, CampaignCounts::default()).await.expect("held now");
    while intake.step().await.is_err() {
        assert!(tokio::time::Instant::now() < deadline, "requests are not taken when Redis is back");
    }
    work(&place).await;
    assert_eq!(place.count(issued).await, 2);
    assert_eq!(place.count("SELECT COUNT(*) FROM claim_refusals").await, 0);
    intake.leave().await;
    redis.close().await;
    place.end().await;
}
