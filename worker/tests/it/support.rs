use std::{future::Future, time::Duration};

use bytes::Bytes;
use dibs_common::{
    domain::campaign::Campaign,
    identifiers::{ClaimId, UserId},
    redis::{
        BLOCK,
        scripts::{ClaimRequest, Decision, claim},
    },
    testing::{FIRST, TestEnvironment, eventually},
};
use dibs_worker::{
    issuance::{ClaimHandler, ClaimWorker, claim_worker},
    streams::{Handler, Reader, ReclaimPolicy, StreamWorker},
};
use tokio::{task::JoinHandle, time::Instant};
use tokio_util::sync::CancellationToken;

/// A policy that does not make a test wait.
pub const IMPATIENT: ReclaimPolicy = ReclaimPolicy { min_idle: Duration::ZERO, poll_interval: Duration::ZERO };

pub fn user(number: u64) -> UserId {
    number.try_into().expect("an id")
}

pub fn request(number: u64) -> ClaimRequest {
    ClaimRequest { user: user(number), claim: ClaimId::generate(), request: Bytes::new(), trace: None }
}

/// Claims as these users, in one call; all are accepted.
pub async fn accept(
    environment: &TestEnvironment,
    campaign: &Campaign,
    users: impl IntoIterator<Item = u64>,
) -> Vec<ClaimId> {
    let requests: Vec<ClaimRequest> = users.into_iter().map(request).collect();
    let decided = claim(&environment.redis, campaign.partition, campaign.id, "", &requests).await.expect("redis");
    let decided = decided.expect("a known campaign").decisions;
    assert!(decided.iter().all(|decision| matches!(decision, Decision::Accepted(_))), "{decided:?}");
    requests.into_iter().map(|request| request.claim).collect()
}

pub fn claims_of(environment: &TestEnvironment) -> ClaimWorker {
    claim_worker(&environment.database, &environment.redis, FIRST, IMPATIENT)
}

/// A worker that a test drives read by read.
pub struct Stepper<H: Handler> {
    worker: StreamWorker<H>,
    reader: Reader<H>,
}

impl<H: Handler> Stepper<H> {
    pub async fn join(worker: StreamWorker<H>, name: &str) -> Self {
        let reader = worker.join(FIRST, name).await.expect("joined");
        Self { worker, reader }
    }

    /// Reads once and carries through what was read; how many entries.
    pub async fn run_once(&mut self) -> usize {
        self.worker.run_once(&mut self.reader).await.expect("worked")
    }
}

pub async fn consumer(environment: &TestEnvironment, name: &str) -> Stepper<ClaimHandler> {
    Stepper::join(claims_of(environment), name).await
}

/// A worker that runs until it is stopped.
pub struct Running {
    stopping: CancellationToken,
    task: JoinHandle<()>,
}

impl Running {
    pub fn start<H: Handler>(worker: StreamWorker<H>) -> Self {
        let stopping = CancellationToken::new();
        let stop = stopping.clone();
        Self { stopping, task: tokio::spawn(async move { worker.run([FIRST], stop).await }) }
    }

    /// Stops it, and waits until nothing is in flight.
    pub async fn stop(self) {
        self.stopping.cancel();
        self.task.await.expect("drained");
    }
}

/// Works until nothing is left that can be ended.
pub async fn work(environment: &TestEnvironment) {
    claims_of(environment).drain(FIRST).await.expect("drained");
}

const RECLAIM: ReclaimPolicy =
    ReclaimPolicy { min_idle: Duration::from_secs(1), poll_interval: Duration::from_millis(100) };

/// Proves that a worker reclaims what a dead consumer has read: not before it is idle for `min_idle`, and at the next
/// look after that. `is_done` is true when the work of the dead one is done.
pub async fn expect_reclaimed_in_time<H: Handler, F: Future<Output = bool>>(
    read_by_the_dead: impl Future,
    worker: impl FnOnce(ReclaimPolicy) -> StreamWorker<H>,
    is_done: impl FnMut() -> F,
) {
    let before_read = Instant::now();
    read_by_the_dead.await;
    let after_read = Instant::now();
    let worker = Running::start(worker(RECLAIM));
    // A look waits for the read before it, and that waits for new entries for up to `BLOCK`.
    let latest = RECLAIM.min_idle + RECLAIM.poll_interval + BLOCK + Duration::from_secs(1);
    eventually("the entries of the dead consumer are processed", latest, is_done).await;
    let (since_before, since_after) = (before_read.elapsed(), after_read.elapsed());
    assert!(since_before >= RECLAIM.min_idle, "reclaimed after {since_before:?}");
    assert!(since_after <= latest, "reclaimed after {since_after:?}");
    worker.stop().await;
}
