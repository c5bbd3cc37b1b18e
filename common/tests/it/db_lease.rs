use std::time::Duration;

use dibs_common::{
    db::{Database, LEASE_TIME, Lease, purge_leases},
    testing::{TestEnvironment, eventually},
};
use sqlx::{Connection as _, Executor as _, MySqlConnection};

const INSERT: &str =
    "INSERT INTO point_accounts (user_id, balance, created_at, updated_at) VALUES (?, 5, NOW(), NOW())";
const USERS: &str = "SELECT CAST(user_id AS CHAR) FROM point_accounts ORDER BY user_id";
const EPOCHS: &str = "SELECT CAST(epoch AS CHAR) FROM leases";

async fn take(environment: &TestEnvironment, name: &str) -> Option<Lease> {
    environment.database.try_lease(name).await.expect("asked")
}

async fn insert(lease: &mut Lease, user: u64) -> dibs_common::Result<()> {
    sqlx::query(INSERT).bind(user).execute(lease.begin().await?).await.expect("inserted");
    lease.commit().await
}

/// As when the holder is frozen for so long that its row expires and the server ends the session that renews it.
async fn freeze(environment: &TestEnvironment, name: &str) {
    let lock = format!("SELECT IS_USED_LOCK(SHA2(CONCAT(DATABASE(), '.', '{name}'), 224))");
    let session = environment.count(&lock[7..]).await;
    environment.execute(&format!("KILL {session}")).await;
    let free = format!("IS_FREE_LOCK(SHA2(CONCAT(DATABASE(), '.', '{name}'), 224))");
    eventually("the session ends", Duration::from_secs(5), async || environment.count(&free).await == 1).await;
    environment.execute("UPDATE leases SET expires_at = expires_at - INTERVAL 1 HOUR").await;
}

#[tokio::test]
async fn a_lease_has_one_holder_until_it_is_released() {
    let environment = TestEnvironment::new().await;
    let lease = take(&environment, "sink a").await.expect("free");
    assert!(take(&environment, "sink a").await.is_none(), "it is held");
    let other = take(&environment, "sink b").await.expect("names are apart");
    lease.release().await.expect("released");
    let again = take(&environment, "sink a").await.expect("free at once");
    let elsewhere = TestEnvironment::new().await;
    let same_name = take(&elsewhere, "sink a").await.expect("databases are apart");
    for lease in [again, other, same_name] {
        lease.release().await.expect("released");
    }
    assert_eq!(environment.count("SELECT COUNT(*) FROM leases").await, 0, "a released lease has no row");
    elsewhere.end().await;
    environment.end().await;
}

#[tokio::test]
async fn a_lease_that_is_dropped_is_free_and_so_is_what_it_had_not_committed() {
    let environment = TestEnvironment::new().await;
    let mut lease = take(&environment, "sink a").await.expect("free");
    sqlx::query(INSERT).bind(1).execute(lease.begin().await.expect("begun")).await.expect("inserted");
    drop(lease);
    eventually("the lease is free", Duration::from_secs(5), async || take(&environment, "sink a").await.is_some())
        .await;
    assert!(environment.texts(USERS).await.is_empty());
    environment.end().await;
}

#[tokio::test]
async fn a_holder_renews_its_lease_for_longer_than_its_time() {
    let environment = TestEnvironment::new().await;
    let mut lease = take(&environment, "sink a").await.expect("free");
    let epoch = environment.texts(EPOCHS).await;
    let taken = tokio::time::timeout(LEASE_TIME + Duration::from_secs(3), async {
        while take(&environment, "sink a").await.is_none() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    assert!(taken.await.is_err(), "it was taken from its holder");
    assert_eq!(environment.texts(EPOCHS).await, epoch);
    insert(&mut lease, 1).await.expect("still held");
    lease.release().await.expect("released");
    environment.end().await;
}

#[tokio::test]
async fn a_frozen_holder_is_overtaken_and_what_it_writes_late_is_refused() {
    let environment = TestEnvironment::new().await;
    let mut frozen = take(&environment, "sink a").await.expect("free");
    insert(&mut frozen, 1).await.expect("held");
    for user in [2, 3] {
        let epoch = environment.count("SELECT epoch FROM leases").await;
        freeze(&environment, "sink a").await;
        let mut next = take(&environment, "sink a").await.expect("expired");
        assert_eq!(environment.count("SELECT epoch FROM leases").await, epoch + 1);
        let refused = insert(&mut frozen, 90 + user).await.expect_err("it is late");
        assert!(refused.chain().contains("the lease 'sink a' was lost"), "{}", refused.chain());
        frozen.confirm().await.expect_err("nor is an effect in Redis allowed");
        insert(&mut next, user).await.expect("held");
        let released = frozen.release().await;
        assert!(released.is_err_and(|error| error.chain().contains("was lost")), "its work may have been done twice");
        assert!(take(&environment, "sink a").await.is_none(), "the next holder keeps it");
        frozen = next;
    }
    assert_eq!(environment.texts(USERS).await, ["1", "2", "3"]);
    frozen.release().await.expect("released");
    environment.end().await;
}

#[tokio::test]
async fn a_transaction_of_a_lease_is_not_overtaken() {
    let environment = TestEnvironment::new().await;
    let mut slow = take(&environment, "sink a").await.expect("free");
    sqlx::query(INSERT).bind(1).execute(slow.begin().await.expect("begun")).await.expect("inserted");
    let url = secrecy::ExposeSecret::expose_secret(&environment.settings.database_url);
    let mut session = MySqlConnection::connect(url).await.expect("a session");
    // Its own transaction locks the row, so nothing can expire it but time: it is set back before the commit is seen.
    let expiring = session.execute("SET SESSION innodb_lock_wait_timeout = 1").await;
    expiring.expect("set");
    let update = session.execute("UPDATE leases SET expires_at = UTC_TIMESTAMP(6)").await;
    assert!(update.is_err(), "the row is locked");
    assert!(take(&environment, "sink a").await.is_none());
    slow.commit().await.expect("still held");
    slow.release().await.expect("released");
    assert_eq!(environment.texts(USERS).await, ["1"]);
    session.close().await.expect("closed");
    environment.end().await;
}

#[tokio::test]
async fn workers_of_the_previous_version_and_new_ones_exclude_each_other() {
    let environment = TestEnvironment::new().await;
    let url = secrecy::ExposeSecret::expose_secret(&environment.settings.database_url);
    let mut old = MySqlConnection::connect(url).await.expect("a session");
    let lock = "SELECT GET_LOCK(SHA2(CONCAT(DATABASE(), '.', 'sink a'), 224), 0)";
    let locked: Option<i64> = sqlx::query_scalar(lock).fetch_one(&mut old).await.expect("asked");
    assert_eq!(locked, Some(1));
    assert!(take(&environment, "sink a").await.is_none(), "an old worker holds it");
    assert_eq!(environment.count("SELECT COUNT(*) FROM leases").await, 0);
    old.execute("DO RELEASE_ALL_LOCKS()").await.expect("released");
    let lease = take(&environment, "sink a").await.expect("free");
    let locked: Option<i64> = sqlx::query_scalar(lock).fetch_one(&mut old).await.expect("asked");
    assert_eq!(locked, Some(0), "a new worker holds it");
    lease.release().await.expect("released");
    let locked: Option<i64> = sqlx::query_scalar(lock).fetch_one(&mut old).await.expect("asked");
    assert_eq!(locked, Some(1), "free at once");
    old.close().await.expect("closed");
    environment.end().await;
}

#[tokio::test]
async fn rows_of_processes_that_died_are_removed_after_a_day() {
    let environment = TestEnvironment::new().await;
    let row = "INSERT INTO leases (name, epoch, holder, expires_at) VALUES";
    environment
        .execute(&format!(
            "{row} ('rebuild 1', 1, '0123456789abcdef', UTC_TIMESTAMP(6) - INTERVAL 25 HOUR), \
             ('rebuild 2', 1, '0123456789abcdef', UTC_TIMESTAMP(6) - INTERVAL 23 HOUR)"
        ))
        .await;
    assert_eq!(purge_leases(&environment.database.pool()).await.expect("purged"), 1);
    assert_eq!(environment.texts("SELECT name FROM leases").await, ["rebuild 2"]);
    environment.end().await;
}

#[tokio::test]
async fn of_many_processes_that_ask_at_once_one_gets_the_lease() {
    let environment = TestEnvironment::new().await;
    let databases: Vec<Database> = (0..8).map(|_| environment.settings.database(2).expect("a pool")).collect();
    for _ in 0..5 {
        let asked = databases.iter().map(|database| database.try_lease("sink a"));
        let taken: Vec<Option<Lease>> = futures::future::try_join_all(asked).await.expect("asked");
        let mut taken: Vec<Lease> = taken.into_iter().flatten().collect();
        assert!(taken.len() <= 1, "{} holders", taken.len());
        if let Some(lease) = taken.pop() {
            lease.release().await.expect("released");
        }
    }
    for database in databases {
        database.close().await;
    }
    environment.end().await;
}
