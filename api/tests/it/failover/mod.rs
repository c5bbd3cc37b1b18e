//! Servers that fail in the middle of a burst, and others that take their place: how long claims are not taken, and
//! whether one that was accepted is lost. `ROUNDS=10` repeats each; the figures go to standard error.

mod redis;
mod restricted;
mod tls;

use std::{
    collections::BTreeSet,
    env,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use dibs_common::{
    identifiers::CouponId,
    testing::{TestEnvironment, eventually},
};
use tokio::{task::JoinHandle, time::Instant};

use crate::app::{RULES, TestApp, claim_body};

const CALLERS: u64 = 16;
/// Claims go on for so long before the fault, and after claims are taken again.
const CALM: Duration = Duration::from_secs(1);
/// A server that was lost is replaced within this time, and claims are taken again.
const RECOVERED_WITHIN: Duration = Duration::from_mins(1);
const ISSUED_WITHIN: Duration = Duration::from_mins(1);

fn rounds() -> u32 {
    env::var("ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(1)
}

/// API and worker on a Redis of a test's own, with an open campaign.
struct Shop {
    app: TestApp,
    coupon: CouponId,
    /// Put back at the end: it lists the keys of the test.
    plain: dibs_common::redis::Redis,
}

impl Shop {
    async fn open(redis_url: String) -> Self {
        let mut environment = TestEnvironment::new().await;
        environment.settings.redis_url = redis_url.into();
        let redis = environment.settings.redis(2).await.expect("redis");
        let plain = std::mem::replace(&mut environment.redis, redis);
        let mut app = TestApp::at(environment).await;
        app.start_worker(RULES);
        let coupon = app.environment.campaign(10_000_000).await.id;
        Self { app, coupon, plain }
    }

    /// Claims go on while `fault` happens, and until some time after claims are taken again.
    async fn burst(&self, name: &str, fault: impl AsyncFnOnce()) -> Figures {
        let burst = Burst::start(&self.app, self.coupon);
        tokio::time::sleep(CALM).await;
        fault().await;
        let struck = Instant::now();
        // What was on its way when the fault came may still be answered: the next second shows the outage.
        let mut last_refused = struck;
        let mut seen = burst.refused();
        while last_refused.elapsed() < CALM || burst.accepted_since(last_refused) == 0 {
            assert!(struck.elapsed() < RECOVERED_WITHIN, "{name}: still refused: {:?}", burst.last_refusal());
            tokio::time::sleep(Duration::from_millis(20)).await;
            let refused = burst.refused();
            if refused != std::mem::replace(&mut seen, refused) {
                last_refused = Instant::now();
            }
        }
        let recovery = last_refused - struck;
        let refused = burst.refused();
        let accepted = burst.stop().await;
        let lost = self.lost(&accepted).await;
        let figures = Figures { recovery, accepted: accepted.len(), refused, lost };
        eprintln!("{name}: {figures}");
        figures
    }

    /// Accepted claims that were not issued.
    async fn lost(&self, accepted: &BTreeSet<u64>) -> usize {
        let issued = async || {
            let sql = format!("SELECT CAST(user_id AS CHAR) FROM user_coupons WHERE coupon_id = {}", self.coupon);
            let users = self.app.environment.texts(&sql).await;
            users.into_iter().map(|user| user.parse::<u64>().expect("an id")).collect::<BTreeSet<u64>>()
        };
        let deadline = Instant::now() + ISSUED_WITHIN;
        loop {
            let lost = accepted.difference(&issued().await).count();
            if lost == 0 || Instant::now() > deadline {
                return lost;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Redis and the database agree, claim by claim.
    async fn expect_no_differences(&self) {
        let path = format!("/admin/coupons/{}/audit", self.coupon);
        eventually("there are no differences", ISSUED_WITHIN, async || {
            let audit = self.app.get_as_administrator(&path).await;
            audit.status == 200
                && audit.body["items"].as_array().is_some_and(Vec::is_empty)
                && audit.body["summary"]["differences"].as_array().is_some_and(Vec::is_empty)
        })
        .await;
    }

    async fn close(mut self) {
        self.app.stop_worker().await;
        self.app.environment.redis = self.plain;
        self.app.end().await;
    }
}

/// What a round showed.
struct Figures {
    /// From the fault to the last refusal.
    recovery: Duration,
    accepted: usize,
    refused: u64,
    lost: usize,
}

impl std::fmt::Display for Figures {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { recovery, accepted, refused, lost } = self;
        let recovery = recovery.as_secs_f64();
        write!(formatter, "recovered after {recovery:.1} s, {accepted} accepted, {refused} refused, {lost} lost")
    }
}

/// Callers that claim until they are stopped, each for other users.
struct Burst {
    stopped: Arc<AtomicBool>,
    refused: Arc<AtomicU64>,
    last_refusal: Arc<Mutex<String>>,
    accepted: Arc<Mutex<Vec<(u64, Instant)>>>,
    callers: Vec<JoinHandle<()>>,
}

/// Users of the next burst are others.
static NEXT_USER: AtomicU64 = AtomicU64::new(1);

impl Burst {
    fn start(app: &TestApp, coupon: CouponId) -> Self {
        let (stopped, refused): (Arc<AtomicBool>, Arc<AtomicU64>) = Default::default();
        let accepted: Arc<Mutex<Vec<(u64, Instant)>>> = Arc::default();
        let last_refusal: Arc<Mutex<String>> = Arc::default();
        let caller = |_| {
            let (stopped, refused, accepted) = (Arc::clone(&stopped), Arc::clone(&refused), Arc::clone(&accepted));
            let last_refusal = Arc::clone(&last_refusal);
            let (client, url) = (app.client.clone(), format!("http://{}/coupons/issue", app.address));
            tokio::spawn(async move {
                while !stopped.load(Ordering::Relaxed) {
                    let user = NEXT_USER.fetch_add(1, Ordering::Relaxed);
                    match client.post(&url).json(&claim_body(coupon, user)).send().await {
                        Ok(answer) if answer.status() == 202 => {
                            accepted.lock().expect("whole").push((user, Instant::now()));
                        }
                        Ok(answer) => {
                            assert_eq!(answer.status(), 503, "user {user}");
                            refused.fetch_add(1, Ordering::Relaxed);
                            *last_refusal.lock().expect("whole") = answer.text().await.unwrap_or_default();
                        }
                        Err(error) => panic!("{error}"),
                    }
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            })
        };
        let callers = (0..CALLERS).map(caller).collect();
        Self { stopped, refused, last_refusal, accepted, callers }
    }

    fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    fn last_refusal(&self) -> String {
        self.last_refusal.lock().expect("whole").clone()
    }

    fn accepted_since(&self, since: Instant) -> usize {
        self.accepted.lock().expect("whole").iter().filter(|(_, at)| *at > since).count()
    }

    async fn stop(self) -> BTreeSet<u64> {
        self.stopped.store(true, Ordering::Relaxed);
        for caller in self.callers {
            caller.await.expect("a caller");
        }
        let accepted = self.accepted.lock().expect("whole");
        accepted.iter().map(|(user, _)| *user).collect()
    }
}
