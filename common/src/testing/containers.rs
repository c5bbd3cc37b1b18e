use std::{
    env,
    fs::File,
    process::{Command, Stdio},
    sync::OnceLock,
    time::Duration,
};

use testcontainers::{
    GenericImage, ImageExt as _, ReuseDirective,
    core::{ContainerPort, WaitFor},
    runners::AsyncRunner as _,
};
use tokio::sync::OnceCell;

const MYSQL: ContainerPort = ContainerPort::Tcp(3306);
const REDIS: ContainerPort = ContainerPort::Tcp(6379);

/// Removes the containers once no process holds the file `$1`: each test process does until it ends, however it ends. Looks
/// rarely, as a runner of tests may have no process for a moment. One remover is enough; it lets the next one begin before
/// it removes anything.
const REMOVER: &str = r#"
exec 8<"$1" 9>"$1.remover"
flock --nonblock 9 || exit
while sleep 5; do
  if flock --nonblock 8; then
    exec 9>&-
    docker rm --force --volumes dibs-test-mysql dibs-test-redis
    exit
  fi
done
"#;

/// URLs of the two containers that all tests of this machine share. They are removed after the last test.
pub(super) async fn shared() -> (String, String) {
    // Once a process: tasks of one thread would wait for each other's lock for good.
    static STARTED: OnceCell<(String, String)> = OnceCell::const_new();
    STARTED.get_or_init(start).await.clone()
}

async fn start() -> (String, String) {
    remove_after_the_last_test();
    // Of all processes only one may start the containers.
    let lock = File::create(env::temp_dir().join("dibs-test-containers.lock")).expect("a lock file");
    lock.lock().expect("the lock");
    let mysql = GenericImage::new("mysql", "9")
        .with_exposed_port(MYSQL)
        .with_wait_for(WaitFor::seconds(0))
        .with_env_var("MYSQL_ALLOW_EMPTY_PASSWORD", "yes")
        .with_env_var("MYSQL_ROOT_HOST", "%")
        .with_env_var("MYSQL_DATABASE", "dibs")
        .with_cmd(["mysqld", "--max-connections=500", "--innodb-flush-log-at-trx-commit=2", "--sync-binlog=0"])
        .with_container_name("dibs-test-mysql")
        .with_reuse(ReuseDirective::Always)
        .start()
        .await
        .expect("a container of mysql:9; or set DATABASE_URL and REDIS_URL");
    let redis = GenericImage::new("redis", "8")
        .with_exposed_port(REDIS)
        .with_wait_for(WaitFor::seconds(0))
        .with_container_name("dibs-test-redis")
        .with_reuse(ReuseDirective::Always)
        .start()
        .await
        .expect("a container of redis:8; or set DATABASE_URL and REDIS_URL");
    let mysql_port = mysql.get_host_port_ipv4(MYSQL).await.expect("a port of mysql");
    let redis_port = redis.get_host_port_ipv4(REDIS).await.expect("a port of redis");
    // Without TLS, which takes a loaded machine long when fifty connections are made at once.
    let database_url = format!("mysql://root@127.0.0.1:{mysql_port}/dibs?ssl-mode=DISABLED");
    let urls = (database_url, format!("redis://127.0.0.1:{redis_port}"));
    // The official image serves its set-up first, without the network, so only a query shows that it is ready.
    super::eventually("mysql answers in its container", Duration::from_secs(90), || async {
        let connected = <sqlx::MySqlConnection as sqlx::Connection>::connect(&urls.0).await;
        connected.is_ok()
    })
    .await;
    urls
}

fn remove_after_the_last_test() {
    static USED: OnceLock<File> = OnceLock::new();
    let path = env::temp_dir().join("dibs-test-containers.used");
    USED.get_or_init(|| {
        let file = File::create(&path).expect("a file of users");
        file.lock_shared().expect("a shared lock");
        file
    });
    // In a session of its own, which outlives this process.
    let mut remover = Command::new("setsid");
    remover.args(["--fork", "bash", "-c", REMOVER, "dibs-test-remover"]).arg(&path);
    let started = remover.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    assert!(started.expect("setsid of util-linux").success(), "a remover of containers");
}
