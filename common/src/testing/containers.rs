use std::{fs::File, time::Duration};

use testcontainers::{
    GenericImage, ImageExt as _, ReuseDirective,
    core::{ContainerPort, WaitFor},
    runners::AsyncRunner as _,
};

const MYSQL: ContainerPort = ContainerPort::Tcp(3306);
const REDIS: ContainerPort = ContainerPort::Tcp(6379);

/// URLs of the two containers that all tests of this machine share. They stay: `docker rm -f dibs-test-mysql
/// dibs-test-redis` removes them.
pub(super) async fn shared() -> (String, String) {
    // Each test is a process; only one may start the containers.
    let lock = File::create(std::env::temp_dir().join("dibs-test-containers.lock")).expect("a lock file");
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
    let urls = (format!("mysql://root@127.0.0.1:{mysql_port}/dibs"), format!("redis://127.0.0.1:{redis_port}"));
    // The official image serves its set-up first, without the network, so only a query shows that it is ready.
    super::eventually("mysql answers in its container", Duration::from_secs(90), || async {
        let connected = <sqlx::MySqlConnection as sqlx::Connection>::connect(&urls.0).await;
        connected.is_ok()
    })
    .await;
    urls
}
