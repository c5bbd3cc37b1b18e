use std::time::Duration;

use dibs_common::{
    db::Lease,
    testing::{TestEnvironment, eventually},
};
use sqlx::Executor as _;

async fn take(environment: &TestEnvironment, name: &str) -> Option<Lease> {
    environment.database.try_lease(name).await.expect("asked")
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
    elsewhere.end().await;
    environment.end().await;
}

#[tokio::test]
async fn a_lease_ends_with_the_connection_of_its_holder() {
    let environment = TestEnvironment::new().await;
    drop(take(&environment, "sink a").await.expect("free"));
    eventually("the server notices that the holder is gone", Duration::from_secs(5), async || {
        take(&environment, "sink a").await.is_some()
    })
    .await;
    environment.end().await;
}

#[tokio::test]
async fn a_silent_holder_loses_its_lease() {
    let environment = TestEnvironment::new().await;
    let mut silent = take(&environment, "sink a").await.expect("free");
    silent.hold_for(Duration::from_secs(1)).await.expect("set");
    eventually("the server ends the silent connection", Duration::from_secs(10), async || {
        take(&environment, "sink a").await.is_some()
    })
    .await;
    silent.connection().execute("DO 1").await.expect_err("its connection was ended");
    environment.end().await;
}

#[tokio::test]
async fn what_was_not_committed_ends_with_the_lease() {
    let environment = TestEnvironment::new().await;
    let insert = "INSERT INTO point_accounts (user_id, balance, created_at, updated_at) VALUES (?, 5, NOW(), NOW())";
    let mut lease = take(&environment, "sink a").await.expect("free");
    for (user, commits) in [(1, true), (2, false)] {
        lease.begin().await.expect("begun");
        lease.begin().await.expect("one transaction is open already");
        sqlx::query(insert).bind(user).execute(lease.connection()).await.expect("inserted");
        if commits {
            lease.commit().await.expect("committed");
            lease.commit().await.expect("none is open");
        }
    }
    lease.release().await.expect("released");
    assert_eq!(environment.texts("SELECT CAST(user_id AS CHAR) FROM point_accounts").await, ["1"]);
    environment.end().await;
}
