//! A worker whose settings name brokers.

use dibs_common::{clock, domain::order::OrderRules, supervisor::Supervisor, testing::eventually};
use dibs_worker::{
    Worker,
    kafka::{CLAIM_REQUESTS, KafkaSettings, RankingSource},
};
use tokio_util::sync::CancellationToken;

use super::{Brokers, LIMIT, all_is_counted, expect_all_in_order, expected_ids, register, wanted};
use crate::ranking::{ZONE, buy, shop};

/// A worker whose settings name brokers does all of it: events out, sales counted, requests taken in.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_with_brokers_sends_events_counts_sales_and_takes_requests() {
    let (brokers, (environment, products)) = (Brokers::new().await, shop(1).await);
    let campaign = environment.campaign(1).await;
    let stopping = CancellationToken::new();
    let worker = Worker {
        rules: OrderRules { holding_cap: 1_000_000_000, time_zone: ZONE, ..OrderRules::DEFAULT },
        kafka: KafkaSettings { ranking_source: RankingSource::Kafka, ..brokers.settings.clone() },
        ..Worker::new(&environment.database, &environment.redis, Supervisor::new(stopping.clone()))
    };
    register(&environment).await;
    let working = tokio::spawn(worker.run(1));
    buy(&environment, products[0], 3, clock::now()).await;
    brokers.produce(CLAIM_REQUESTS, [wanted(8, campaign.id, None), wanted(9, campaign.id, None)]).await;
    let issued = async || environment.count("SELECT COUNT(*) FROM user_coupons").await == 1;
    eventually("the coupon is issued", LIMIT, issued).await;
    eventually("sales are counted", LIMIT, || all_is_counted(&environment)).await;
    let undelivered = "SELECT COUNT(*) FROM outbox_events e JOIN sinks s ON s.name = 'kafka' \
                WHERE COALESCE(e.sequence, 1000) > s.delivered_through";
    eventually("all events are published", LIMIT, async || environment.count(undelivered).await == 0).await;
    expect_all_in_order(&brokers.published(), &expected_ids(&environment).await);
    let refused = async || environment.count("SELECT COUNT(*) FROM claim_refusals").await == 1;
    eventually("the other is refused", LIMIT, refused).await;
    assert_eq!(
        environment.count("SELECT COUNT(*) FROM sinks WHERE name = 'ranking'").await,
        0,
        "its relay does not run"
    );
    stopping.cancel();
    working.await.expect("stopped");
    environment.end().await;
}
