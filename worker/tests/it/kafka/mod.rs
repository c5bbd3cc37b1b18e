//! Kafka on a mock cluster of its own client, which speaks the protocol on loopback ports; and on the brokers of
//! `KAFKA_BROKERS` where these are set, but for tests in which brokers become unreachable.

mod claim_requests;
mod doctor;
mod publishing;
mod ranking;
mod whole_worker;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    env,
    time::Duration,
};

use dibs_common::{
    clock,
    db::{self, dead_letters::DeadLettersPage},
    domain::ranking::{EVENTS, business_day},
    error::{Error, Result},
    identifiers::{CouponId, new_uuid},
    integrations::messages::messages,
    redis::sales,
    testing::TestEnvironment,
};
use dibs_worker::{
    kafka::{
        ACK_TIMEOUT, CLAIM_REQUESTS, ClaimRequestConsumer, Cluster, Consumer, Handler, KAFKA, KafkaSettings, KafkaSink,
        RankingConsumer, Record,
    },
    relay::{Relay, Sink, StepOutcome},
};
use rdkafka::{
    Message as _, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    config::ClientConfig,
    consumer::{BaseConsumer, Consumer as _},
    message::Headers as _,
    mocking::MockCluster,
    producer::{DefaultProducerContext, FutureProducer, FutureRecord},
    util::Timeout,
};
use serde_json::{Value, json};

use crate::ranking::{ZONE, sums};

const LIMIT: Duration = Duration::from_secs(30);
/// The acknowledgement timeout where brokers are unreachable.
const IMPATIENT: Duration = Duration::from_millis(300);
const PARTITIONS: i32 = 3;

/// Brokers, with topics of this test's own.
struct Brokers {
    mock: Option<MockCluster<'static, DefaultProducerContext>>,
    settings: KafkaSettings,
}

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
    fn published(&self) -> Vec<Found> {
        TOPICS.iter().filter(|topic| **topic != CLAIM_REQUESTS).flat_map(|topic| self.read(topic)).collect()
    }
}

async fn register(environment: &TestEnvironment) {
    db::outbox::register_sink(&environment.database.pool(), KAFKA, clock::now()).await.expect("registered");
}

async fn number_all(environment: &TestEnvironment) {
    while db::outbox::sequence_events(&environment.database).await.expect("numbered") > 0 {}
}

/// Delivers all that happened to a sink.
async fn send_all(environment: &TestEnvironment, sink: impl Sink) {
    number_all(environment).await;
    let mut relay = Relay::new(&environment.database, sink);
    while relay.step(clock::now()).await.expect("delivered") == StepOutcome::Delivered {}
    relay.release_lease().await;
}

/// The ids of all messages that are to be published.
async fn expected_ids(environment: &TestEnvironment) -> BTreeSet<String> {
    let mut connection = environment.database.pool().acquire().await.expect("a connection");
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

fn counter(brokers: &Brokers, environment: &TestEnvironment) -> RankingConsumer {
    RankingConsumer::join_ranking(&brokers.cluster(), &environment.database, &environment.redis, ZONE).expect("joined")
}

fn request_consumer(brokers: &Brokers, environment: &TestEnvironment) -> ClaimRequestConsumer {
    ClaimRequestConsumer::join_claim_requests(&brokers.cluster(), &environment.database, &environment.redis)
        .expect("joined")
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

/// What dead letters say: source, key, reason.
async fn letters(environment: &TestEnvironment) -> Vec<(String, String, String)> {
    let page = DeadLettersPage { limit: 100, ..DeadLettersPage::default() };
    let letters = db::dead_letters::list(&environment.database.pool(), &page).await.expect("letters");
    letters.into_iter().rev().map(|letter| (letter.source, letter.source_key, letter.reason)).collect()
}

fn wanted(user: u64, coupon: CouponId, request: Option<&str>) -> (String, Vec<u8>) {
    let value = json!({"userId": user, "couponId": coupon, "requestId": request});
    (user.to_string(), value.to_string().into_bytes())
}

/// Whether as much is counted of each product today as orders say.
async fn all_is_counted(environment: &TestEnvironment) -> bool {
    let today = business_day(clock::now(), ZONE);
    sales::daily(&environment.redis, today).await.expect("redis") == sums(environment, today).await
}
