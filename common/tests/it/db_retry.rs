use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use dibs_common::{Error, db, testing::TestEnvironment};
use sqlx::Executor as _;
use tokio::sync::Barrier;

/// Lets the server fail with an error number.
async fn fail(environment: &TestEnvironment, number: u16) -> Result<(), sqlx::Error> {
    let sql = format!("SIGNAL SQLSTATE '40001' SET MYSQL_ERRNO = {number}");
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&environment.database.pool()).await.map(drop)
}

#[tokio::test]
async fn the_victim_of_a_deadlock_runs_again() {
    let environment = TestEnvironment::new().await;
    for user in [1, 2] {
        environment.points(user, 100).await;
    }
    let (both_locked, attempts) = (Barrier::new(2), AtomicU32::new(0));
    let transfer = async |from: u64, to: u64| {
        db::retrying("transfer", || async {
            let mut transaction = environment.database.begin().await?;
            let sql = "UPDATE point_accounts SET balance = balance - 1 WHERE user_id = ?";
            sqlx::query(sql).bind(from).execute(&mut *transaction).await?;
            if attempts.fetch_add(1, Ordering::SeqCst) < 2 {
                both_locked.wait().await;
            }
            let sql = "UPDATE point_accounts SET balance = balance + 1 WHERE user_id = ?";
            sqlx::query(sql).bind(to).execute(&mut *transaction).await?;
            transaction.commit().await
        })
        .await
    };
    let (one, other) = tokio::join!(transfer(1, 2), transfer(2, 1));
    one.and(other).expect("both committed");
    assert_eq!(attempts.load(Ordering::SeqCst), 3, "two, and one of them again");
    assert_eq!(environment.texts("SELECT CAST(balance AS CHAR) FROM point_accounts").await, ["100", "100"]);
    environment.end().await;
}

#[tokio::test]
async fn a_lock_wait_that_timed_out_is_tried_again() {
    let environment = TestEnvironment::new().await;
    environment.points(1, 100).await;
    let mut holder = Some(environment.database.begin().await.expect("begun"));
    let lock = "SELECT balance FROM point_accounts WHERE user_id = 1 FOR UPDATE";
    holder.as_mut().expect("a transaction").execute(lock).await.expect("locked");
    let mut attempts = 0;
    let result = db::retrying("wait", || {
        attempts += 1;
        // The first attempt times out; then the holder ends.
        let holder = (attempts == 2).then(|| holder.take()).flatten();
        let database = &environment.database;
        async move {
            if let Some(holder) = holder {
                holder.rollback().await?;
            }
            let mut transaction = database.begin().await?;
            transaction.execute("SET SESSION innodb_lock_wait_timeout = 1").await?;
            transaction.execute(lock).await?;
            transaction.rollback().await
        }
    });
    result.await.expect("locked in the end");
    assert_eq!(attempts, 2);
    environment.end().await;
}

#[tokio::test]
async fn six_attempts_are_made_under_contention_and_one_at_any_other_error() {
    let environment = TestEnvironment::new().await;
    let attempts = async |number: u16| {
        let mut attempts = 0;
        let failed = db::retrying("fail", || {
            attempts += 1;
            fail(&environment, number)
        })
        .await;
        (attempts, failed.expect_err("failed").is_transient())
    };
    assert_eq!(attempts(1213).await, (6, true), "ER_LOCK_DEADLOCK");
    assert_eq!(attempts(1205).await, (6, true), "ER_LOCK_WAIT_TIMEOUT");
    assert_eq!(attempts(1062).await.0, 1, "ER_DUP_ENTRY");
    assert_eq!(attempts(1317).await, (1, true), "ER_QUERY_INTERRUPTED");
    environment.end().await;
}

#[tokio::test]
async fn a_query_or_transaction_without_an_end_means_that_the_server_is_unreachable() {
    let environment = TestEnvironment::new().await;
    let pool = &environment.database.pool();
    let asleep = sqlx::query("SELECT SLEEP(3)").execute(pool);
    let failed = db::within_limit(Duration::from_millis(50), asleep).await.expect_err("too slow");
    assert!(matches!(failed, Error::DependencyUnavailable { .. }), "{failed:?}");
    assert_eq!(db::within(async { Ok(7) }).await.expect("in time"), 7);
    environment.end().await;
}

#[tokio::test]
async fn data_that_a_table_rejects_is_a_defect_and_a_missing_table_may_pass() {
    let environment = TestEnvironment::new().await;
    let failed = async |sql: &'static str| {
        let failed = sqlx::raw_sql(sql).execute(&environment.database.pool()).await.expect_err("rejected");
        db::database_error(failed).is_transient()
    };
    assert!(
        !failed("INSERT INTO point_accounts (user_id, balance, created_at, updated_at) VALUES (1, -1, NOW(), NOW())")
            .await,
        "CHECK"
    );
    assert!(!failed("INSERT INTO point_accounts (user_id) VALUES (1)").await, "no default");
    assert!(
        !failed("INSERT INTO outbox_events (aggregate_type, aggregate_id, type, payload, created_at) VALUES ('ORDER', '1', 'x', '{', NOW())").await,
        "JSON"
    );
    assert!(failed("SELECT * FROM missing").await, "a table that a migration has yet to create");
    assert!(!db::database_error(sqlx::Error::RowNotFound).is_transient());
    assert!(db::database_error(sqlx::Error::PoolTimedOut).is_transient());
    environment.end().await;
}
