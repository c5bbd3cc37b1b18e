use chrono::TimeDelta;
use dibs_common::{
    clock::{self, Timestamp},
    db::idempotency::{self, Attempt, KeyState, KeyedRequest, RETENTION, StoredResponse},
    identifiers::new_uuid,
    testing::{MessageFault, TestEnvironment},
};
use futures::future::join_all;

fn request(key: u8, body: u8) -> KeyedRequest {
    KeyedRequest { key_hash: [key; 32], quoted_key_hash: None, body_hash: [body; 32], value_hash: None }
}

async fn begin(environment: &TestEnvironment, request: KeyedRequest, now: Timestamp) -> KeyState {
    idempotency::begin(&environment.database.pool(), &request, new_uuid(), now).await.expect("begun")
}

async fn acquire(environment: &TestEnvironment, request: KeyedRequest, now: Timestamp) -> Attempt {
    match begin(environment, request, now).await {
        KeyState::Acquired(attempt) => attempt,
        other => panic!("{other:?}"),
    }
}

/// An attempt of request 1 that began now.
async fn with_attempt() -> (TestEnvironment, Attempt, Timestamp) {
    let (environment, now) = (TestEnvironment::new().await, clock::now());
    let attempt = acquire(&environment, request(1, 1), now).await;
    (environment, attempt, now)
}

fn response(status: u16) -> StoredResponse {
    let location = Some("/orders/7".to_owned());
    StoredResponse { status, content_type: Some("application/json".into()), location, body: b"{}".to_vec() }
}

#[tokio::test]
async fn a_repeat_waits_for_the_attempt_and_then_gets_its_response() {
    let (environment, attempt, now) = with_attempt().await;
    let pool = &environment.database.pool();
    assert!(attempt.is_first);
    assert!(matches!(begin(&environment, request(1, 1), now).await, KeyState::InProgress));
    assert!(matches!(begin(&environment, request(1, 2), now).await, KeyState::FingerprintMismatch));
    idempotency::store_response(pool, &attempt, &response(201)).await.expect("stored");
    idempotency::store_response(pool, &attempt, &response(500)).await.expect("ignored");
    let KeyState::Completed(stored) = begin(&environment, request(1, 1), now).await else { panic!("completed") };
    assert_eq!(stored, response(201));
    assert!(matches!(begin(&environment, request(1, 2), now).await, KeyState::FingerprintMismatch));
    assert!(acquire(&environment, request(2, 1), now).await.is_first, "keys are apart");
    environment.end().await;
}

#[tokio::test]
async fn an_attempt_that_is_renewed_is_not_abandoned_and_can_be_released() {
    let environment = TestEnvironment::new().await;
    let pool = &environment.database.pool();
    let now = clock::now();
    let mut attempt = acquire(&environment, request(1, 1), now).await;
    idempotency::renew(pool, &mut attempt, now + TimeDelta::seconds(9)).await.expect("renewed");
    let later = now + TimeDelta::seconds(18);
    assert!(matches!(begin(&environment, request(1, 1), later).await, KeyState::InProgress));
    idempotency::release(pool, &attempt, later).await.expect("released");
    assert!(!acquire(&environment, request(1, 1), later).await.is_first);
    environment.end().await;
}

/// The server inserts the row of a key, and its answer is lost: the caller must not be kept out for a minute.
#[tokio::test]
async fn i12_a_key_is_acquired_whichever_message_of_it_is_lost() {
    let environment = TestEnvironment::new().await;
    let (settings, proxy, _redis) = environment.behind_proxies().await;
    let now = clock::now();
    for fault in [MessageFault::CutBefore, MessageFault::CutAfter] {
        for number in 1.. {
            let database = settings.database(2).expect("a pool");
            database.ping().await.expect("connected");
            let request = request(number, 1);
            proxy.plan(number.into(), fault);
            let begun = idempotency::begin(&database.pool(), &request, new_uuid(), now).await;
            let Some(struck) = proxy.struck() else { break };
            assert!(
                matches!(begun, Ok(KeyState::Acquired(Attempt { is_first: true, .. }))),
                "{fault:?} at {number}, {}: {begun:?}",
                struck.message
            );
            assert!(matches!(begin(&environment, request, now).await, KeyState::InProgress));
            database.close().await;
        }
        environment.execute("DELETE FROM idempotency_keys").await;
    }
    environment.end().await;
}

#[tokio::test]
async fn one_of_many_simultaneous_requests_acquires_the_key() {
    let environment = TestEnvironment::new().await;
    let now = clock::now();
    let acquired = async |now| {
        let states = join_all((0..12).map(|_| begin(&environment, request(1, 1), now))).await;
        states.iter().filter(|state| matches!(state, KeyState::Acquired(_))).count()
    };
    assert_eq!(acquired(now).await, 1, "a new key");
    assert_eq!(acquired(now + TimeDelta::seconds(11)).await, 1, "an abandoned key");
    environment.end().await;
}

#[tokio::test]
async fn an_abandoned_attempt_is_acquired_with_the_same_operation_and_can_end_nothing() {
    let (environment, first, now) = with_attempt().await;
    let pool = &environment.database.pool();
    assert!(matches!(begin(&environment, request(1, 1), now + TimeDelta::seconds(9)).await, KeyState::InProgress));
    let second = acquire(&environment, request(1, 1), now + TimeDelta::seconds(11)).await;
    assert_eq!((second.operation, second.is_first), (first.operation, false));
    idempotency::release(pool, &first, now).await.expect("ignored");
    idempotency::discard(pool, &first).await.expect("ignored");
    assert!(matches!(begin(&environment, request(1, 1), now + TimeDelta::seconds(12)).await, KeyState::InProgress));
    environment.end().await;
}

#[tokio::test]
async fn a_released_attempt_is_repeated_and_a_discarded_one_never_was() {
    let (environment, first, now) = with_attempt().await;
    let pool = &environment.database.pool();
    idempotency::release(pool, &first, now).await.expect("released");
    let second = acquire(&environment, request(1, 1), now).await;
    assert_eq!((second.operation, second.is_first), (first.operation, false));
    idempotency::discard(pool, &second).await.expect("discarded");
    let third = acquire(&environment, request(1, 9), now).await;
    assert!(third.is_first && third.operation != first.operation);
    environment.end().await;
}

#[tokio::test]
async fn a_response_is_kept_for_its_retention_period() {
    let (environment, attempt, now) = with_attempt().await;
    let pool = &environment.database.pool();
    idempotency::store_response(pool, &attempt, &response(200)).await.expect("stored");
    let last = now + RETENTION - TimeDelta::milliseconds(1);
    assert!(matches!(begin(&environment, request(1, 1), last).await, KeyState::Completed(_)));
    assert!(acquire(&environment, request(1, 1), now + RETENTION).await.is_first);
    environment.end().await;
}

#[tokio::test]
async fn a_purge_deletes_all_that_is_older() {
    let environment = TestEnvironment::new().await;
    let (pool, now) = (&environment.database.pool(), clock::now());
    for (key, age) in [(1, 3), (2, 2), (3, 1)] {
        acquire(&environment, request(key, 1), now - TimeDelta::hours(age)).await;
    }
    let before = now - TimeDelta::minutes(90);
    assert_eq!(idempotency::purge(pool, before).await.expect("purged"), 2);
    assert_eq!(idempotency::purge(pool, before).await.expect("purged"), 0);
    assert_eq!(environment.count("SELECT COUNT(*) FROM idempotency_keys").await, 1);
    environment.end().await;
}
