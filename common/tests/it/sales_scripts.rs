use chrono::{NaiveDate, TimeDelta};
use dibs_common::{
    clock::{self, Timestamp},
    domain::ranking::{Effect, Scores},
    identifiers::{ProductId, new_uuid},
    redis::{
        sales,
        scripts::{SalesApplied, SalesMemory, SalesMessage, pieces, sales_apply, sales_count, sales_put, sales_window},
    },
    testing::TestEnvironment,
};
use fred::interfaces::{HashesInterface as _, KeysInterface as _};
use uuid::Uuid;

fn product(number: u64) -> ProductId {
    number.try_into().expect("an id")
}

fn day(number: u32) -> NaiveDate {
    NaiveDate::from_ymd_opt(2026, 11, number).expect("a day")
}

/// A change of a sequence, on a day of November, of a product.
fn sold(sequence: u64, on: u32, of: u64, units: i64) -> (u64, Effect) {
    (sequence, Effect { day: day(on), product: product(of), units })
}

async fn apply(place: &TestEnvironment, span: (u64, u64), effects: &[(u64, Effect)]) -> SalesApplied {
    let in_an_hour = clock::now() + TimeDelta::hours(1);
    sales_apply(&place.redis, span, effects, |_| in_an_hour).await.expect("redis")
}

/// Puts days in place as a rebuild does: Redis is made to forget how far it has counted, first.
async fn put(place: &TestEnvironment, rebuild: Uuid, sequence: u64, days: &[(NaiveDate, Timestamp)]) {
    sales::forget(&place.redis).await.expect("forgotten");
    assert!(sales_put(&place.redis, rebuild, sequence, days).await.expect("put"));
}

#[tokio::test]
async fn sales_apply_counts_each_sequence_once_and_refuses_a_gap() {
    let place = TestEnvironment::new().await;
    assert_eq!(apply(&place, (1, 1), &[sold(1, 20, 7, 2)]).await, SalesApplied::Gap(0));
    assert_eq!(place.keys().await, Vec::<String>::new());
    put(&place, new_uuid(), 4, &[]).await;
    let batch = [sold(5, 20, 7, 2), sold(5, 20, 10, 1), sold(6, 21, 7, 3), sold(7, 20, 10, -1)];
    assert_eq!(apply(&place, (6, 7), &batch[2..]).await, SalesApplied::Gap(4));
    assert_eq!(apply(&place, (5, 7), &batch).await, SalesApplied::Applied(7));
    assert_eq!(apply(&place, (5, 7), &batch).await, SalesApplied::Applied(7), "again");
    assert_eq!(apply(&place, (6, 9), &[sold(6, 21, 7, 3), sold(9, 21, 7, 1)]).await, SalesApplied::Applied(9));
    assert_eq!(apply(&place, (10, 9), &[]).await, SalesApplied::Applied(9), "nothing happened");
    let daily = async |on| sales::daily(&place.redis, day(on)).await.expect("redis");
    assert_eq!(daily(20).await, Scores::from([(product(7), 2)]), "what comes to nothing is none");
    assert_eq!(daily(21).await, Scores::from([(product(7), 4)]));
    assert_eq!(sales::applied(&place.redis).await.expect("redis"), Some(9));
    let expires: i64 = place.redis.client().ttl(place.redis.keys.daily_sales(day(20))).await.expect("redis");
    assert!((3_590..=3_600).contains(&expires), "{expires}");
    place.end().await;
}

#[tokio::test]
async fn sales_apply_changes_nothing_when_a_day_is_not_what_it_should_be() {
    let place = TestEnvironment::new().await;
    put(&place, new_uuid(), 0, &[]).await;
    let key = place.redis.keys.daily_sales(day(21));
    place.redis.client().set::<(), _, _>(key, "text", None, None, false).await.expect("set");
    let batch = [sold(1, 20, 7, 2), sold(1, 21, 7, 2)];
    sales_apply(&place.redis, (1, 1), &batch, |_| clock::now()).await.expect_err("a day of another type");
    assert_eq!(sales::applied(&place.redis).await.expect("redis"), Some(0));
    assert_eq!(sales::daily(&place.redis, day(20)).await.expect("redis"), Scores::new());
    place.end().await;
}

/// A message at an offset of a source, which tells that so many units of product 7 were sold on 20 November.
fn message(source: &str, offset: u64, sequence: u64, units: i64) -> SalesMessage {
    let effects = vec![Effect { day: day(20), product: product(7), units }];
    SalesMessage { source: source.into(), offset, sequence, effects }
}

/// Counts as one who remembers nothing.
async fn count(place: &TestEnvironment, messages: &[SalesMessage]) -> bool {
    count_on(place, &mut SalesMemory::default(), messages).await
}

async fn count_on(place: &TestEnvironment, memory: &mut SalesMemory, messages: &[SalesMessage]) -> bool {
    let in_an_hour = clock::now() + TimeDelta::hours(1);
    sales_count(&place.redis, memory, messages, |_| in_an_hour).await.expect("redis")
}

#[tokio::test]
async fn sales_count_counts_each_message_of_a_source_once_and_none_that_a_rebuild_has_counted() {
    let place = TestEnvironment::new().await;
    assert!(!count(&place, &[message("paid/0", 0, 1, 2)]).await, "nobody knows what is counted");
    assert!(!count(&place, &[]).await, "nor when nothing comes");
    assert_eq!(place.keys().await, Vec::<String>::new());
    put(&place, new_uuid(), 4, &[]).await;
    assert!(count(&place, &[message("paid/0", 0, 4, 100), message("paid/0", 1, 6, 2)]).await);
    let units = async || sales::daily(&place.redis, day(20)).await.expect("redis").get(&product(7)).copied();
    assert_eq!(units().await, Some(2), "what the rebuild counted is passed over");
    let again = [message("paid/0", 1, 6, 2), message("paid/0", 2, 6, 2), message("paid/0", 3, 8, 3)];
    assert!(count(&place, &again).await && count(&place, &again).await);
    assert_eq!(units().await, Some(5), "in one call, and in another");
    assert!(count(&place, &[message("cancelled/0", 0, 5, -1), message("paid/1", 40, 7, 4)]).await);
    assert_eq!(units().await, Some(8), "sources are apart");
    assert!(count(&place, &[message("paid/0", 2, 9, 1)]).await, "one who is late does not move it back");
    assert!(count(&place, &[message("paid/0", 4, 10, 1)]).await);
    assert_eq!(units().await, Some(10));
    assert!(!count(&place, &[message("paid/0", 6, 12, 1)]).await, "one was dropped unread");
    assert_eq!(units().await, Some(10));
    put(&place, new_uuid(), 12, &[]).await;
    assert!(count(&place, &[message("paid/0", 6, 12, 1), message("paid/0", 7, 13, 1)]).await);
    assert_eq!(units().await, Some(11));
    place.end().await;
}

#[tokio::test]
async fn sales_count_refuses_when_redis_no_longer_holds_what_is_remembered() {
    let place = TestEnvironment::new().await;
    let (mut memory, key) = (SalesMemory::default(), place.redis.keys.sales_counted());
    let write = async |entry: &str| {
        place.redis.client().hset::<(), _, _>(&key, ("paid/0", entry)).await.expect("written");
    };
    put(&place, new_uuid(), 4, &[]).await;
    assert!(count_on(&place, &mut memory, &[message("paid/0", 0, 5, 1), message("paid/0", 1, 6, 1)]).await);
    write("5 1").await;
    assert!(!count_on(&place, &mut memory, &[]).await, "also when nothing comes");
    assert!(!count_on(&place, &mut memory, &[message("paid/1", 0, 7, 1)]).await, "also when others come");
    write("9 4").await;
    assert!(count_on(&place, &mut memory, &[]).await, "another counted more");
    place.redis.client().hdel::<(), _, _>(&key, "paid/0").await.expect("deleted");
    assert!(!count_on(&place, &mut memory, &[message("paid/0", 2, 10, 1)]).await);
    let units = async || sales::daily(&place.redis, day(20)).await.expect("redis").get(&product(7)).copied();
    assert_eq!(units().await, Some(2));
    put(&place, new_uuid(), 10, &[]).await;
    assert!(count_on(&place, &mut memory, &[message("paid/1", 3, 11, 1)]).await, "another made the days anew");
    assert!(count_on(&place, &mut memory, &[]).await, "what was counted before that is forgotten");
    put(&place, new_uuid(), 9, &[]).await;
    assert!(!count_on(&place, &mut memory, &[]).await, "an older Redis, from before the days were made anew");
    place.end().await;
}

#[test]
fn pieces_end_at_a_gap_and_where_there_is_too_much_for_one_call() {
    let offsets = |messages: &[SalesMessage]| -> Vec<Vec<u64>> {
        let offsets = |piece: &&[SalesMessage]| piece.iter().map(|message| message.offset).collect();
        pieces(messages).iter().map(offsets).collect()
    };
    assert_eq!(offsets(&[]), [[0; 0]], "there is a call when nothing comes");
    let at = |source, offset| message(source, offset, offset, 1);
    let mixed = [at("a", 0), at("b", 70), at("a", 1), at("a", 0), at("a", 2), at("b", 71)];
    assert_eq!(offsets(&mixed).len(), 1, "what comes again is no gap");
    assert_eq!(offsets(&[at("a", 0), at("b", 70), at("a", 2), at("b", 71)]), [vec![0, 70], vec![2, 71]]);
    let large = |offset, changes| {
        let one = message("a", offset, offset, 1);
        SalesMessage { effects: one.effects.repeat(changes), ..one }
    };
    assert_eq!(offsets(&[0, 1, 2, 3, 4].map(|offset| large(offset, 2_000))), [vec![0, 1], vec![2, 3], vec![4]]);
    assert_eq!(offsets(&[large(0, 9_000), large(1, 1)]), [[0], [1]]);
}

/// Who counts from the outbox does not count on what was counted from Kafka.
#[tokio::test]
async fn sales_apply_refuses_while_sales_are_counted_from_kafka() {
    let place = TestEnvironment::new().await;
    put(&place, new_uuid(), 4, &[]).await;
    assert_eq!(apply(&place, (5, 5), &[sold(5, 20, 7, 2)]).await, SalesApplied::Applied(5));
    assert!(!sales::is_counted_from_kafka(&place.redis).await.expect("redis"));
    assert!(count(&place, &[message("paid/0", 0, 6, 2)]).await);
    assert!(sales::is_counted_from_kafka(&place.redis).await.expect("redis"));
    assert_eq!(apply(&place, (6, 6), &[sold(6, 20, 7, 2)]).await, SalesApplied::Gap(5));
    put(&place, new_uuid(), 6, &[]).await;
    assert!(!sales::is_counted_from_kafka(&place.redis).await.expect("redis"));
    assert_eq!(apply(&place, (7, 7), &[]).await, SalesApplied::Applied(7));
    place.end().await;
}

#[tokio::test]
async fn sales_put_replaces_days_whole_and_forgets_those_without_sales() {
    let place = TestEnvironment::new().await;
    put(&place, new_uuid(), 0, &[]).await;
    apply(&place, (1, 1), &[sold(1, 20, 7, 2), sold(1, 21, 7, 2)]).await;
    let (rebuild, in_an_hour) = (new_uuid(), clock::now() + TimeDelta::hours(1));
    let staged = place.redis.keys.staged(&place.redis.keys.daily_sales(day(20)), rebuild);
    sales::stage(&place.redis, &staged, &Scores::from([(product(8), 5)]), 1).await.expect("staged");
    put(&place, rebuild, 3, &[(day(20), in_an_hour), (day(21), in_an_hour)]).await;
    let daily = async |on| sales::daily(&place.redis, day(on)).await.expect("redis");
    assert_eq!((daily(20).await, daily(21).await), (Scores::from([(product(8), 5)]), Scores::new()));
    assert_eq!(sales::applied(&place.redis).await.expect("redis"), Some(3));
    assert!(!sales_put(&place.redis, new_uuid(), 2, &[(day(20), in_an_hour)]).await.expect("redis"), "it is too late");
    assert_eq!(daily(20).await, Scores::from([(product(8), 5)]));
    assert!(place.keys().await.iter().all(|key| !key.contains("staged")), "nothing staged is left");
    place.end().await;
}

#[tokio::test]
async fn sales_window_shows_what_was_staged_and_nothing_without_knowing_what_is_counted() {
    let place = TestEnvironment::new().await;
    let (making, now) = (new_uuid(), clock::now());
    let show = async || sales_window(&place.redis, 3, making, day(21), now).await.expect("redis");
    let staged = place.redis.keys.staged(&place.redis.keys.sales_window(3), making);
    let sold = Scores::from([(product(3), 4), (product(20), 3), (product(100), 3)]);
    sales::stage(&place.redis, &staged, &sold, -1).await.expect("staged");
    assert!(!show().await, "what was counted is not known");
    assert_eq!(sales::window_made(&place.redis, 3).await.expect("redis"), None);
    put(&place, new_uuid(), 0, &[]).await;
    assert!(show().await);
    let window = sales::window(&place.redis, 3, 2).await.expect("redis");
    assert_eq!(window, [(product(3), 4), (product(20), 3)]);
    assert_eq!(sales::window_place(&place.redis, 3, product(100)).await.expect("redis"), Some((3, 3)));
    assert!(show().await, "nothing is staged now");
    assert_eq!(sales::window(&place.redis, 3, 2).await.expect("redis"), []);
    assert!(place.keys().await.iter().all(|key| !key.contains("staged")), "nothing staged is left");
    place.end().await;
}
