//! A campaign that administrators change, pause and rebuild, and whose coupons they revoke, while claims pour in.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

use chrono::{DateTime, TimeDelta, Utc};
use dibs_common::{
    clock,
    domain::campaign::Campaign,
    identifiers::{ClaimId, UserId},
    supervisor::Supervisor,
    testing::{FIRST, TestEnvironment},
};
use dibs_loadtest::{
    audit::audit,
    record::{ClaimObservation, ClaimResponse, ClientRecord, Receipt},
    stores::Stores,
    wait,
};
use dibs_worker::{Worker, campaigns::rebuild};
use fastrand::Rng;
use futures::future::join_all;
use reqwest::{Client, Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use tokio::{task::JoinHandle, time::sleep};
use tokio_util::sync::CancellationToken;

use super::api::{ADMIN_TOKEN, serve_api};

/// Callers at once.
const CALLERS: u64 = 32;
/// Claims without `CLAIMS` in the environment.
const CLAIMS: u64 = 4_000;
const LIMIT: Duration = Duration::from_mins(1);

/// Two API processes and a worker, and a campaign.
struct Shop {
    environment: TestEnvironment,
    apis: [String; 2],
    client: Client,
    campaign: Campaign,
    stopping: CancellationToken,
    running: Vec<JoinHandle<()>>,
}

/// From the answer to a pause or a close to the call that ended it.
type Stop = (DateTime<Utc>, DateTime<Utc>);

/// What an administrator did.
#[derive(Debug, Default)]
struct Administration {
    changed: u32,
    refused: u32,
    revoked: u32,
    rebuilt: u32,
    stops: Vec<Stop>,
}

impl Shop {
    async fn open() -> Self {
        let environment = TestEnvironment::new().await;
        let stopping = CancellationToken::new();
        let mut running = Vec::new();
        let mut serve = async || {
            let (address, serving) = serve_api(environment.settings.clone(), &stopping).await;
            running.push(serving);
            address
        };
        let apis = [serve().await, serve().await];
        let worker = Worker::new(&environment.database, &environment.redis, Supervisor::new(stopping.clone()));
        running.push(tokio::spawn(worker.run(environment.settings.claim_partitions)));
        let campaign = environment.campaign(500).await;
        let client = Client::builder().timeout(Duration::from_secs(15)).build().expect("a client");
        Self { environment, apis, client, campaign, stopping, running }
    }

    /// Claims as user after user, until `claims` are made; one in ten by a user who has claimed before.
    async fn claim(
        &self,
        caller: u64,
        next: &AtomicU64,
        claims: u64,
    ) -> Vec<(ClaimObservation, Option<DateTime<Utc>>)> {
        let mut random = Rng::with_seed(caller);
        let mut observed = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed) + 1;
            if number > claims {
                return observed;
            }
            let number = if random.u8(..10) == 0 { random.u64(1..=number) } else { number };
            let user = UserId::try_from(number).expect("an id");
            let url = format!("{}/coupons/issue", self.apis[random.usize(..2)]);
            let body = json!({ "userId": user, "couponId": self.campaign.id });
            let response = self.client.post(url).json(&body).send().await.expect("a response");
            let (status, body) = (response.status(), response.json::<Value>().await.expect("JSON"));
            let response = match (status, body["code"].as_str()) {
                (StatusCode::ACCEPTED, _) => {
                    ClaimResponse::Accepted(serde_json::from_value::<Receipt>(body.clone()).expect("a receipt"))
                }
                (_, Some("COUPON_ALREADY_ISSUED")) => {
                    let first = body["claim"]["claimId"].as_str().and_then(|id| id.parse().ok());
                    ClaimResponse::AlreadyIssued(first.map(ClaimId))
                }
                (_, Some("COUPON_EXHAUSTED" | "CAMPAIGN_PAUSED" | "CAMPAIGN_CLOSED" | "CAMPAIGN_UNAVAILABLE")) => {
                    // So that a pause or a rebuild does not use up all claims.
                    sleep(Duration::from_millis(random.u64(1..20))).await;
                    ClaimResponse::Exhausted
                }
                _ => ClaimResponse::Unexpected(format!("{status} {body}")),
            };
            let accepted_at = body["acceptedAt"].as_str().and_then(|time| time.parse().ok());
            observed.push((ClaimObservation { user, response, uncertain_attempts: 0 }, accepted_at));
        }
    }

    async fn administer(&self, method: Method, path: &str, body: Option<Value>) -> (StatusCode, Value) {
        let request = self.client.request(method, format!("{}{path}", self.apis[fastrand::usize(..2)]));
        let request = request.bearer_auth(ADMIN_TOKEN).header("if-match", "*");
        let response = body.iter().fold(request, RequestBuilder::json).send().await.expect("a response");
        (response.status(), response.json().await.expect("JSON"))
    }

    /// Changes the campaign at random until `is_over`, then closes it.
    async fn change(&self, seed: u64, is_over: &AtomicBool) -> Administration {
        let (mut random, mut done) = (Rng::with_seed(seed), Administration::default());
        let path = format!("/admin/coupons/{}", self.campaign.id);
        while !is_over.load(Ordering::Relaxed) {
            match random.u8(..20) {
                0 => {
                    let (status, body) = self.administer(Method::POST, &format!("{path}/pause"), None).await;
                    assert_eq!(status, 200, "{body}");
                    let answered = clock::now();
                    sleep(Duration::from_millis(random.u64(..2_500))).await;
                    done.stops.push((answered, clock::now()));
                    let (status, body) = self.administer(Method::POST, &format!("{path}/resume"), None).await;
                    assert_eq!(status, 200, "{body}");
                }
                1 => {
                    let campaign = self.stored().await;
                    let rebuilt = rebuild(&self.environment.database, &self.environment.redis, &campaign);
                    done.rebuilt += u32::from(rebuilt.await.expect("a rebuild").is_some());
                }
                2..=9 => done.revoked += u32::from(self.revoke_one(&mut random).await),
                _ => {
                    let claimed = i64::from(self.stored().await.issued);
                    let quantity = (claimed + random.i64(-100..500)).max(1);
                    let body = json!({ "totalQuantity": quantity });
                    match self.administer(Method::PATCH, &path, Some(body)).await {
                        (StatusCode::OK, _) => done.changed += 1,
                        // A rebuild is not over, or more is claimed.
                        (_, body)
                            if ["CAMPAIGN_UNAVAILABLE", "QUANTITY_BELOW_CLAIMED"]
                                .iter()
                                .any(|code| body["code"] == *code) =>
                        {
                            done.refused += 1;
                        }
                        (status, body) => panic!("{status} {body}"),
                    }
                }
            }
            sleep(Duration::from_millis(random.u64(..50))).await;
        }
        let (status, body) = self.administer(Method::POST, &format!("{path}/close"), None).await;
        assert_eq!(status, 200, "{body}");
        done.stops.push((clock::now(), DateTime::<Utc>::MAX_UTC));
        done
    }

    /// Revokes a coupon that is issued; whether there was one.
    async fn revoke_one(&self, random: &mut Rng) -> bool {
        let sql = format!(
            "SELECT CONCAT('/users/', user_id, '/coupons/', LOWER(CONCAT_WS('-', SUBSTR(HEX(user_coupon_id), 1, 8), \
             SUBSTR(HEX(user_coupon_id), 9, 4), SUBSTR(HEX(user_coupon_id), 13, 4), SUBSTR(HEX(user_coupon_id), 17, 4), \
             SUBSTR(HEX(user_coupon_id), 21)))) FROM user_coupons WHERE status = 'ISSUED' AND user_id >= {} LIMIT 1",
            random.u64(..2_000)
        );
        let Some(path) = self.environment.texts(&sql).await.pop() else { return false };
        let (status, body) = self.administer(Method::DELETE, &path, None).await;
        assert_eq!((status.as_u16(), &body["status"]), (200, &json!("REVOKED")), "{body}");
        true
    }

    async fn stored(&self) -> Campaign {
        let found = dibs_common::db::campaigns::find(&self.environment.database.pool(), self.campaign.id).await;
        found.expect("read").expect("the campaign")
    }

    async fn end(self) {
        self.stopping.cancel();
        for task in self.running {
            task.await.expect("no panic");
        }
        self.environment.end_consistent().await;
    }
}

/// Claims that were accepted more than a second after a pause or a close was answered.
fn late(accepted: &[DateTime<Utc>], stops: &[Stop]) -> Vec<(DateTime<Utc>, Stop)> {
    let is_late = |moment: DateTime<Utc>, (from, until): Stop| moment > from + TimeDelta::seconds(1) && moment < until;
    let pairs = accepted.iter().flat_map(|moment| stops.iter().map(move |stop| (*moment, *stop)));
    pairs.filter(|(moment, stop)| is_late(*moment, *stop)).collect()
}

/// I1 to I4 and I11. `CLAIMS=50000` and `SEED` in the environment make it longer, and other.
#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::print_stdout, reason = "the figures of a long run")]
async fn i1_to_i11_hold_while_a_campaign_is_changed_paused_rebuilt_and_revoked() {
    let number =
        |name: &str, default: u64| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default);
    let (claims, seed) = (number("CLAIMS", CLAIMS), number("SEED", 7));
    let shop = Shop::open().await;
    let (next, is_over) = (AtomicU64::new(0), AtomicBool::new(false));
    let claiming = async {
        let observed = join_all((1..=CALLERS).map(|caller| shop.claim(caller, &next, claims))).await;
        is_over.store(true, Ordering::Relaxed);
        // Some more, which meet the close.
        let rest = AtomicU64::new(claims);
        let late = join_all((1..=CALLERS).map(|caller| shop.claim(caller, &rest, claims + 500))).await;
        observed.into_iter().chain(late).flatten().collect::<Vec<_>>()
    };
    let (observed, administration) = tokio::join!(claiming, shop.change(seed, &is_over));
    let accepted: Vec<DateTime<Utc>> = observed
        .iter()
        .filter(|(claim, _)| matches!(claim.response, ClaimResponse::Accepted(_)))
        .filter_map(|(_, at)| *at)
        .collect();
    assert!(!accepted.is_empty());
    assert_eq!(late(&accepted, &administration.stops), []);
    let record = ClientRecord {
        observations: observed.into_iter().map(|(claim, _)| claim).collect(),
        ..ClientRecord::default()
    };
    assert_eq!(record.unexpected_samples(), Vec::<&str>::new());

    let stores = Stores { database: shop.environment.database.clone(), redis: shop.environment.redis.clone() };
    let drained = wait::until("an empty stream and equal counts", LIMIT, Duration::from_millis(50), async || {
        let report = audit(&stores, shop.campaign.id, Some(&record)).await?;
        Ok(stores.backlog(FIRST).await? == 0 && report.differences() == 0)
    });
    let drained = drained.await;
    let report = audit(&stores, shop.campaign.id, Some(&record)).await.expect("an audit");
    println!("{claims} claims, {} accepted; {administration:?}\n{}", accepted.len(), report.render());
    drained.expect("no difference at rest");
    assert!(administration.changed > 0 && administration.revoked > 0, "{administration:?}");
    shop.end().await;
}
