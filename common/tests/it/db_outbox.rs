use chrono::TimeDelta;
use dibs_common::{clock, db::outbox, testing::TestEnvironment};

use crate::support::{connection, insert_event};

/// Inserts events of these kinds, and returns their number with a sequence after that.
async fn insert(environment: &TestEnvironment, kinds: &[&str]) -> usize {
    let mut connection = connection(environment).await;
    for kind in kinds {
        insert_event(&mut connection, kind, "{}").await;
    }
    drop(connection);
    outbox::sequence_events(&environment.database).await.expect("sequenced")
}

async fn register(environment: &TestEnvironment, sink: &str) {
    outbox::register_sink(&environment.database.pool(), sink, clock::now()).await.expect("registered");
}

async fn advance(environment: &TestEnvironment, sink: &str, from: u64, to: u64) -> bool {
    let mut connection = connection(environment).await;
    outbox::advance_sink(&mut connection, sink, from, to, clock::now()).await.expect("written")
}

#[tokio::test]
async fn committed_events_get_sequences_without_gaps_and_a_late_commit_comes_later() {
    let environment = TestEnvironment::new().await;
    let mut open = environment.database.begin().await.expect("begun");
    insert_event(&mut open, "order.placed", "{}").await;
    assert_eq!(
        insert(&environment, &["order.paid", "order.cancelled"]).await,
        2,
        "the open transaction is not waited for"
    );
    open.commit().await.expect("committed");
    assert_eq!(outbox::sequence_events(&environment.database).await.expect("sequenced"), 1);
    assert_eq!(outbox::sequence_events(&environment.database).await.expect("sequenced"), 0);
    let kinds = "SELECT type FROM outbox_events ORDER BY sequence";
    assert_eq!(environment.texts(kinds).await, ["order.paid", "order.cancelled", "order.placed"]);
    assert_eq!(environment.count("SELECT last_sequence FROM outbox_sequence").await, 3);
    environment.end().await;
}

#[tokio::test]
async fn ids_with_gaps_get_consecutive_sequences() {
    let environment = TestEnvironment::new().await;
    let mut rolled_back = environment.database.begin().await.expect("begun");
    insert_event(&mut rolled_back, "order.paid", "{}").await;
    rolled_back.rollback().await.expect("rolled back");
    insert(&environment, &["a", "b"]).await;
    environment.execute("INSERT INTO outbox_events (event_id, aggregate_type, aggregate_id, type, payload, created_at) VALUES (900, 'ORDER', '1', 'c', '{}', NOW(3))").await;
    insert(&environment, &["d"]).await;
    let events = "SELECT CONCAT(sequence, type) FROM outbox_events ORDER BY sequence";
    assert_eq!(environment.texts(events).await, ["1a", "2b", "3c", "4d"]);
    environment.end().await;
}

#[tokio::test]
async fn one_process_at_a_time_gives_sequences() {
    let environment = TestEnvironment::new().await;
    let mut other = environment.database.begin().await.expect("begun");
    sqlx::query("SELECT * FROM outbox_sequence FOR UPDATE").fetch_all(&mut *other).await.expect("locked");
    assert_eq!(insert(&environment, &["order.paid"]).await, 0, "it does not wait for the other process");
    other.rollback().await.expect("rolled back");
    assert_eq!(insert(&environment, &[]).await, 1);
    environment.end().await;
}

#[tokio::test]
async fn a_new_sink_receives_events_from_its_registration_on() {
    let environment = TestEnvironment::new().await;
    insert(&environment, &["a", "b"]).await;
    register(&environment, "webhook").await;
    insert(&environment, &["c"]).await;
    register(&environment, "webhook").await;
    let mut connection = connection(&environment).await;
    let progress = outbox::find_sink_progress(&mut connection, "webhook").await.expect("read").expect("registered");
    assert_eq!((progress.delivered_through, progress.last_sequence), (2, 3));
    assert!(progress.waiting_since.is_some());
    assert_eq!(outbox::find_sink_progress(&mut connection, "kafka").await.expect("read"), None);
    drop(connection);
    environment.end().await;
}

#[tokio::test]
async fn a_sink_advances_only_from_where_it_is() {
    let environment = TestEnvironment::new().await;
    register(&environment, "webhook").await;
    insert(&environment, &["a", "b", "c"]).await;
    assert!(advance(&environment, "webhook", 0, 2).await);
    assert!(!advance(&environment, "webhook", 0, 3).await, "another process has moved it");
    assert!(!advance(&environment, "kafka", 0, 1).await, "it is not registered");
    let backlog = outbox::find_backlog(&environment.database.pool()).await.expect("read");
    assert_eq!((backlog.sinks[0].sink.as_str(), backlog.sinks[0].events), ("webhook", 1));
    assert!(advance(&environment, "webhook", 2, 3).await);
    let backlog = outbox::find_backlog(&environment.database.pool()).await.expect("read");
    assert_eq!((backlog.sinks[0].events, backlog.sinks[0].waiting_since, backlog.unsequenced_since), (0, None, None));
    let mut connection = connection(&environment).await;
    insert_event(&mut connection, "d", "{}").await;
    drop(connection);
    let backlog = outbox::find_backlog(&environment.database.pool()).await.expect("read");
    assert!(backlog.unsequenced_since.is_some());
    environment.end().await;
}

#[tokio::test]
async fn events_are_listed_by_sequence_and_kind() {
    let environment = TestEnvironment::new().await;
    insert(&environment, &["order.paid", "order.placed", "order.paid", "order.cancelled"]).await;
    let mut connection = connection(&environment).await;
    let mut list = async |sequences, kinds: &[&str]| -> Vec<u64> {
        let events = outbox::list_between(&mut connection, sequences, kinds).await.expect("read");
        events.iter().map(|event| event.sequence).collect()
    };
    assert_eq!(list(1..=4, &[]).await, [1, 2, 3, 4]);
    assert_eq!(list(2..=4, &["order.paid", "order.cancelled"]).await, [3, 4]);
    assert_eq!(list(5..=9, &[]).await, [0; 0]);
    drop(connection);
    environment.end().await;
}

#[tokio::test]
async fn a_sink_that_no_process_serves_is_idle() {
    let environment = TestEnvironment::new().await;
    let now = clock::now();
    for sink in ["webhook", "kafka"] {
        outbox::register_sink(&environment.database.pool(), sink, now - TimeDelta::days(2)).await.expect("registered");
    }
    let idle =
        async || outbox::list_idle_sinks(&environment.database.pool(), now - TimeDelta::days(1)).await.expect("read");
    assert_eq!(idle().await, ["kafka", "webhook"]);
    let mut connection = connection(&environment).await;
    outbox::mark_sink_active(&mut connection, "kafka", now).await.expect("written");
    drop(connection);
    assert_eq!(idle().await, ["webhook"]);
    environment.end().await;
}

#[tokio::test]
async fn a_purge_keeps_what_an_active_sink_has_not_delivered() {
    let environment = TestEnvironment::new().await;
    let now = clock::now();
    let purge = async |before, limit| {
        let served_since = now - TimeDelta::days(1);
        outbox::purge(&environment.database.pool(), before, served_since, limit).await.expect("purged")
    };
    let all = now + TimeDelta::hours(1);
    insert(&environment, &["a", "b"]).await;
    assert_eq!(purge(all, 9).await, 0, "no sink is served");
    environment.execute("INSERT INTO sinks (name, delivered_through, registered_through, updated_at) VALUES ('idle', 0, 0, '2020-01-01')").await;
    register(&environment, "webhook").await;
    insert(&environment, &["c", "d"]).await;
    assert!(advance(&environment, "webhook", 2, 3).await);
    assert_eq!(purge(now - TimeDelta::hours(1), 9).await, 0, "they are too young");
    assert_eq!(purge(all, 1).await, 1);
    assert_eq!(purge(all, 9).await, 2, "the idle sink is not waited for");
    assert_eq!(environment.texts("SELECT type FROM outbox_events").await, ["d"]);
    environment.end().await;
}
