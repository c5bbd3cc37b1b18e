//! Slots of a Redis Cluster are moved between its nodes while API and worker run.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use dibs_common::{
    identifiers::{CouponId, Partition},
    testing::{RedisCluster, TestEnvironment, eventually},
};
use reqwest::StatusCode;
use serde_json::json;
use tokio::task::JoinHandle;

use crate::app::{RULES, TestApp, claim_body, terms_body};

const PARTITIONS: u16 = 3;
const LIMIT: Duration = Duration::from_secs(10);
/// An accepted claim is issued within this time after the last move.
const ISSUED_WITHIN: Duration = Duration::from_secs(5);

/// API and worker on a cluster, with a campaign in each partition.
struct Shop {
    app: TestApp,
    plain: dibs_common::redis::Redis,
    campaigns: Vec<CouponId>,
    product: u64,
}

impl Shop {
    async fn open(cluster: &RedisCluster) -> Self {
        let mut environment = TestEnvironment::with_partitions(PARTITIONS).await;
        environment.settings.redis_url = cluster.url().into();
        let redis = environment.settings.redis(2).await.expect("a cluster");
        let plain = std::mem::replace(&mut environment.redis, redis);
        let mut app = TestApp::at(environment).await;
        app.start_worker(RULES);
        let product = app.environment.product(1_000, 1_000_000).await.get();
        let mut campaigns = BTreeMap::new();
        while campaigns.len() < usize::from(PARTITIONS) {
            let created = app.administer("/admin/coupons", terms_body(|terms| terms.total_quantity = 1_000_000)).await;
            assert_eq!(created.status, 201, "{created:?}");
            let coupon: u64 = created.body["couponId"].as_u64().expect("an id");
            let partition = format!("SELECT partition_number FROM coupons WHERE coupon_id = {coupon}");
            campaigns.insert(app.environment.count(&partition).await, CouponId::try_from(coupon).expect("an id"));
        }
        Self { app, plain, campaigns: campaigns.into_values().collect(), product }
    }

    /// Stops both, and ends the test.
    async fn close(mut self) {
        self.app.stop_worker().await;
        self.app.environment.redis = self.plain;
        self.app.end().await;
    }
}

/// Callers that claim and order until they are stopped.
struct Load {
    stopped: Arc<AtomicBool>,
    statuses: Arc<Mutex<BTreeMap<(&'static str, u16), u64>>>,
    callers: Vec<JoinHandle<()>>,
}

impl Load {
    fn start(shop: &Shop) -> Self {
        let (stopped, statuses) = (Arc::new(AtomicBool::new(false)), Arc::<Mutex<BTreeMap<_, u64>>>::default());
        let next_user = Arc::new(AtomicU64::new(1));
        let callers = (0..6).map(|caller| {
            let (stopped, statuses, next_user) = (Arc::clone(&stopped), Arc::clone(&statuses), Arc::clone(&next_user));
            let (client, address) = (shop.app.client.clone(), shop.app.address);
            let (coupon, product) = (shop.campaigns[caller % shop.campaigns.len()], shop.product);
            tokio::spawn(async move {
                while !stopped.load(Ordering::Relaxed) {
                    let user = next_user.fetch_add(1, Ordering::Relaxed);
                    let (call, path, body) = if caller < 4 {
                        ("claim", "/coupons/issue", claim_body(coupon, user))
                    } else {
                        let items = json!([{ "productId": product, "quantity": 1 }]);
                        ("order", "/orders", json!({ "userId": user, "items": items }))
                    };
                    let answered = client.post(format!("http://{address}{path}")).json(&body).send().await;
                    let status = answered.expect("an answer").status();
                    *statuses.lock().expect("statuses").entry((call, status.as_u16())).or_default() += 1;
                    // So that the moves, and not the machine, decide what the load has to wait for.
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            })
        });
        let callers = callers.collect();
        Self { stopped, statuses, callers }
    }

    fn answered(&self, call: &'static str, status: StatusCode) -> u64 {
        self.statuses.lock().expect("statuses").get(&(call, status.as_u16())).copied().unwrap_or(0)
    }

    /// Stops the callers, and expects that all calls succeeded. Returns how many claims were accepted.
    async fn expect_no_failure(self) -> u64 {
        self.stopped.store(true, Ordering::Relaxed);
        for caller in &mut { self.callers } {
            caller.await.expect("a caller");
        }
        let statuses = self.statuses.lock().expect("statuses").clone();
        let accepted = statuses.get(&("claim", 202)).copied().unwrap_or(0);
        let ordered = statuses.iter().any(|((call, _), _)| *call == "order");
        assert!(accepted > 0 && ordered && statuses.keys().all(|(_, status)| *status < 300), "{statuses:?}");
        accepted
    }
}

async fn expect_issued(shop: &Shop, accepted: u64) {
    let issued = async || {
        let issued = shop.app.environment.count("SELECT COUNT(*) FROM user_coupons").await;
        u64::try_from(issued).expect("a count") == accepted
    };
    eventually(&format!("{accepted} accepted claims are issued"), ISSUED_WITHIN, issued).await;
}

fn slot(partition: u16) -> u16 {
    RedisCluster::slot(&format!("{{p{partition}}}"))
}

/// The campaign's keys and its claim stream go first, the orders stream stays a while, and then the slot follows.
#[tokio::test(flavor = "multi_thread")]
async fn claims_and_orders_go_on_while_a_slot_is_half_moved() {
    let cluster = RedisCluster::start(2).await;
    let shop = Shop::open(&cluster).await;
    let load = Load::start(&shop);
    let claimed = async |more: u64| {
        let before = load.answered("claim", StatusCode::ACCEPTED);
        eventually("claims go on", LIMIT, async || load.answered("claim", StatusCode::ACCEPTED) > before + more).await;
    };
    claimed(50).await;
    let slot = slot(0);
    let from = cluster.owner(slot).await;
    let to = 1 - from;
    cluster.begin_move(slot, from, to).await;
    claimed(20).await;
    let orders = shop.app.environment.redis.keys.order_stream(Partition(0));
    let mut keys = cluster.keys(slot, from).await;
    keys.retain(|key| *key != orders);
    cluster.move_keys(&keys, from, to).await;
    claimed(200).await;
    let ordered = shop.app.environment.count("SELECT COUNT(*) FROM orders").await;
    eventually("orders go on", LIMIT, async || {
        shop.app.environment.count("SELECT COUNT(*) FROM orders").await > ordered + 20
    })
    .await;
    cluster.move_keys(&[orders], from, to).await;
    claimed(20).await;
    cluster.end_move(slot, to).await;
    claimed(50).await;
    let accepted = load.expect_no_failure().await;
    expect_issued(&shop, accepted).await;
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ordinary_resharding_under_load_loses_and_fails_nothing() {
    let cluster = RedisCluster::start(3).await;
    let shop = Shop::open(&cluster).await;
    let load = Load::start(&shop);
    let slots: Vec<u16> = (0..PARTITIONS).map(slot).chain([RedisCluster::slot("{sales}")]).collect();
    for _ in 0..3 {
        for slot in &slots {
            let from = cluster.owner(*slot).await;
            cluster.move_slot(*slot, from, (from + 1) % cluster.size()).await;
            let before = load.answered("claim", StatusCode::ACCEPTED);
            eventually("claims go on", LIMIT, async || load.answered("claim", StatusCode::ACCEPTED) > before + 20)
                .await;
        }
    }
    let accepted = load.expect_no_failure().await;
    expect_issued(&shop, accepted).await;
    shop.close().await;
}
