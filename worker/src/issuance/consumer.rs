use std::time::Duration;

use dibs_common::{
    clock::{self, Timestamp},
    db::Database,
    domain::claim::{Claim, ClaimOutcome},
    error::{Error, Result},
    identifiers::Partition,
    redis::{
        Redis,
        streams::{ClaimEntry, ClaimStream, Delivery},
    },
};
use futures::StreamExt as _;
use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;

use super::confirm::{answer_waiting, confirm, return_seats};

/// Claims that one transaction confirms. An entry is never split, so one of more claims is a batch of its own.
const MAX_BATCH: usize = 500;
/// Batches of one partition in flight.
const BATCHES_IN_FLIGHT: usize = 2;
/// Entries read at once.
const MAX_ENTRIES: u64 = 500;
/// Attempts after which an entry that fails by itself goes to the dead letters.
const MAX_ATTEMPTS: u64 = 5;
const GAUGE_EVERY: Duration = Duration::from_secs(1);
const SHORTEST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// How patient a consumer is with others and with failing entries.
#[derive(Clone, Copy, Debug)]
pub struct ReclaimPolicy {
    /// An entry that a consumer has had in hand for longer is taken over.
    pub min_idle: Duration,
    /// How often to look for such entries.
    pub poll_interval: Duration,
}

impl Default for ReclaimPolicy {
    fn default() -> Self {
        Self { min_idle: Duration::from_secs(10), poll_interval: Duration::from_secs(2) }
    }
}

/// Confirms the claims of one partition.
pub struct Consumer {
    database: Database,
    redis: Redis,
    stream: ClaimStream,
    pace: ReclaimPolicy,
    meters: Meters,
}

struct Meters {
    issued: Counter,
    rejected: Counter,
    dead: Counter,
    batch_size: Histogram,
    lag: Histogram,
    backlog: Gauge,
    dead_letters: Gauge,
}

impl Meters {
    fn of(partition: Partition) -> Self {
        let partition = partition.0.to_string();
        Self {
            issued: counter!("dibs_claims_confirmed_total", "outcome" => "issued"),
            rejected: counter!("dibs_claims_confirmed_total", "outcome" => "rejected"),
            dead: counter!("dibs_claim_entries_dead_lettered_total"),
            batch_size: histogram!("dibs_confirm_batch_size"),
            lag: histogram!("dibs_confirm_lag_seconds"),
            backlog: gauge!("dibs_claim_backlog_entries", "partition" => partition.clone()),
            dead_letters: gauge!("dibs_claim_dead_letters", "partition" => partition),
        }
    }
}

impl Consumer {
    /// Joins the consumer group of a partition under a name of its own.
    pub async fn join(
        database: &Database,
        redis: &Redis,
        partition: Partition,
        name: String,
        pace: ReclaimPolicy,
    ) -> Result<Self> {
        let stream = ClaimStream::open(redis, partition, name).await?;
        let meters = Meters::of(partition);
        Ok(Self { database: database.clone(), redis: redis.clone(), stream, pace, meters })
    }

    /// Confirms claims until told to stop, and then what is in hand. Reads the next entries while a batch is
    /// being confirmed.
    pub async fn run(self, stopping: CancellationToken) {
        let (hand_on, mut in_hand) = mpsc::channel(1);
        let reading = async {
            let mut looked = None;
            while !stopping.is_cancelled() {
                match self.next(&mut looked).await {
                    Ok(deliveries) if deliveries.is_empty() => {}
                    Ok(deliveries) => {
                        if hand_on.send(deliveries).await.is_err() {
                            break;
                        }
                    }
                    Err(error) => {
                        tracing::warn!(
                            partition = self.stream.partition.0,
                            cause = error.chain(),
                            "claims cannot be read now"
                        );
                        tokio::time::sleep(LONGEST_PAUSE).await;
                    }
                }
            }
            drop(hand_on);
        };
        let confirming = async {
            while let Some(deliveries) = in_hand.recv().await {
                self.work(deliveries, &stopping).await;
            }
        };
        let done = CancellationToken::new();
        let working = async {
            tokio::join!(reading, confirming);
            done.cancel();
        };
        tokio::join!(working, self.gauge(&done));
        self.stream.close().await;
    }

    /// Shows the lengths of the streams until `done`, also while the servers of a batch are away.
    async fn gauge(&self, done: &CancellationToken) {
        while !done.is_cancelled() {
            #[expect(clippy::cast_precision_loss, reason = "a gauge may be off by one above 2^53")]
            if let Ok((waiting, dead)) = self.stream.lengths().await {
                self.meters.backlog.set(waiting as f64);
                self.meters.dead_letters.set(dead as f64);
            }
            tokio::select! {
                () = tokio::time::sleep(GAUGE_EVERY) => {}
                () = done.cancelled() => {}
            }
        }
    }

    /// The next entries: now and then those of others who have gone silent, else new ones.
    async fn next(&self, looked: &mut Option<Instant>) -> Result<Vec<Delivery<ClaimEntry>>> {
        if looked.is_none_or(|looked| looked.elapsed() >= self.pace.poll_interval) {
            let taken_over = self.stream.reclaim(self.pace.min_idle, MAX_ENTRIES).await?;
            if !taken_over.is_empty() {
                tracing::info!(partition = self.stream.partition.0, entries = taken_over.len(), "took entries over");
                return Ok(taken_over);
            }
            *looked = Some(Instant::now());
        }
        self.stream.read(MAX_ENTRIES).await
    }

    /// Reads what is there now and confirms it; how many entries there were. What [`Consumer::run`] does, once.
    pub async fn run_once(&self) -> Result<usize> {
        let deliveries = self.next(&mut None).await?;
        let count = deliveries.len();
        self.work(deliveries, &CancellationToken::new()).await;
        Ok(count)
    }

    /// Carries entries through to their end; what cannot be ended now stays on the stream and comes again.
    async fn work(&self, deliveries: Vec<Delivery<ClaimEntry>>, stopping: &CancellationToken) {
        let mut batches: Vec<Vec<Delivery<ClaimEntry>>> = Vec::new();
        let mut claims = MAX_BATCH;
        for delivery in deliveries {
            let size = match &delivery.entry {
                Ok(entry) => entry.claims.len(),
                Err(malformed) => {
                    self.fail(&delivery, &malformed.to_string()).await;
                    continue;
                }
            };
            if claims + size > MAX_BATCH {
                batches.push(Vec::new());
                claims = 0;
            }
            claims += size;
            if let Some(batch) = batches.last_mut() {
                batch.push(delivery);
            }
        }
        // While one is being taken off the stream, the next is in its transaction already.
        let batches = futures::stream::iter(batches);
        batches.for_each_concurrent(BATCHES_IN_FLIGHT, |batch| self.work_batch(batch, stopping)).await;
    }

    /// Confirms a batch, for as long as its servers are away again and again; then each entry by itself, if the
    /// fault is in one of them.
    async fn work_batch(&self, batch: Vec<Delivery<ClaimEntry>>, stopping: &CancellationToken) {
        match self.persist(&batch, stopping).await {
            Ok(()) => {}
            Err(error) if error.is_transient() => {
                tracing::warn!(entries = batch.len(), cause = error.chain(), "entries are left for later");
                self.stream.release(batch.iter().map(|delivery| delivery.id.as_str()));
            }
            Err(error) if batch.len() == 1 => self.fail(&batch[0], &error.chain()).await,
            Err(error) => {
                tracing::warn!(
                    entries = batch.len(),
                    cause = error.chain(),
                    "a batch failed; its entries are tried one by one"
                );
                for delivery in batch {
                    Box::pin(self.work_batch(vec![delivery], stopping)).await;
                }
            }
        }
    }

    async fn persist(&self, batch: &[Delivery<ClaimEntry>], stopping: &CancellationToken) -> Result<()> {
        let mut pause = SHORTEST_PAUSE;
        loop {
            match self.settle(batch).await {
                Err(error @ Error::DependencyUnavailable { .. }) if !stopping.is_cancelled() => {
                    tracing::warn!(cause = error.chain(), "a batch waits for its servers");
                    tokio::select! {
                        () = tokio::time::sleep(pause) => {}
                        () = stopping.cancelled() => {}
                    }
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
                settled => return settled,
            }
        }
    }

    /// The way of a batch, in the order that makes each step safe to repeat: decided and durable, a word to whoever
    /// waits, seats back, off the stream.
    async fn settle(&self, batch: &[Delivery<ClaimEntry>]) -> Result<()> {
        let entries: Vec<&ClaimEntry> = batch.iter().filter_map(|delivery| delivery.entry.as_ref().ok()).collect();
        let claims: Vec<Claim> = entries.iter().flat_map(|entry| entry.claims.iter().cloned()).collect();
        let plan = confirm(&self.database, &claims, clock::now()).await?;
        let durable_at = clock::now();
        answer_waiting(&self.redis, &entries, &plan.outcomes).await;
        return_seats(&self.database, &self.redis, self.stream.partition, &claims, &plan.outcomes).await?;
        let ids: Vec<String> = batch.iter().map(|delivery| delivery.id.clone()).collect();
        self.stream.acknowledge(&ids).await?;
        self.measure(&claims, &plan.outcomes, durable_at);
        Ok(())
    }

    fn measure(&self, claims: &[Claim], outcomes: &[ClaimOutcome], durable_at: Timestamp) {
        let mut issued = 0;
        for (claim, outcome) in claims.iter().zip(outcomes) {
            let lag = (durable_at - claim.record.accepted_at).to_std().unwrap_or_default();
            self.meters.lag.record(lag);
            issued += u64::from(matches!(outcome, ClaimOutcome::Issued { .. }));
            trace(claim, *outcome);
        }
        #[expect(clippy::cast_precision_loss, reason = "a batch is small")]
        self.meters.batch_size.record(claims.len() as f64);
        self.meters.issued.increment(issued);
        self.meters.rejected.increment(claims.len() as u64 - issued);
    }

    /// An entry failed by itself. It stays pending and comes again; after [`MAX_ATTEMPTS`] it is buried.
    async fn fail(&self, delivery: &Delivery<ClaimEntry>, reason: &str) {
        let Delivery { id, attempts, .. } = delivery;
        if *attempts < MAX_ATTEMPTS {
            tracing::warn!(entry = id, attempts, reason, "an entry failed and is tried again");
            self.stream.release([id.as_str()]);
            return;
        }
        match self.stream.bury(delivery, reason).await {
            Ok(_) => {
                self.meters.dead.increment(1);
                tracing::error!(
                    entry = id,
                    attempts,
                    reason,
                    "an entry failed again and again; it is a dead letter now"
                );
            }
            Err(error) => tracing::warn!(entry = id, cause = error.chain(), "a dead letter could not be moved now"),
        }
    }
}

/// The end of a request's way, under its id.
fn trace(claim: &Claim, outcome: ClaimOutcome) {
    if tracing::enabled!(tracing::Level::DEBUG) {
        let made = claim.record.claim_id.to_string();
        let request_id = if claim.request.is_empty() { &made } else { &claim.request };
        let span = tracing::debug_span!("confirm", request_id, coupon = %claim.coupon, user = %claim.user);
        span.in_scope(|| tracing::debug!(?outcome, "claim has its outcome"));
    }
}
