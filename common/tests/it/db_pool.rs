use dibs_common::{db::Database, testing::TestEnvironment};
use futures::{FutureExt as _, future::join_all};
use sqlx::Executor as _;

/// A pool of one connection, so that each query uses the connection that the one before has left.
fn single(environment: &TestEnvironment) -> Database {
    Database::new(&environment.settings.database_url, 1).expect("a pool")
}

async fn end(database: Database, environment: TestEnvironment) {
    database.close().await;
    environment.end().await;
}

#[tokio::test]
async fn a_dropped_transaction_is_rolled_back_before_the_connection_is_used_again() {
    let environment = TestEnvironment::new().await;
    environment.points(1, 100).await;
    let database = single(&environment);
    let mut transaction = database.begin().await.expect("begun");
    transaction.execute("UPDATE point_accounts SET balance = 0").await.expect("updated");
    drop(transaction);
    let balance: i64 =
        sqlx::query_scalar("SELECT balance FROM point_accounts").fetch_one(&database.pool()).await.expect("read");
    assert_eq!(balance, 100);
    end(database, environment).await;
}

#[tokio::test]
async fn a_future_dropped_while_begin_is_on_the_wire_leaves_no_transaction_open() {
    let environment = TestEnvironment::new().await;
    let database = single(&environment);
    database.ping().await.expect("connected");
    let mut dropped = 0;
    for _ in 0..20 {
        // One poll sends BEGIN. Its response is never read, unless the server is fast enough to be there already.
        dropped += u32::from(database.begin().now_or_never().is_none());
        database.pool().execute("DELETE FROM point_accounts").await.expect("deleted");
        let sql = "INSERT INTO point_accounts (user_id, balance, created_at, updated_at) VALUES (1, 5, NOW(), NOW())";
        database.pool().execute(sql).await.expect("inserted");
        assert_eq!(
            environment.count("SELECT COUNT(*) FROM point_accounts").await,
            1,
            "another connection sees the row"
        );
    }
    assert!(dropped > 0, "BEGIN needs a round trip");
    end(database, environment).await;
}

/// The reply to PREPARE that was not read must not pass for that of the next statement.
#[tokio::test]
async fn a_future_dropped_while_a_statement_is_prepared_leaves_no_reply_to_others() {
    let environment = TestEnvironment::new().await;
    let database = single(&environment);
    let mut dropped = 0;
    for number in 0..20_i64 {
        let mut connection = database.pool().acquire().await.expect("connected");
        // A text of its own each time, or it would be prepared already. One poll sends PREPARE.
        let text = format!("SELECT ?, ?, {number} AS number");
        let query = sqlx::query(sqlx::AssertSqlSafe(text)).bind(1).bind(2).fetch_one(&mut *connection);
        dropped += u32::from(query.now_or_never().is_none());
        drop(connection);
        let read: i64 = sqlx::query_scalar("SELECT CAST(? AS SIGNED)")
            .bind(number)
            .fetch_one(&database.pool())
            .await
            .expect("a connection of its own");
        assert_eq!(read, number, "the result of another statement");
    }
    assert!(dropped > 0, "PREPARE needs a round trip");
    end(database, environment).await;
}

#[tokio::test]
async fn sessions_read_committed_rows_and_wait_five_seconds_for_a_lock() {
    let environment = TestEnvironment::new().await;
    let isolation: (String, String) =
        sqlx::query_as("SHOW SESSION VARIABLES WHERE Variable_name IN ('transaction_isolation', 'tx_isolation')")
            .fetch_one(&environment.database.pool())
            .await
            .expect("read");
    assert_eq!(isolation.1, "READ-COMMITTED");
    assert_eq!(environment.count("SELECT @@innodb_lock_wait_timeout").await, 5);
    environment.end().await;
}

#[tokio::test]
async fn several_processes_may_migrate_at_once() {
    let environment = TestEnvironment::new().await;
    let migrations = environment.count("SELECT COUNT(*) FROM _sqlx_migrations").await;
    let pools: Vec<Database> = (0..3).map(|_| single(&environment)).collect();
    for migrated in join_all(pools.iter().map(Database::migrate)).await {
        migrated.expect("migrated");
    }
    assert_eq!(environment.count("SELECT COUNT(*) FROM _sqlx_migrations").await, migrations, "nothing ran twice");
    for pool in pools {
        pool.close().await;
    }
    environment.end().await;
}
