use std::sync::LazyLock;

use chrono::{NaiveDate, TimeDelta};
use chrono_tz::{Asia::Seoul, Tz};
use dibs_common::{
    clock::{self, Timestamp},
    domain::{
        event::{Epoch, Position},
        ranking::{SalesChange, Scores, business_day, days_before, expires_at},
    },
    identifiers::{ProductId, new_uuid},
    redis::{SalesBatch, SalesCounted, SalesCounter, SalesMessage, sales, scripts::sales_put, split_at_gaps},
    testing::TestEnvironment,
};
use fred::interfaces::{HashesInterface as _, KeysInterface as _};
use uuid::Uuid;

pub const ZONE: Tz = Seoul;
/// Fixed for the process, so that a test around midnight sees one day. Keys of days long gone expire at once.
pub static TODAY: LazyLock<NaiveDate> = LazyLock::new(|| business_day(clock::now(), ZONE));

pub fn product(number: u64) -> ProductId {
    number.try_into().expect("an id")
}

/// Day 21 is today.
pub fn day(number: u64) -> NaiveDate {
    days_before(*TODAY, 21 - number)
}

/// A change by the event of a sequence.
pub fn sold(sequence: u64, on: u64, of: u64, units: i64) -> (u64, SalesChange) {
    (sequence, SalesChange { day: day(on), product: product(of), units })
}

pub async fn apply(
    environment: &TestEnvironment,
    (first, last): (u64, u64),
    changes: &[(u64, SalesChange)],
) -> SalesCounted {
    let batch = SalesBatch::Outbox { sequences: first..=last, changes };
    SalesCounter::new(&environment.redis, ZONE).count(batch).await.expect("redis")
}

pub const fn at(sequence: u64) -> Position {
    Position { epoch: Epoch(0), sequence }
}

/// Replaces days as a rebuild does: the position of the counters is deleted first.
pub async fn put(environment: &TestEnvironment, rebuild: Uuid, sequence: u64, days: &[(NaiveDate, Timestamp)]) {
    sales::invalidate(&environment.redis).await.expect("invalidated");
    assert!(sales_put(&environment.redis, rebuild, at(sequence), days, *TODAY).await.expect("put"));
}

#[tokio::test]
async fn sales_apply_counts_each_sequence_once_and_refuses_a_gap() {
    let environment = TestEnvironment::new().await;
    assert_eq!(apply(&environment, (1, 1), &[sold(1, 20, 7, 2)]).await, SalesCounted::Gap { applied: 0 });
    assert_eq!(environment.keys().await, Vec::<String>::new());
    put(&environment, new_uuid(), 4, &[]).await;
    let batch = [sold(5, 20, 7, 2), sold(5, 20, 10, 1), sold(6, 21, 7, 3), sold(7, 20, 10, -1)];
    assert_eq!(apply(&environment, (6, 7), &batch[2..]).await, SalesCounted::Gap { applied: 4 });
    assert_eq!(apply(&environment, (5, 7), &batch).await, SalesCounted::Counted);
    assert_eq!(apply(&environment, (5, 7), &batch).await, SalesCounted::Counted, "again");
    assert_eq!(apply(&environment, (6, 9), &[sold(6, 21, 7, 3), sold(9, 21, 7, 1)]).await, SalesCounted::Counted);
    assert_eq!(apply(&environment, (10, 9), &[]).await, SalesCounted::Counted, "nothing happened");
    let daily = async |on| sales::daily(&environment.redis, day(on)).await.expect("redis");
    assert_eq!(daily(20).await, Scores::from([(product(7), 2)]), "what comes to nothing is none");
    assert_eq!(daily(21).await, Scores::from([(product(7), 4)]));
    assert_eq!(sales::applied(&environment.redis).await.expect("redis"), Some(at(9)));
    let expires: i64 =
        environment.redis.client().expire_time(environment.redis.keys.daily_sales(day(20))).await.expect("redis");
    assert_eq!(expires, expires_at(day(20), ZONE).timestamp());
    environment.end().await;
}

/// The database was restored: it gives sequences again that are counted already.
#[tokio::test]
async fn sales_of_another_epoch_are_a_gap_until_the_days_are_rebuilt() {
    let environment = TestEnvironment::new().await;
    put(&environment, new_uuid(), 9, &[]).await;
    let mut counter = SalesCounter::new(&environment.redis, ZONE);
    counter.epoch = Epoch(1_790_000_000);
    let batch = [sold(5, 20, 7, 2)];
    let outbox = SalesBatch::Outbox { sequences: 5..=5, changes: &batch };
    assert_eq!(counter.count(outbox.clone()).await.expect("redis"), SalesCounted::Gap { applied: 9 });
    assert!(!count_on(&mut counter, &[]).await, "of Kafka as well");
    sales::invalidate(&environment.redis).await.expect("invalidated");
    let restored = Position { epoch: counter.epoch, sequence: 4 };
    assert!(sales_put(&environment.redis, new_uuid(), restored, &[], *TODAY).await.expect("put"));
    assert_eq!(counter.count(outbox).await.expect("redis"), SalesCounted::Counted);
    let applied = Position { sequence: 5, ..restored };
    assert_eq!(sales::applied(&environment.redis).await.expect("redis"), Some(applied));
    assert!(count_on(&mut counter, &[]).await);
    environment.end().await;
}

#[tokio::test]
async fn sales_apply_changes_nothing_when_a_day_is_not_what_it_should_be() {
    let environment = TestEnvironment::new().await;
    put(&environment, new_uuid(), 0, &[]).await;
    let key = environment.redis.keys.daily_sales(day(21));
    environment.redis.client().set::<(), _, _>(key, "text", None, None, false).await.expect("set");
    let batch = [sold(1, 20, 7, 2), sold(1, 21, 7, 2)];
    let mut counter = SalesCounter::new(&environment.redis, ZONE);
    let batch = SalesBatch::Outbox { sequences: 1..=1, changes: &batch };
    counter.count(batch).await.expect_err("a day of another type");
    assert_eq!(sales::applied(&environment.redis).await.expect("redis"), Some(at(0)));
    assert_eq!(sales::daily(&environment.redis, day(20)).await.expect("redis"), Scores::new());
    environment.end().await;
}

/// A message at an offset of a source: units of product 7, sold on day 20.
pub fn message(source: &str, offset: u64, sequence: u64, units: i64) -> SalesMessage {
    let changes = vec![SalesChange { day: day(20), product: product(7), units }];
    SalesMessage { source: source.into(), offset, sequence, changes }
}

/// Counts as a consumer that remembers nothing.
async fn count(environment: &TestEnvironment, messages: &[SalesMessage]) -> bool {
    count_on(&mut SalesCounter::new(&environment.redis, ZONE), messages).await
}

async fn count_on(counter: &mut SalesCounter, messages: &[SalesMessage]) -> bool {
    counter.count(SalesBatch::Kafka(messages)).await.expect("redis") == SalesCounted::Counted
}

#[tokio::test]
async fn sales_count_counts_each_message_of_a_source_once_and_none_that_a_rebuild_has_counted() {
    let environment = TestEnvironment::new().await;
    assert!(!count(&environment, &[message("paid/0", 0, 1, 2)]).await, "the position is unknown");
    assert!(!count(&environment, &[]).await, "also without messages");
    assert_eq!(environment.keys().await, Vec::<String>::new());
    put(&environment, new_uuid(), 4, &[]).await;
    assert!(count(&environment, &[message("paid/0", 0, 4, 100), message("paid/0", 1, 6, 2)]).await);
    let units = async || sales::daily(&environment.redis, day(20)).await.expect("redis").get(&product(7)).copied();
    assert_eq!(units().await, Some(2), "what the rebuild counted is passed over");
    let again = [message("paid/0", 1, 6, 2), message("paid/0", 2, 6, 2), message("paid/0", 3, 8, 3)];
    assert!(count(&environment, &again).await && count(&environment, &again).await);
    assert_eq!(units().await, Some(5), "in one call, and in another");
    assert!(count(&environment, &[message("cancelled/0", 0, 5, -1), message("paid/1", 40, 7, 4)]).await);
    assert_eq!(units().await, Some(8), "sources are apart");
    assert!(count(&environment, &[message("paid/0", 2, 9, 1)]).await, "a late message does not move it back");
    assert!(count(&environment, &[message("paid/0", 4, 10, 1)]).await);
    assert_eq!(units().await, Some(10));
    assert!(!count(&environment, &[message("paid/0", 6, 12, 1)]).await, "one was dropped unread");
    assert_eq!(units().await, Some(10));
    put(&environment, new_uuid(), 12, &[]).await;
    assert!(count(&environment, &[message("paid/0", 6, 12, 1), message("paid/0", 7, 13, 1)]).await);
    assert_eq!(units().await, Some(11));
    environment.end().await;
}

#[tokio::test]
async fn sales_count_refuses_when_redis_no_longer_holds_what_is_remembered() {
    let environment = TestEnvironment::new().await;
    let (mut counter, key) = (SalesCounter::new(&environment.redis, ZONE), environment.redis.keys.sales_counted());
    let write = async |entry: &str| {
        environment.redis.client().hset::<(), _, _>(&key, ("paid/0", entry)).await.expect("written");
    };
    put(&environment, new_uuid(), 4, &[]).await;
    assert!(count_on(&mut counter, &[message("paid/0", 0, 5, 1), message("paid/0", 1, 6, 1)]).await);
    write("5 1").await;
    assert!(!count_on(&mut counter, &[]).await, "also when nothing comes");
    assert!(!count_on(&mut counter, &[message("paid/1", 0, 7, 1)]).await, "also when others come");
    write("9 4").await;
    assert!(count_on(&mut counter, &[]).await, "another counted more");
    environment.redis.client().hdel::<(), _, _>(&key, "paid/0").await.expect("deleted");
    assert!(!count_on(&mut counter, &[message("paid/0", 2, 10, 1)]).await);
    let units = async || sales::daily(&environment.redis, day(20)).await.expect("redis").get(&product(7)).copied();
    assert_eq!(units().await, Some(2));
    put(&environment, new_uuid(), 10, &[]).await;
    assert!(count_on(&mut counter, &[message("paid/1", 3, 11, 1)]).await, "another rebuilt the days");
    assert!(count_on(&mut counter, &[]).await, "what was counted before that is forgotten");
    put(&environment, new_uuid(), 9, &[]).await;
    assert!(!count_on(&mut counter, &[]).await, "an older Redis, from before the rebuild");
    environment.end().await;
}

#[test]
fn batches_end_at_a_gap_and_where_one_call_would_change_too_much() {
    let offsets = |messages: &[SalesMessage]| -> Vec<Vec<u64>> {
        let offsets = |batch: &&[SalesMessage]| batch.iter().map(|message| message.offset).collect();
        split_at_gaps(messages).iter().map(offsets).collect()
    };
    assert_eq!(offsets(&[]), [[0; 0]], "there is a call when nothing comes");
    let at = |source, offset| message(source, offset, offset, 1);
    let mixed = [at("a", 0), at("b", 70), at("a", 1), at("a", 0), at("a", 2), at("b", 71)];
    assert_eq!(offsets(&mixed).len(), 1, "what comes again is no gap");
    assert_eq!(offsets(&[at("a", 0), at("b", 70), at("a", 2), at("b", 71)]), [vec![0, 70], vec![2, 71]]);
    let large = |offset, changes| {
        let one = message("a", offset, offset, 1);
        SalesMessage { changes: one.changes.repeat(changes), ..one }
    };
    assert_eq!(offsets(&[0, 1, 2, 3, 4].map(|offset| large(offset, 400))), [vec![0, 1], vec![2, 3], vec![4]]);
    assert_eq!(offsets(&[large(0, 9_000), large(1, 1)]), [[0], [1]]);
}

/// A process that counts from the outbox does not continue what was counted from Kafka.
#[tokio::test]
async fn sales_apply_refuses_while_sales_are_counted_from_kafka() {
    let environment = TestEnvironment::new().await;
    put(&environment, new_uuid(), 4, &[]).await;
    assert_eq!(apply(&environment, (5, 5), &[sold(5, 20, 7, 2)]).await, SalesCounted::Counted);
    assert!(!sales::is_counted_from_kafka(&environment.redis).await.expect("redis"));
    assert!(count(&environment, &[message("paid/0", 0, 6, 2)]).await);
    assert!(sales::is_counted_from_kafka(&environment.redis).await.expect("redis"));
    assert_eq!(apply(&environment, (6, 6), &[sold(6, 20, 7, 2)]).await, SalesCounted::Gap { applied: 5 });
    put(&environment, new_uuid(), 6, &[]).await;
    assert!(!sales::is_counted_from_kafka(&environment.redis).await.expect("redis"));
    assert_eq!(apply(&environment, (7, 7), &[]).await, SalesCounted::Counted);
    environment.end().await;
}

#[tokio::test]
async fn sales_put_replaces_days_whole_and_forgets_those_without_sales() {
    let environment = TestEnvironment::new().await;
    put(&environment, new_uuid(), 0, &[]).await;
    apply(&environment, (1, 1), &[sold(1, 20, 7, 2), sold(1, 21, 7, 2)]).await;
    let (rebuild, in_an_hour) = (new_uuid(), clock::now() + TimeDelta::hours(1));
    let staged = environment.redis.keys.staged(&environment.redis.keys.daily_sales(day(20)), rebuild);
    sales::write_staged(&environment.redis, &staged, &Scores::from([(product(8), 5)]), 1).await.expect("staged");
    put(&environment, rebuild, 3, &[(day(20), in_an_hour), (day(21), in_an_hour)]).await;
    let daily = async |on| sales::daily(&environment.redis, day(on)).await.expect("redis");
    assert_eq!((daily(20).await, daily(21).await), (Scores::from([(product(8), 5)]), Scores::new()));
    assert_eq!(sales::applied(&environment.redis).await.expect("redis"), Some(at(3)));
    assert!(
        !sales_put(&environment.redis, new_uuid(), at(2), &[(day(20), in_an_hour)], *TODAY).await.expect("redis"),
        "it is too late"
    );
    assert_eq!(daily(20).await, Scores::from([(product(8), 5)]));
    assert!(environment.keys().await.iter().all(|key| !key.contains("staged")), "nothing staged is left");
    environment.end().await;
}
