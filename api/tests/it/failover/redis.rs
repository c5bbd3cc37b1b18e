use dibs_common::testing::{RedisCluster, RedisSentinels, RedisServer, SwitchingProxy, eventually};

use super::*;

const DURABLE: [&str; 4] = ["--appendonly", "yes", "--appendfsync", "always"];

#[tokio::test(flavor = "multi_thread")]
async fn i3_a_sentinel_failover_in_the_middle_of_a_burst_loses_no_accepted_claim() {
    for round in 1..=rounds() {
        let mut sentinels = RedisSentinels::start().await;
        let shop = Shop::open(sentinels.url()).await;
        let figures = shop.burst(&format!("sentinel, round {round}"), async || sentinels.servers[0].kill()).await;
        assert_eq!(figures.lost, 0, "{figures}");
        assert!(figures.refused > 0 && figures.accepted > 100, "{figures}");
        shop.expect_no_differences().await;
        shop.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn i3_a_primary_of_a_cluster_killed_in_the_middle_of_a_burst_loses_no_accepted_claim() {
    for round in 1..=rounds() {
        let mut cluster = RedisCluster::with_replicas(3).await;
        let shop = Shop::open(cluster.url()).await;
        let slot = RedisCluster::slot(&shop.app.environment.redis.keys.claim_stream(dibs_common::testing::FIRST));
        let owner = cluster.owner(slot).await;
        let figures = shop.burst(&format!("cluster, round {round}"), async || cluster.kill(owner)).await;
        assert_eq!(figures.lost, 0, "{figures}");
        assert!(figures.refused > 0 && figures.accepted > 100, "{figures}");
        shop.expect_no_differences().await;
        shop.close().await;
    }
}

/// The address moves to the new primary, as that of a managed Redis does; live connections stay with the old one.
#[tokio::test(flavor = "multi_thread")]
async fn i3_a_demoted_primary_is_left_within_ten_seconds_without_a_restart() {
    for round in 1..=rounds() {
        let first = RedisServer::start(&DURABLE);
        let port = first.port.to_string();
        let second = RedisServer::start(&[&DURABLE[..], &["--replicaof", "127.0.0.1", &port]].concat());
        eventually("the replica follows", ISSUED_WITHIN, async || second.follows().await).await;
        let proxy = SwitchingProxy::before(first.port).await;
        let shop = Shop::open(format!("redis://127.0.0.1:{}", proxy.port)).await;
        let name = format!("demoted primary, round {round}");
        let figures = shop.burst(&name, async || {
            // FAILOVER waits until the replica has everything, so that nothing is lost.
            let to = second.port.to_string();
            let demoted = first.ask(&["FAILOVER", "TO", "127.0.0.1", &to]).await;
            assert!(demoted.is_some(), "the primary accepts it");
            eventually("the replica is promoted", ISSUED_WITHIN, async || second.is_primary().await).await;
            proxy.lead_to(second.port);
        });
        let figures = figures.await;
        assert_eq!(figures.lost, 0, "{figures}");
        assert!(figures.recovery < Duration::from_secs(10), "{figures}");
        shop.expect_no_differences().await;
        shop.close().await;
    }
}
