use std::{sync::Arc, time::Duration};

use dibs_common::{
    domain::{campaign::Campaign, claim::ClaimRecord},
    error::{Dependency, Error, Result},
    identifiers::{CouponId, Partition, UserId},
    live::{self, CampaignCounters},
    redis::{
        Redis, campaign_state,
        scripts::{self, ClaimRequest, Decision, Decisions},
    },
    retry::{Backoff, RetryPolicy},
    supervisor::{Lifetime, Supervisor, Task},
};
use futures::FutureExt as _;
use metrics::{Counter, Histogram, counter, histogram};
use tokio::{
    sync::{Mutex, mpsc, oneshot},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::exhausted::Exhausted;

/// Claims that one call of the script decides. One call of a campaign is in flight at a time, and the next batch gathers
/// meanwhile: several smaller ones would cost Redis a third more for each claim. With 1 ms to Redis and back, a process
/// decides up to 250,000 claims a second of one campaign.
const MAX_BATCH: usize = 250;
/// Claims that wait for a call; more are answered `OVERLOADED`.
const MAX_QUEUED: usize = 10_000;
/// How long after its arrival a claim is tried while Redis is unreachable.
const CLAIM_TIMEOUT: Duration = Duration::from_millis(750);
const RETRIES: RetryPolicy = RetryPolicy::constant(Duration::from_millis(50));

pub struct CampaignBatcher {
    coupon: CouponId,
    partition: Partition,
    queue: mpsc::Sender<QueuedClaim>,
    exhausted: Arc<Exhausted>,
    refused_locally: Counter,
    live: Arc<CampaignCounters>,
}

#[derive(Clone, Copy, Debug)]
pub struct AcceptedClaim {
    pub record: ClaimRecord,
    /// The remaining quantity right after it.
    pub remaining: u32,
}

struct QueuedClaim {
    request: ClaimRequest,
    /// Whether the caller waits for the outcome.
    awaited: bool,
    arrived: Instant,
    caller: oneshot::Sender<Result<AcceptedClaim>>,
}

impl CampaignBatcher {
    /// Opens the batcher of a campaign. It ends when its last owner drops it, or `closing` is cancelled.
    pub(super) fn open(
        campaign: &Campaign,
        redis: &Redis,
        outcome_channel: &str,
        supervisor: &Supervisor,
        closing: &CancellationToken,
    ) -> Arc<Self> {
        let (queue, queued) = mpsc::channel(MAX_QUEUED);
        let exhausted = Exhausted::new(campaign, redis, supervisor);
        let live = live::campaign(campaign.id);
        let caller = Arc::new(ScriptCaller {
            coupon: campaign.id,
            partition: campaign.partition,
            redis: redis.clone(),
            outcome_channel: outcome_channel.to_owned(),
            exhausted: Arc::clone(&exhausted),
            accepted: counter!("dibs_claims_total", "decision" => "accepted"),
            refused: counter!("dibs_claims_total", "decision" => "refused"),
            batch_size: histogram!("dibs_claim_batch_size"),
            live: Arc::clone(&live),
        });
        // The queue outlives a run that panics, with the claims that wait in it.
        let (queued, closing) = (Arc::new(Mutex::new(queued)), closing.clone());
        supervisor.spawn(Task::new("campaign_batcher", Lifetime::UntilDone, move || {
            Arc::clone(&caller).run(Arc::clone(&queued), closing.clone()).map(Ok)
        }));
        Arc::new(Self {
            coupon: campaign.id,
            partition: campaign.partition,
            queue,
            exhausted,
            refused_locally: counter!("dibs_claims_total", "decision" => "refused_locally"),
            live,
        })
    }

    /// Claims a coupon. Once Redis has accepted the claim it stands, whether or not the caller is still there.
    pub async fn claim(&self, request: ClaimRequest, awaited: bool) -> Result<AcceptedClaim> {
        // Without Redis: after the last coupon, nearly all requests of a campaign end here.
        if self.exhausted.refuses(request.user) {
            self.refused_locally.increment(1);
            self.live.refuse(1);
            return Err(Error::CouponExhausted);
        }
        let (caller, decision) = oneshot::channel();
        self.queue
            .try_send(QueuedClaim { request, awaited, arrived: Instant::now(), caller })
            .map_err(|_| Error::Overloaded)?;
        decision.await.map_err(Error::internal)?
    }

    /// Whether claims are refused locally now.
    pub fn remembers_exhausted(&self) -> bool {
        self.exhausted.is_remembered()
    }

    /// The claimed quantity, as Redis counts it; none when Redis does not hold the campaign.
    pub async fn claimed(&self, redis: &Redis) -> Result<Option<u32>> {
        let counts = campaign_state::counts(redis, self.partition, self.coupon).await?;
        Ok(counts.map(|counts| counts.claimed))
    }

    /// The user's claims that Redis holds, the latest last.
    pub async fn claims_of_user(&self, redis: &Redis, user: UserId) -> Result<Vec<ClaimRecord>> {
        campaign_state::claims_of_user(redis, self.partition, self.coupon, user).await
    }
}

/// Sends queued claims to Redis, many in one call of the script.
struct ScriptCaller {
    coupon: CouponId,
    partition: Partition,
    redis: Redis,
    outcome_channel: String,
    exhausted: Arc<Exhausted>,
    accepted: Counter,
    refused: Counter,
    batch_size: Histogram,
    live: Arc<CampaignCounters>,
}

impl ScriptCaller {
    async fn run(self: Arc<Self>, queued: Arc<Mutex<mpsc::Receiver<QueuedClaim>>>, closing: CancellationToken) {
        let mut queued = queued.lock().await;
        loop {
            let mut batch = Vec::with_capacity(MAX_BATCH);
            let received = tokio::select! {
                received = queued.recv_many(&mut batch, MAX_BATCH) => received,
                () = closing.cancelled(), if !queued.is_closed() => {
                    // No more may come in; what is queued is decided.
                    queued.close();
                    continue;
                }
            };
            if received == 0 {
                return;
            }
            self.decide(batch).await;
        }
    }

    async fn decide(&self, batch: Vec<QueuedClaim>) {
        #[expect(clippy::cast_precision_loss, reason = "a batch is at most 250 claims")]
        self.batch_size.record(batch.len() as f64);
        // Without a channel the worker publishes nothing: most claims have no caller that waits.
        let channel = if batch.iter().any(|claim| claim.awaited) { self.outcome_channel.as_str() } else { "" };
        // The first has waited longest. A call for which it cannot wait is not sent at all.
        let deadline = batch.first().map_or_else(Instant::now, |first| first.arrived) + CLAIM_TIMEOUT;
        let (requests, callers): (Vec<_>, Vec<_>) =
            batch.into_iter().map(|claim| (claim.request, claim.caller)).unzip();
        let decided = self.call(channel, &requests, deadline).await;
        if let Ok(Some(decisions)) = &decided {
            self.note(decisions);
        }
        // The script returns the quantity after the whole call. Each caller gets the one right after its own claim.
        let mut remaining = remaining_before(&decided);
        for (place, caller) in callers.into_iter().enumerate() {
            let decision = match &decided {
                Ok(Some(decisions)) => result_of(decisions, place, &mut remaining),
                Ok(None) => Err(Error::CampaignUnavailable(self.coupon)),
                Err(error) => Err(error.shared()),
            };
            // A caller that went away finds the claim at its status URL.
            let _gone = caller.send(decision);
        }
    }

    /// Calls the script, again when the connection broke. The script replays a claim that it accepted in a call whose
    /// response was lost, so trying again is harmless.
    async fn call(&self, channel: &str, requests: &[ClaimRequest], deadline: Instant) -> Result<Option<Decisions>> {
        let mut failed: Option<Error> = None;
        let mut backoff = Backoff::new(RETRIES);
        loop {
            // `timeout_at` polls the call once even after the deadline, and so would send it.
            if Instant::now() >= deadline {
                return Err(failed.unwrap_or_else(|| Error::unavailable(Dependency::Redis, "no answer in time")));
            }
            let call = scripts::claim(&self.redis, self.partition, self.coupon, channel, requests);
            match tokio::time::timeout_at(deadline, call).await {
                Ok(Err(error @ Error::DependencyUnavailable { .. })) => failed = Some(error),
                Ok(decided) => return decided,
                Err(elapsed) => {
                    return Err(failed.unwrap_or_else(|| Error::unavailable(Dependency::Redis, elapsed)));
                }
            }
            // A connection that broke is opened again meanwhile. Without the pause the loop would only spin.
            backoff.pause().await;
        }
    }

    fn note(&self, decisions: &Decisions) {
        // One that is replayed was accepted by a call whose response was lost, and is not counted yet.
        let is_accepted = |decision: &&Decision| matches!(decision, Decision::Accepted(_) | Decision::Replayed(_));
        let accepted = decisions.decisions.iter().filter(is_accepted).count();
        let refused = decisions.decisions.len() - accepted;
        self.accepted.increment(accepted as u64);
        self.refused.increment(refused as u64);
        self.live.accept(accepted as u64);
        self.live.refuse(refused as u64);
        // Only Redis says so. A remaining quantity of 0 alone may be over a moment later, when a slot returns.
        if decisions.decisions.contains(&Decision::Exhausted) {
            self.exhausted.suspect();
        }
    }
}

/// The remaining quantity before the call, from which that after each claim follows.
fn remaining_before(decided: &Result<Option<Decisions>>) -> u32 {
    let Ok(Some(decisions)) = decided else { return 0 };
    let accepted = decisions.decisions.iter().filter(|decision| matches!(decision, Decision::Accepted(_))).count();
    decisions.remaining.saturating_add(u32::try_from(accepted).unwrap_or(u32::MAX))
}

fn result_of(decisions: &Decisions, place: usize, remaining: &mut u32) -> Result<AcceptedClaim> {
    match decisions.decisions[place] {
        Decision::Accepted(record) => {
            *remaining -= 1;
            Ok(AcceptedClaim { record, remaining: *remaining })
        }
        Decision::Replayed(record) => Ok(AcceptedClaim { record, remaining: *remaining }),
        Decision::AlreadyClaimed(first) => Err(Error::CouponAlreadyIssued(first)),
        Decision::Exhausted => Err(Error::CouponExhausted),
        Decision::NotOpen => Err(Error::CampaignNotOpen { opens_at: decisions.opens_at, now: decisions.now }),
        Decision::Closed => Err(Error::CampaignClosed),
        Decision::Paused => Err(Error::CampaignPaused),
    }
}
