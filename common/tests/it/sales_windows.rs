//! The windows of sales, as the scripts change and replace them.

use chrono::{NaiveDate, TimeDelta};
use dibs_common::{
    clock,
    domain::ranking::{SalesChange, Scores},
    identifiers::new_uuid,
    redis::{
        SalesBatch, SalesCounted, SalesCounter, sales,
        scripts::{BuildStep, sales_build_begin, sales_build_step, sales_put},
    },
    testing::{TestEnvironment, expect_windows_of_days},
};
use fred::interfaces::{HashesInterface as _, KeysInterface as _, SetsInterface as _, SortedSetsInterface as _};
use uuid::Uuid;

use crate::sales_scripts::{TODAY, ZONE, apply, at, day, message, product, put, sold};

/// An environment whose windows count, up to today.
async fn counting() -> TestEnvironment {
    let environment = TestEnvironment::new().await;
    put(&environment, new_uuid(), 0, &[]).await;
    environment
}

async fn window(environment: &TestEnvironment, days: u8) -> Scores {
    sales::whole_window(&environment.redis, days).await.expect("redis")
}

async fn begin(environment: &TestEnvironment) -> Uuid {
    let build = new_uuid();
    assert!(sales_build_begin(&environment.redis, build).await.expect("redis"));
    build
}

async fn step(environment: &TestEnvironment, build: Uuid, to: NaiveDate) -> BuildStep {
    sales_build_step(&environment.redis, build, to, 2).await.expect("redis")
}

#[tokio::test]
async fn i10_a_change_counts_in_the_windows_of_its_day_once_however_often_it_comes() {
    let environment = counting().await;
    let batch = [sold(1, 21, 7, 2), sold(1, 21, 7, 1), sold(2, 20, 8, 4), sold(3, 15, 9, 6), sold(4, 14, 7, 50)];
    for again in 0..2 {
        assert_eq!(apply(&environment, (1, 4), &batch).await, SalesCounted::Counted);
        let windows = (window(&environment, 1).await, window(&environment, 3).await, window(&environment, 7).await);
        let (today, two) = ((product(7), 3), (product(8), 4));
        let expected = (Scores::from([today]), Scores::from([today, two]), Scores::from([today, two, (product(9), 6)]));
        assert_eq!(windows, expected, "repeated {again} times");
    }
    assert_eq!(apply(&environment, (3, 5), &[batch[3], sold(5, 15, 9, 1)]).await, SalesCounted::Counted);
    assert_eq!(window(&environment, 7).await.get(&product(9)), Some(&7), "a part of it was counted before");
    expect_windows_of_days(&environment.redis, *TODAY, "after all").await;
    environment.end().await;
}

#[tokio::test]
async fn a_cancelled_sale_leaves_the_windows_and_what_comes_to_nothing_has_no_rank() {
    let environment = counting().await;
    apply(&environment, (1, 2), &[sold(1, 21, 7, 2), sold(2, 20, 8, 1), sold(2, 20, 8, -1)]).await;
    assert_eq!(window(&environment, 3).await, Scores::from([(product(7), 2)]));
    apply(&environment, (3, 3), &[sold(3, 21, 7, -2)]).await;
    assert_eq!(window(&environment, 3).await, Scores::new());
    // The window lost its key with its last member, and has it again, until the window ends.
    apply(&environment, (4, 4), &[sold(4, 21, 9, 1)]).await;
    let (keys, client) = (&environment.redis.keys, environment.redis.client());
    let (window, info): (i64, i64) = (
        client.ttl(keys.sales_window(3)).await.expect("redis"),
        client.ttl(keys.sales_window_info(3)).await.expect("redis"),
    );
    assert!(info > 86_000 && window > info, "{window} s, {info} s");
    expect_windows_of_days(&environment.redis, *TODAY, "after all").await;
    environment.end().await;
}

#[tokio::test]
async fn i10_messages_of_kafka_count_in_the_windows_once() {
    let environment = counting().await;
    let mut counter = SalesCounter::new(&environment.redis, ZONE);
    let messages = [message("paid/0", 0, 1, 2), message("paid/0", 1, 2, 3)];
    for _ in 0..2 {
        assert_eq!(counter.count(SalesBatch::Kafka(&messages)).await.expect("redis"), SalesCounted::Counted);
        assert_eq!(window(&environment, 3).await, Scores::from([(product(7), 5)]));
    }
    assert_eq!(window(&environment, 1).await, Scores::new(), "it was yesterday");
    expect_windows_of_days(&environment.redis, *TODAY, "after all").await;
    environment.end().await;
}

/// A reader compares the time of the last change with that of its last reading.
#[tokio::test]
async fn each_change_of_a_window_makes_its_time_greater() {
    let environment = counting().await;
    let updated =
        async |days| sales::window_info(&environment.redis, days).await.expect("redis").expect("a window").updated_at;
    let mut before = (updated(1).await, updated(3).await);
    assert!((clock::now() - before.1).abs() < TimeDelta::seconds(10));
    for sequence in 1..100 {
        apply(&environment, (sequence, sequence), &[sold(sequence, 20, 7, 1)]).await;
        let now = (updated(1).await, updated(3).await);
        assert!(now.1 > before.1 && now.0 == before.0, "{before:?} {now:?}");
        before = now;
    }
    let build = begin(&environment).await;
    assert_eq!(step(&environment, build, *TODAY).await, BuildStep::Shown);
    assert!(updated(3).await > before.1 && updated(1).await > before.0);
    environment.end().await;
}

/// A change of a day that begins before its window does, and one of a day that ended long ago.
#[tokio::test]
async fn at_midnight_a_window_counts_its_own_days_only() {
    let environment = TestEnvironment::new().await;
    sales::invalidate(&environment.redis).await.expect("invalidated");
    assert!(sales_put(&environment.redis, new_uuid(), at(0), &[], day(20)).await.expect("put"));
    apply(&environment, (1, 3), &[sold(1, 21, 7, 2), sold(2, 20, 8, 1), sold(3, 17, 9, 1)]).await;
    assert_eq!(window(&environment, 1).await, Scores::from([(product(8), 1)]), "the last day is yesterday");
    assert_eq!(window(&environment, 3).await, Scores::from([(product(8), 1)]));
    assert_eq!(window(&environment, 7).await, Scores::from([(product(8), 1), (product(9), 1)]));
    environment.end().await;
}

/// During a rolling upgrade workers of the previous version replace windows, and count into days only.
#[tokio::test]
async fn a_window_of_an_older_version_counts_nothing_until_it_is_built() {
    let environment = counting().await;
    let (keys, client) = (&environment.redis.keys, environment.redis.client());
    apply(&environment, (1, 1), &[sold(1, 21, 7, 2)]).await;
    let later = (clock::now() + TimeDelta::seconds(5)).timestamp_millis();
    let write = [("to", day(21).to_string()), ("at", later.to_string())].to_vec();
    client.hset::<(), _, _>(keys.sales_window_info(3), write.clone()).await.expect("redis");
    client.del::<(), _>(keys.sales_window_info(7)).await.expect("redis");
    client.hset::<(), _, _>(keys.sales_window_info(7), write).await.expect("redis");
    client.del::<(), _>(vec![keys.sales_window_info(1), keys.sales_window(1)]).await.expect("redis");
    apply(&environment, (2, 2), &[sold(2, 21, 7, 1)]).await;
    let read = sales::window_info(&environment.redis, 7).await.expect("redis").expect("it can be read");
    assert_eq!((read.to, read.updated_at.timestamp_millis()), (day(21), later));
    assert_eq!(window(&environment, 3).await, Scores::from([(product(7), 2)]), "with a first day of this version");
    assert_eq!(window(&environment, 7).await, Scores::from([(product(7), 2)]), "without one");
    assert_eq!(window(&environment, 1).await, Scores::new(), "a window that is missing");
    assert_eq!(sales::daily(&environment.redis, day(21)).await.expect("redis"), Scores::from([(product(7), 3)]));
    let build = begin(&environment).await;
    for window in [1, 3, 7] {
        let staged = keys.staged(&keys.sales_window(window), build);
        sales::write_staged(&environment.redis, &staged, &Scores::from([(product(7), 3)]), -1).await.expect("staged");
    }
    assert_eq!(step(&environment, build, *TODAY).await, BuildStep::Shown);
    expect_windows_of_days(&environment.redis, *TODAY, "built").await;
    apply(&environment, (3, 3), &[sold(3, 21, 7, 1)]).await;
    expect_windows_of_days(&environment.redis, *TODAY, "counting again").await;
    environment.end().await;
}

#[tokio::test]
async fn changes_are_noted_while_a_build_runs_and_brought_in_step_by_step() {
    let environment = counting().await;
    let (keys, client) = (&environment.redis.keys, environment.redis.client());
    let noted = async || client.scard::<i64, _>(keys.sales_changed()).await.expect("redis");
    let changes: Vec<(u64, SalesChange)> = (1..=5).map(|of| sold(1, 20, of, 1)).collect();
    apply(&environment, (1, 1), &changes).await;
    assert_eq!(noted().await, 0, "no build runs");
    let build = begin(&environment).await;
    let again: Vec<(u64, SalesChange)> = (1..=5).map(|of| sold(2, 20, of, 1)).collect();
    apply(&environment, (2, 2), &again).await;
    assert_eq!(noted().await, 5);
    assert_eq!(step(&environment, build, *TODAY).await, BuildStep::More);
    let staged = keys.staged(&keys.sales_window(3), build);
    assert_eq!(client.zcard::<i64, _>(&staged).await.expect("redis"), 2);
    let expires: i64 = client.ttl(&staged).await.expect("redis");
    assert!(expires > 3_600, "a staged window that this step has made expires, too: {expires}");
    // Both units of this product go, so it has no place in the window that is shown.
    apply(&environment, (3, 3), &[sold(3, 20, 1, -2)]).await;
    let mut steps = 0;
    while step(&environment, build, *TODAY).await == BuildStep::More {
        steps += 1;
    }
    assert!((1..=2).contains(&steps), "{steps}");
    expect_windows_of_days(&environment.redis, *TODAY, "built").await;
    assert_eq!(window(&environment, 3).await.len(), 4);
    let left = environment.keys().await;
    let is_left = |key: &String| ["staged", "building", "changed"].iter().any(|part| key.contains(part));
    assert!(!left.iter().any(is_left), "{left:?}");
    environment.end().await;
}

#[tokio::test]
async fn only_the_newest_build_is_shown_and_none_after_the_days_were_rebuilt() {
    let environment = counting().await;
    apply(&environment, (1, 1), &[sold(1, 21, 7, 2)]).await;
    let (older, newer) = (begin(&environment).await, begin(&environment).await);
    let staged = environment.redis.keys.staged(&environment.redis.keys.sales_window(3), older);
    sales::write_staged(&environment.redis, &staged, &Scores::from([(product(1), 100)]), -1).await.expect("staged");
    apply(&environment, (2, 2), &[sold(2, 21, 7, 1)]).await;
    assert_eq!(step(&environment, older, *TODAY).await, BuildStep::Superseded);
    assert_eq!(
        environment.redis.client().scard::<i64, _>(environment.redis.keys.sales_changed()).await.expect("redis"),
        1
    );
    expect_windows_of_days(&environment.redis, *TODAY, "nothing changed").await;
    put(&environment, new_uuid(), 2, &[]).await;
    assert_eq!(step(&environment, newer, *TODAY).await, BuildStep::Superseded, "it may have read the days before");
    let lost = begin(&environment).await;
    sales::invalidate(&environment.redis).await.expect("invalidated");
    assert_eq!(step(&environment, lost, *TODAY).await, BuildStep::Lost);
    assert!(!sales_build_begin(&environment.redis, new_uuid()).await.expect("redis"), "what is counted is not known");
    environment.end().await;
}

#[tokio::test]
async fn a_build_that_crashes_leaves_keys_that_expire() {
    let environment = counting().await;
    begin(&environment).await;
    apply(&environment, (1, 1), &[sold(1, 21, 7, 2)]).await;
    let (keys, client) = (&environment.redis.keys, environment.redis.client());
    let ttl = async |key: String| client.pttl::<i64, _>(key).await.expect("redis");
    let (building, changed) = (ttl(keys.sales_building()).await, ttl(keys.sales_changed()).await);
    assert!(building > 3_500_000 && changed > building && changed < 3_700_000, "{building} ms, {changed} ms");
    // An hour later.
    client.del::<(), _>(keys.sales_building()).await.expect("redis");
    apply(&environment, (2, 2), &[sold(2, 21, 8, 2)]).await;
    assert_eq!(client.scard::<i64, _>(keys.sales_changed()).await.expect("redis"), 1, "no longer noted");
    let next = begin(&environment).await;
    assert_eq!(ttl(keys.sales_changed()).await, -2, "forgotten");
    let staged = Scores::from([(product(7), 2), (product(8), 2)]);
    for window in [1, 3, 7] {
        let key = keys.staged(&keys.sales_window(window), next);
        sales::write_staged(&environment.redis, &key, &staged, -1).await.expect("staged");
    }
    assert_eq!(step(&environment, next, *TODAY).await, BuildStep::Shown);
    expect_windows_of_days(&environment.redis, *TODAY, "the next").await;
    environment.end().await;
}

#[tokio::test]
async fn rebuilt_days_and_their_windows_are_put_together() {
    let environment = counting().await;
    apply(&environment, (1, 1), &[sold(1, 20, 7, 2), sold(1, 21, 7, 2)]).await;
    let (rebuild, in_an_hour) = (new_uuid(), clock::now() + TimeDelta::hours(1));
    let keys = &environment.redis.keys;
    let write = async |key: String, scores: &Scores, weight| {
        sales::write_staged(&environment.redis, &keys.staged(&key, rebuild), scores, weight).await.expect("staged");
    };
    let other = Scores::from([(product(8), 5)]);
    write(keys.daily_sales(day(20)), &other, 1).await;
    write(keys.sales_window(3), &other, -1).await;
    write(keys.sales_window(7), &other, -1).await;
    put(&environment, rebuild, 3, &[(day(20), in_an_hour), (day(21), in_an_hour)]).await;
    expect_windows_of_days(&environment.redis, *TODAY, "put").await;
    apply(&environment, (4, 4), &[sold(4, 21, 8, 1)]).await;
    assert_eq!(window(&environment, 3).await, Scores::from([(product(8), 6)]));
    assert_eq!(window(&environment, 1).await, Scores::from([(product(8), 1)]));
    environment.end().await;
}

#[tokio::test]
async fn a_change_changes_nothing_when_a_window_is_not_what_it_should_be() {
    let environment = counting().await;
    let (keys, client) = (&environment.redis.keys, environment.redis.client());
    client.set::<(), _, _>(keys.sales_window(7), "text", None, None, false).await.expect("set");
    let batch = [sold(1, 21, 7, 2)];
    let batch = SalesBatch::Outbox { sequences: 1..=1, changes: &batch };
    SalesCounter::new(&environment.redis, ZONE).count(batch).await.expect_err("a window of another type");
    assert_eq!(sales::applied(&environment.redis).await.expect("redis"), Some(at(0)));
    assert_eq!(window(&environment, 1).await, Scores::new());
    let build = begin(&environment).await;
    assert_eq!(step(&environment, build, *TODAY).await, BuildStep::Shown, "the next build repairs it");
    apply(&environment, (1, 1), &[sold(1, 21, 7, 2)]).await;
    expect_windows_of_days(&environment.redis, *TODAY, "repaired").await;
    environment.end().await;
}
