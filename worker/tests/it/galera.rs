//! A Galera cluster, of which one node is lost or takes no more writes. `ROUNDS=10` repeats the latter.

use std::time::Duration;

use dibs_common::testing::{
    Galera, SwitchingProxy, TestEnvironment,
    commands::{place_order, with_payment},
    eventually,
};
use sqlx::Connection as _;
use tokio::{process::Child, time::Instant};

use crate::{
    commands::{ended, start, start_with},
    support::accept,
};

const LIMIT: Duration = Duration::from_mins(1);

/// The number that a query returns; none while no node takes it.
async fn count(environment: &TestEnvironment, sql: &str) -> Option<i64> {
    let sql = sqlx::AssertSqlSafe(format!("SELECT CAST(({sql}) AS SIGNED)"));
    sqlx::query_scalar(sql).fetch_one(&environment.database.pool()).await.ok()
}

async fn expect_command(environment: &TestEnvironment, arguments: &[&str], printed: &str) {
    let (succeeded, out, errors) = ended(start(environment, arguments)).await;
    assert!(succeeded && out.contains(printed), "{arguments:?}: {out}{errors}");
}

#[tokio::test(flavor = "multi_thread")]
async fn i1_to_i9_hold_when_a_node_of_a_galera_cluster_is_lost() {
    if let Some(missing) = Galera::missing() {
        eprintln!("skipped: {missing}");
        return;
    }
    let mut galera = Galera::start(3).await;
    let proxy = SwitchingProxy::before(galera.port(0)).await;
    let database = format!("mysql://root@127.0.0.1:{}/dibs", proxy.port);
    let environment = TestEnvironment::on_database(&database).await;
    let mut worker = start_with(&environment, &["run"], &[("WORKER_ADDRESS", "127.0.0.1:0")]);
    let campaign = environment.campaign(100).await;
    let product = environment.product(1_000, 100).await;
    for user in 1..=6 {
        environment.points(user, 100_000).await;
    }
    let sell = async |users: std::ops::RangeInclusive<u64>| {
        accept(&environment, &campaign, users.clone()).await;
        for user in users.filter(|user| *user <= 6) {
            environment.enqueue(&with_payment(place_order(user, product, 2))).await;
        }
    };
    let issued = "SELECT COUNT(*) FROM user_coupons";
    let paid = "SELECT COUNT(*) FROM orders WHERE status = 'PAY_DONE'";
    sell(1..=3).await;
    let is_done = async |number| {
        (count(&environment, issued).await, count(&environment, paid).await) == (Some(number), Some(number))
    };
    eventually("claims and orders are done at the first node", LIMIT, async || is_done(3).await).await;
    expect_command(&environment, &["job", "warm-ranking"], "products").await;

    galera.kill(0);
    let killed = Instant::now();
    proxy.lead_to(galera.port(1));
    sell(4..=6).await;
    eventually("claims and orders are done at another node", LIMIT, async || is_done(6).await).await;
    eprintln!("galera: a lost node was replaced after {:.1} s", killed.elapsed().as_secs_f64());
    let ranked = "SELECT COUNT(*) FROM outbox_events e JOIN sinks s ON s.name = 'ranking' \
                  WHERE e.sequence IS NULL OR e.sequence > s.delivered_through";
    eventually("sales are counted", LIMIT, async || count(&environment, ranked).await == Some(0)).await;
    let audited = "12 claims compared, 0 on their way, 0 differences";
    expect_command(&environment, &["audit", &campaign.id.to_string()], audited).await;
    expect_command(&environment, &["job", "warm-ranking"], "1 products").await;
    stop(&mut worker).await;
    environment.expect_consistent_rows().await;
    environment.end().await;
}

/// The address moves to another node, as that of a managed database does; live connections stay with the first one.
#[tokio::test(flavor = "multi_thread")]
async fn i3_a_node_that_is_made_read_only_is_left_within_ten_seconds_without_a_restart() {
    if let Some(missing) = Galera::missing() {
        eprintln!("skipped: {missing}");
        return;
    }
    let galera = Galera::start(2).await;
    let administrate = async |node: usize, sql: &'static str| {
        let url = format!("mysql://root@127.0.0.1:{}", galera.port(node));
        let mut connection = sqlx::MySqlConnection::connect(&url).await.expect("a connection");
        sqlx::raw_sql(sql).execute(&mut connection).await.expect(sql);
    };
    // Root may write on a server that is read-only.
    let user = "CREATE USER shop@'%'; GRANT ALL ON *.* TO shop@'%'; REVOKE READ_ONLY ADMIN ON *.* FROM shop@'%'";
    administrate(0, user).await;
    let proxy = SwitchingProxy::before(galera.port(0)).await;
    let environment = TestEnvironment::on_database(&format!("mysql://shop@127.0.0.1:{}/dibs", proxy.port)).await;
    let mut worker = start_with(&environment, &["run"], &[("WORKER_ADDRESS", "127.0.0.1:0")]);
    let campaign = environment.campaign(1_000).await;
    let is_issued = async |number| count(&environment, "SELECT COUNT(*) FROM user_coupons").await == Some(number);
    let (mut users, mut node) = (0, 0);
    let rounds = std::env::var("ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(1_u32);
    for round in 1..=rounds {
        accept(&environment, &campaign, users + 1..=users + 3).await;
        users += 3;
        eventually("claims are issued", LIMIT, async || is_issued(i64::try_from(users).expect("few")).await).await;
        administrate(node, "SET GLOBAL read_only = 1").await;
        let demoted = Instant::now();
        node = 1 - node;
        administrate(node, "SET GLOBAL read_only = 0").await;
        proxy.lead_to(galera.port(node));
        accept(&environment, &campaign, users + 1..=users + 3).await;
        users += 3;
        eventually("claims are issued", LIMIT, async || is_issued(i64::try_from(users).expect("few")).await).await;
        let recovered = demoted.elapsed();
        eprintln!("read-only node, round {round}: left after {:.1} s, 6 accepted, 0 lost", recovered.as_secs_f64());
        assert!(recovered < Duration::from_secs(10), "{recovered:?}");
    }
    stop(&mut worker).await;
    administrate(0, "SET GLOBAL read_only = 0").await;
    administrate(1, "SET GLOBAL read_only = 0").await;
    environment.expect_consistent_rows().await;
    environment.end().await;
}

async fn stop(worker: &mut Child) {
    let id = worker.id().expect("it runs").to_string();
    let sent = std::process::Command::new("kill").args(["-TERM", &id]).status().expect("kill");
    assert!(sent.success() && worker.wait().await.expect("ended").success());
}
