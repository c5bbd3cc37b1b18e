//! Limits on claims, of each user and of each client address, over all processes.
//!
//! Redis counts: requests that wait join into one call, as claims do. What it refuses is remembered until it would allow
//! more, so that a client far beyond its limit costs a look into memory and no call.

use std::{
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
    time::Duration,
};

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use dibs_common::{
    error::Error,
    identifiers::UserId,
    redis::{
        Redis,
        scripts::{self, RateDecision, RateLimit},
    },
    supervisor::{Lifetime, Supervisor, Task},
};
use futures::FutureExt as _;
use metrics::counter;
use moka::future::Cache;
use tokio::{
    sync::{Mutex, Semaphore, mpsc, oneshot},
    time::{Instant, timeout},
};

use crate::settings::ApiSettings;

/// Requests that one call of the script counts.
const MAX_BATCH: usize = 250;
/// Calls in flight; while they are, the next batch gathers.
const MAX_CALLS: usize = 4;
/// Requests that wait for a call. More are let through: the limit must not be what fails.
const MAX_QUEUED: usize = 10_000;
/// How long a request waits for its count. After that it is let through.
const COUNT_TIMEOUT: Duration = Duration::from_millis(250);
/// Refused clients that are remembered.
const MAX_REMEMBERED: u64 = 100_000;
/// The window of both limits.
const WINDOW: Duration = Duration::from_mins(1);

static POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
static LIMIT: HeaderName = HeaderName::from_static("ratelimit");

/// What a limit counts by.
#[derive(Clone, Copy, Debug)]
enum Scope {
    User,
    Address,
}

impl Scope {
    const fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Address => "address",
        }
    }
}

pub struct RateLimiter {
    scopes: Vec<Scope>,
    limits: Vec<RateLimit>,
    redis: Redis,
    queue: mpsc::Sender<Counted>,
    /// Until when a key is refused.
    refused: Cache<String, Instant>,
    policy: HeaderValue,
}

/// A request that waits for its count.
struct Counted {
    keys: Vec<String>,
    caller: oneshot::Sender<Vec<RateDecision>>,
}

/// Whether a request may go on, and the fields that its response has.
pub struct Admission {
    pub refusal: Option<Error>,
    pub fields: HeaderMap,
}

impl RateLimiter {
    /// None when no limit is set.
    pub fn start(settings: &ApiSettings, redis: &Redis, supervisor: &Supervisor) -> Option<Self> {
        let quotas = [(Scope::User, settings.claims_per_user), (Scope::Address, settings.claims_per_address)];
        let set: Vec<(Scope, RateLimit)> = quotas
            .into_iter()
            .filter(|(_, quota)| *quota > 0)
            .map(|(scope, quota)| (scope, RateLimit { quota, window: WINDOW }))
            .collect();
        if set.is_empty() {
            return None;
        }
        let (scopes, limits): (Vec<Scope>, Vec<RateLimit>) = set.into_iter().unzip();
        let (queue, queued) = mpsc::channel(MAX_QUEUED);
        let (counter, queued) =
            (Counter { redis: redis.clone(), limits: limits.clone() }, Arc::new(Mutex::new(queued)));
        let counter = Arc::new(counter);
        supervisor.spawn(Task::new("rate_limiter", Lifetime::UntilShutdown, move || {
            Arc::clone(&counter).run(Arc::clone(&queued)).map(Ok)
        }));
        let policies = scopes.iter().zip(&limits);
        let policies = policies
            .map(|(scope, limit)| format!("\"{}\";q={};w={}", scope.name(), limit.quota, limit.window.as_secs()))
            .collect::<Vec<_>>();
        let policy = HeaderValue::try_from(policies.join(", ")).unwrap_or(HeaderValue::from_static(""));
        // No refusal is longer than the window.
        let refused = Cache::builder().max_capacity(MAX_REMEMBERED).time_to_live(WINDOW).build();
        Some(Self { scopes, limits, redis: redis.clone(), queue, refused, policy })
    }

    /// Counts a claim. When it cannot be counted, it is let through.
    pub async fn admit(&self, user: UserId, address: IpAddr) -> Admission {
        let keys: Vec<String> = self.scopes.iter().map(|scope| self.key(*scope, user, address)).collect();
        for (place, key) in keys.iter().enumerate() {
            let until = self.refused.get(key).await;
            let wait = until.and_then(|until| until.checked_duration_since(Instant::now()));
            if let Some(wait) = wait.filter(|wait| !wait.is_zero()) {
                let decision = RateDecision { is_allowed: false, remaining: 0, wait };
                counter!("dibs_rate_limited_claims_total", "scope" => self.scopes[place].name(), "by" => "local")
                    .increment(1);
                return self.admission(&[(place, decision)]);
            }
        }
        let (caller, decisions) = oneshot::channel();
        if self.queue.try_send(Counted { keys: keys.clone(), caller }).is_err() {
            return Admission { refusal: None, fields: HeaderMap::new() };
        }
        let Ok(Ok(decisions)) = timeout(COUNT_TIMEOUT, decisions).await else {
            return Admission { refusal: None, fields: HeaderMap::new() };
        };
        for ((key, scope), decision) in keys.into_iter().zip(&self.scopes).zip(&decisions) {
            if !decision.is_allowed {
                counter!("dibs_rate_limited_claims_total", "scope" => scope.name(), "by" => "redis").increment(1);
                self.refused.insert(key, Instant::now() + decision.wait).await;
            }
        }
        self.admission(&decisions.into_iter().enumerate().collect::<Vec<_>>())
    }

    fn key(&self, scope: Scope, user: UserId, address: IpAddr) -> String {
        match scope {
            Scope::User => self.redis.keys.rate_limit(scope.name(), user),
            Scope::Address => self.redis.keys.rate_limit(scope.name(), network(address)),
        }
    }

    /// The answer of the limits with these places.
    fn admission(&self, decisions: &[(usize, RateDecision)]) -> Admission {
        let limits: Vec<String> = decisions
            .iter()
            .map(|(place, RateDecision { remaining, wait, .. })| {
                format!("\"{}\";r={remaining};t={}", self.scopes[*place].name(), seconds(*wait))
            })
            .collect();
        let mut fields = HeaderMap::with_capacity(2);
        fields.insert(POLICY.clone(), self.policy.clone());
        if let Ok(value) = HeaderValue::try_from(limits.join(", ")) {
            fields.insert(LIMIT.clone(), value);
        }
        // Of two limits that refuse, the one that refuses longer.
        let refused =
            decisions.iter().filter(|(_, decision)| !decision.is_allowed).max_by_key(|(_, decision)| decision.wait);
        let refusal = refused.map(|(place, decision)| Error::RateLimited {
            scope: self.scopes[*place].name(),
            limit: self.limits[*place].quota,
            retry_after: seconds(decision.wait).max(1),
        });
        Admission { refusal, fields }
    }
}

/// Rounded up: a caller that follows a time rounded down comes too early.
fn seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis().div_ceil(1_000)).unwrap_or(i64::MAX)
}

/// What one client has of addresses: of IPv6, a network of 64 bits.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => {
            let mut segments = address.segments();
            segments[4..].fill(0);
            Ipv6Addr::from(segments).into()
        }
    }
}

/// Sends requests to Redis, many in one call of the script.
struct Counter {
    redis: Redis,
    limits: Vec<RateLimit>,
}

impl Counter {
    async fn run(self: Arc<Self>, queued: Arc<Mutex<mpsc::Receiver<Counted>>>) {
        let mut queued = queued.lock().await;
        let calls = Arc::new(Semaphore::new(MAX_CALLS));
        loop {
            // The permit comes first: while all calls are in flight, the batch grows.
            let Ok(permit) = Arc::clone(&calls).acquire_owned().await else { return };
            let mut batch = Vec::with_capacity(MAX_BATCH);
            if queued.recv_many(&mut batch, MAX_BATCH).await == 0 {
                return;
            }
            let counter = Arc::clone(&self);
            tokio::spawn(async move {
                counter.count(batch).await;
                drop(permit);
            });
        }
    }

    async fn count(&self, batch: Vec<Counted>) {
        let (keys, callers): (Vec<_>, Vec<_>) = batch.into_iter().map(|counted| (counted.keys, counted.caller)).unzip();
        match timeout(COUNT_TIMEOUT, scripts::rate_limit(&self.redis, &self.limits, keys)).await {
            Ok(Ok(decisions)) => {
                for (caller, decisions) in callers.into_iter().zip(decisions) {
                    // A caller that went away was counted all the same.
                    let _gone = caller.send(decisions);
                }
            }
            // Callers are dropped, and their requests let through.
            Ok(Err(error)) => tracing::debug!(cause = error.chain(), "claims not counted"),
            Err(_) => tracing::debug!("claims not counted in time"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_of_ipv6_has_a_network_of_addresses() {
        let network_of = |text: &str| network(text.parse().expect("an address")).to_string();
        assert_eq!(network_of("192.0.2.7"), "192.0.2.7");
        assert_eq!(network_of("::ffff:192.0.2.7"), "192.0.2.7");
        assert_eq!(network_of("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
    }
}
