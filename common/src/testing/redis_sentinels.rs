use std::{path::PathBuf, time::Duration};

use tokio::process::Child;

use super::{
    RedisServer, eventually,
    redis_server::{Login, ask, free_port, spawn},
};
use crate::identifiers::new_uuid;

const SENTINELS: usize = 3;
const SERVICE: &str = "shop";
const PASSWORD: &str = "of-redis";
const SENTINEL_PASSWORD: &str = "of-sentinels";
const LIMIT: Duration = Duration::from_secs(30);

/// A primary, a replica and three sentinels of a test's own. Redis has one password, and the sentinels another.
pub struct RedisSentinels {
    pub servers: [RedisServer; 2],
    sentinels: Vec<(u16, Child)>,
    folder: PathBuf,
}

impl RedisSentinels {
    pub async fn start() -> Self {
        let auth = ["--requirepass", PASSWORD, "--masterauth", PASSWORD];
        let durable = ["--appendonly", "yes", "--appendfsync", "always", "--repl-diskless-sync-delay", "0"];
        let options = [&auth[..], &durable[..]].concat();
        let primary = RedisServer::start(&options);
        let port = primary.port.to_string();
        let replica = RedisServer::start(&[&options[..], &["--replicaof", "127.0.0.1", &port]].concat());
        let folder = std::env::temp_dir().join(format!("dibs-sentinels-{}", new_uuid()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let mut started = Self { servers: [primary, replica], sentinels: Vec::new(), folder };
        let ask = async |port, password, words: &[&str]| {
            let reply = ask(port, Login { user: None, password: Some(password) }, words).await;
            reply.and_then(fred::types::Value::into_string)
        };
        eventually("the replica follows", LIMIT, async || {
            let info = ask(started.servers[1].port, PASSWORD, &["INFO", "replication"]).await;
            info.is_some_and(|info| info.contains("master_link_status:up"))
        })
        .await;
        for number in 0..SENTINELS {
            started.start_sentinel(number, &port);
        }
        for (port, _) in &started.sentinels {
            eventually("the sentinels know each other", LIMIT, async || {
                let known = ask(*port, SENTINEL_PASSWORD, &["INFO", "sentinel"]).await;
                known.is_some_and(|known| known.contains("status=ok") && known.contains("slaves=1,sentinels=3"))
            })
            .await;
        }
        started
    }

    fn start_sentinel(&mut self, number: usize, primary: &str) {
        let port = free_port();
        let file = format!("{number}.conf");
        let settings = format!(
            "port {port}\nbind 127.0.0.1\nrequirepass {SENTINEL_PASSWORD}\nsentinel sentinel-pass {SENTINEL_PASSWORD}\n\
             sentinel monitor {SERVICE} 127.0.0.1 {primary} 2\nsentinel auth-pass {SERVICE} {PASSWORD}\n\
             sentinel down-after-milliseconds {SERVICE} 1000\nsentinel failover-timeout {SERVICE} 5000\n"
        );
        std::fs::write(self.folder.join(&file), settings).expect("written");
        let process = spawn(&self.folder, &[&*file, "--sentinel"]);
        self.sentinels.push((port, process));
    }

    pub fn url(&self) -> String {
        let [(first, _), others @ ..] = &self.sentinels[..] else { panic!("there are sentinels") };
        let others: Vec<String> = others.iter().map(|(port, _)| format!("&node=127.0.0.1:{port}")).collect();
        format!(
            "redis-sentinel://:{PASSWORD}@127.0.0.1:{first}/0?sentinelServiceName={SERVICE}\
             &sentinelPassword={SENTINEL_PASSWORD}{}",
            others.concat()
        )
    }
}

impl Drop for RedisSentinels {
    fn drop(&mut self) {
        let _removed = std::fs::remove_dir_all(&self.folder);
    }
}
