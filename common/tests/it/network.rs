//! What the pool of connections does when nothing reports that they lead nowhere.

use std::time::Duration;

use dibs_common::{
    db::Database,
    redis::streams::ClaimStream,
    testing::{FIRST, TestEnvironment, eventually},
};
use reqwest::Url;
use secrecy::ExposeSecret as _;
use sqlx::Executor as _;
use tokio::{
    task::JoinSet,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

/// A network that forgets its connections notifies neither end. Callers wait for answers on all of them.
#[tokio::test]
async fn connections_that_the_network_forgot_are_replaced_within_seconds() {
    const CONNECTIONS: u32 = 8;
    let environment = TestEnvironment::new().await;
    let (settings, proxy, _redis) = environment.behind_proxies().await;
    let database = settings.database(CONNECTIONS).expect("a pool");
    let stopping = CancellationToken::new();
    let watched = {
        let (database, stopping) = (database.clone(), stopping.clone());
        tokio::spawn(async move { database.watch(&stopping).await })
    };
    let mut calls = JoinSet::new();
    for _ in 0..CONNECTIONS {
        let database = database.clone();
        calls.spawn(async move {
            // Long enough to be on its way when the network forgets it.
            let waiting = sqlx::query("SELECT SLEEP(1)").execute(&database.pool()).await.map(drop);
            waiting.is_ok()
        });
    }
    let sent = proxy.sent();
    eventually("all calls are on their way", Duration::from_secs(5), async || {
        proxy.sent() > sent && database.pool().size() == CONNECTIONS && database.pool().num_idle() == 0
    })
    .await;
    proxy.forget();
    let forgotten = Instant::now();
    eventually("the pool serves again", Duration::from_secs(15), async || database.ping().await.is_ok()).await;
    assert!(forgotten.elapsed() < Duration::from_secs(10), "{:?}", forgotten.elapsed());
    calls.abort_all();
    stopping.cancel();
    watched.await.expect("no panic");
    environment.end().await;
}

/// The same of Redis: of connections that are used all the time, that wait for a blocking read, and that only listen.
#[tokio::test]
async fn redis_connections_that_the_network_forgot_are_replaced_within_seconds() {
    let environment = TestEnvironment::new().await;
    let (settings, _database, proxy) = environment.behind_proxies().await;
    let redis = settings.redis(2).await.expect("redis");
    let stream = ClaimStream::open(&redis, FIRST, "reader".into()).await.expect("a stream");
    let mut subscription = redis.subscribe("answers").await.expect("a subscription");
    proxy.forget();
    let forgotten = Instant::now();
    let limit = Duration::from_secs(10);
    // Both connections of the pool, each without a pause between two commands.
    for _ in 0..2 {
        eventually("commands are answered again", limit, async || redis.ping().await.is_ok()).await;
    }
    eventually("the stream is read again", limit, async || stream.read(1).await.is_ok()).await;
    let received = async {
        while timeout(Duration::from_millis(100), subscription.next()).await.is_err() {
            environment.redis.publish("answers", "x".into()).await.expect("published");
        }
    };
    timeout(limit, received).await.expect("messages are received again");
    assert!(forgotten.elapsed() < limit, "{:?}", forgotten.elapsed());
    stream.close().await;
    redis.close().await;
    environment.end().await;
}

/// The server ends the session of a client that holds a lock and says nothing: frozen, or gone with its machine.
#[tokio::test]
async fn a_silent_transaction_loses_its_locks_and_cannot_commit() {
    let environment = TestEnvironment::new().await;
    let product = environment.product(1_000, 5).await;
    let mut silent = environment.database.begin().await.expect("a transaction");
    let lock = "SELECT stock FROM products WHERE product_id = ? FOR UPDATE";
    sqlx::query(lock).bind(product.get()).execute(&mut *silent).await.expect("the lock");
    let began = Instant::now();
    eventually("another gets the lock", Duration::from_secs(15), async || {
        sqlx::query(lock).bind(product.get()).execute(&environment.database.pool()).await.is_ok()
    })
    .await;
    assert!(
        began.elapsed() > Duration::from_secs(5),
        "a client that is only slow keeps its lock: {:?}",
        began.elapsed()
    );
    assert!(silent.commit().await.is_err(), "the late one's commit fails");
    environment.end().await;
}

/// MySQL takes a password without TLS only while it remembers the account, and a restart makes it forget.
#[tokio::test]
async fn an_account_with_a_password_logs_in_without_tls_after_the_server_forgot_it() {
    let environment = TestEnvironment::new().await;
    let url = environment.settings.database_url.expose_secret();
    let mut url: Url = url.parse().expect("a URL");
    let name = url.path()[1..].to_owned();
    let user = name[name.len() - 20..].to_owned();
    // 1044 or 1227 would say that the test server gives root too few rights.
    environment.execute(&format!("CREATE USER '{user}'@'%' IDENTIFIED BY 'a password'")).await;
    environment.execute(&format!("GRANT ALL ON {name}.* TO '{user}'@'%'")).await;
    url.set_username(&user).expect("set");
    url.set_password(Some("a password")).expect("set");
    url.set_query(Some("ssl-mode=DISABLED"));
    let database = Database::new(&url.to_string().into(), 2).expect("a pool");
    let stopping = CancellationToken::new();
    let watched = {
        let (database, stopping) = (database.clone(), stopping.clone());
        tokio::spawn(async move { database.watch(&stopping).await })
    };
    for what in ["it is new", "it is forgotten"] {
        eventually(what, Duration::from_secs(10), async || database.ping().await.is_ok()).await;
        // As a restart does: the cache of accounts is empty, and their connections end.
        environment.execute("FLUSH PRIVILEGES").await;
        let sessions = format!("SELECT CAST(id AS CHAR) FROM information_schema.processlist WHERE user = '{user}'");
        for session in environment.texts(&sessions).await {
            // It may have ended meanwhile.
            environment.database.pool().execute(sqlx::AssertSqlSafe(format!("KILL {session}"))).await.ok();
        }
    }
    let lost = Instant::now();
    eventually("it is forgotten again", Duration::from_secs(10), async || database.ping().await.is_ok()).await;
    assert!(lost.elapsed() < Duration::from_secs(5), "{:?}", lost.elapsed());
    stopping.cancel();
    watched.await.expect("no panic");
    database.close().await;
    // A command does not watch its connections.
    environment.execute("FLUSH PRIVILEGES").await;
    let database = Database::new(&url.to_string().into(), 1).expect("a pool");
    database.ensure_login().await;
    database.ping().await.expect("logged in");
    database.close().await;
    environment.execute(&format!("DROP USER '{user}'@'%'")).await;
    environment.end().await;
}
