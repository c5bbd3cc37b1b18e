use std::{sync::Arc, time::Duration};

use dibs_common::{
    clock::{self, Timestamp},
    domain::{campaign::Campaign, claim::ClaimRecord},
    error::{Dependency, Error, Result},
    identifiers::{CouponId, Partition, UserId},
    redis::{
        Redis, campaign_state,
        scripts::{self, ClaimRequest, Decision, Decisions},
    },
};
use metrics::{Counter, Histogram, counter, histogram};
use tokio::{
    sync::{Semaphore, mpsc, oneshot},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::sold_out::SoldOut;

/// Claims that one call of the script decides.
const MAX_BATCH: usize = 250;
/// Calls in flight for one campaign; while they are, the next batch gathers.
const MAX_CALLS: usize = 4;
/// Claims that wait for a call; more are answered `OVERLOADED`.
const MAX_WAITING: usize = 10_000;
/// How long after its arrival a claim may be tried, when Redis goes away. The claim ids make trying again harmless.
const TRY_FOR: Duration = Duration::from_millis(750);
const TRY_AGAIN_AFTER: Duration = Duration::from_millis(50);

/// The claims of one campaign in this process.
pub struct CampaignBatcher {
    coupon: CouponId,
    partition: Partition,
    queue: mpsc::Sender<WaitingClaim>,
    sold_out: Arc<SoldOut>,
    refused_locally: Counter,
}

/// An accepted claim.
#[derive(Clone, Copy, Debug)]
pub struct Accepted {
    /// What Redis keeps of it.
    pub record: ClaimRecord,
    /// Seats left right after it.
    pub remaining: u32,
}

struct WaitingClaim {
    request: ClaimRequest,
    /// Whether the caller waits for the outcome.
    awaited: bool,
    arrived: Instant,
    caller: oneshot::Sender<Result<Accepted>>,
}

impl CampaignBatcher {
    /// Opens the lane of a campaign; it ends when its last owner drops it, or `closing` is cancelled.
    pub(super) fn open(
        campaign: &Campaign,
        redis: &Redis,
        answers: &str,
        (tasks, closing): (&TaskTracker, &CancellationToken),
    ) -> Arc<Self> {
        let (queue, waiting) = mpsc::channel(MAX_WAITING);
        let sold_out = SoldOut::new(campaign, redis);
        let caller = Arc::new(Caller {
            coupon: campaign.id,
            closes_at: campaign.terms.closes_at,
            partition: campaign.partition,
            redis: redis.clone(),
            answers: answers.to_owned(),
            sold_out: Arc::clone(&sold_out),
            accepted: counter!("dibs_claims_total", "decision" => "accepted"),
            refused: counter!("dibs_claims_total", "decision" => "refused"),
            batch_size: histogram!("dibs_claim_batch_size"),
        });
        tasks.spawn(caller.run(waiting, tasks.clone(), closing.clone()));
        Arc::new(Self {
            coupon: campaign.id,
            partition: campaign.partition,
            queue,
            sold_out,
            refused_locally: counter!("dibs_claims_total", "decision" => "refused_locally"),
        })
    }

    /// Claims a coupon. Once Redis has accepted the claim it stands, whether or not the caller is still there.
    pub async fn claim(&self, request: ClaimRequest, awaited: bool) -> Result<Accepted> {
        if self.sold_out.refuses(request.user) {
            self.refused_locally.increment(1);
            return Err(Error::CouponExhausted);
        }
        let (caller, answer) = oneshot::channel();
        self.queue
            .try_send(WaitingClaim { request, awaited, arrived: Instant::now(), caller })
            .map_err(|_| Error::Overloaded)?;
        answer.await.map_err(Error::internal)?
    }

    /// Whether claims are refused from memory now.
    pub fn remembers_sold_out(&self) -> bool {
        self.sold_out.is_remembered()
    }

    /// Seats taken, as Redis counts them; none when it does not hold the campaign.
    pub async fn claimed(&self, redis: &Redis) -> Result<Option<u32>> {
        let counts = campaign_state::counts(redis, self.partition, self.coupon).await?;
        Ok(counts.map(|counts| counts.claimed))
    }

    /// The user's latest claim that Redis holds.
    pub async fn latest_claim(&self, redis: &Redis, user: UserId) -> Result<Option<ClaimRecord>> {
        campaign_state::latest_claim(redis, self.partition, self.coupon, user).await
    }
}

/// Takes waiting claims to Redis, many in one call.
struct Caller {
    coupon: CouponId,
    closes_at: Timestamp,
    partition: Partition,
    redis: Redis,
    answers: String,
    sold_out: Arc<SoldOut>,
    accepted: Counter,
    refused: Counter,
    batch_size: Histogram,
}

impl Caller {
    async fn run(
        self: Arc<Self>,
        mut waiting: mpsc::Receiver<WaitingClaim>,
        tasks: TaskTracker,
        closing: CancellationToken,
    ) {
        let calls = Arc::new(Semaphore::new(MAX_CALLS));
        loop {
            // The permit comes first: while all calls are in flight, the batch grows.
            let Ok(permit) = Arc::clone(&calls).acquire_owned().await else { return };
            let mut batch = Vec::with_capacity(MAX_BATCH);
            let received = tokio::select! {
                received = waiting.recv_many(&mut batch, MAX_BATCH) => received,
                () = closing.cancelled(), if !waiting.is_closed() => {
                    // No more may come in; what waits is decided.
                    waiting.close();
                    continue;
                }
            };
            if received == 0 {
                return;
            }
            let caller = Arc::clone(&self);
            tasks.spawn(async move {
                caller.decide(batch).await;
                drop(permit);
            });
        }
    }

    async fn decide(&self, batch: Vec<WaitingClaim>) {
        #[expect(clippy::cast_precision_loss, reason = "a batch is at most 250 claims")]
        self.batch_size.record(batch.len() as f64);
        let answers = if batch.iter().any(|waiting| waiting.awaited) { self.answers.as_str() } else { "" };
        // The first has waited longest. A call that it cannot wait for is not made at all.
        let deadline = batch.first().map_or_else(Instant::now, |first| first.arrived) + TRY_FOR;
        let (requests, callers): (Vec<_>, Vec<_>) =
            batch.into_iter().map(|waiting| (waiting.request, waiting.caller)).unzip();
        let answer = self.call(answers, &requests, deadline).await;
        if let Ok(Some(decided)) = &answer {
            self.note(decided);
        }
        let mut remaining = remaining_before(&answer);
        for (place, caller) in callers.into_iter().enumerate() {
            let answer = match &answer {
                Ok(Some(decided)) => verdict(decided, place, &mut remaining),
                Ok(None) if clock::now() >= self.closes_at => Err(Error::CampaignClosed),
                Ok(None) => Err(Error::CampaignUnavailable(self.coupon)),
                Err(error) => Err(again(error)),
            };
            // A caller who has gone away finds the claim at its status URL.
            let _gone = caller.send(answer);
        }
    }

    /// Calls the script, again when the connection broke: a claim that was accepted then is replayed.
    async fn call(&self, answers: &str, requests: &[ClaimRequest], deadline: Instant) -> Result<Option<Decisions>> {
        let mut failed: Option<Error> = None;
        loop {
            // A time-out polls what it limits once, and so would send a call that is too late.
            if Instant::now() >= deadline {
                return Err(failed.unwrap_or_else(|| Error::unavailable(Dependency::Redis, "no answer in time")));
            }
            let call = scripts::claim(&self.redis, self.partition, self.coupon, answers, requests);
            match tokio::time::timeout_at(deadline, call).await {
                Ok(Err(error @ Error::DependencyUnavailable { .. })) => failed = Some(error),
                Ok(answer) => return answer,
                Err(elapsed) => {
                    return Err(failed.unwrap_or_else(|| Error::unavailable(Dependency::Redis, elapsed)));
                }
            }
            tokio::time::sleep(TRY_AGAIN_AFTER).await;
        }
    }

    fn note(&self, decided: &Decisions) {
        // One that is replayed was accepted by a call whose answer was lost.
        let seated = |decision: &&Decision| matches!(decision, Decision::Accepted(_) | Decision::Replayed(_));
        let accepted = decided.decisions.iter().filter(seated).count();
        let refused = decided.decisions.len() - accepted;
        self.accepted.increment(accepted as u64);
        self.refused.increment(refused as u64);
        if decided.decisions.contains(&Decision::Exhausted) {
            self.sold_out.suspect();
        }
    }
}

/// Seats that were left before the call, so that each claim can be told what was left after it.
fn remaining_before(answer: &Result<Option<Decisions>>) -> u32 {
    let Ok(Some(decided)) = answer else { return 0 };
    let accepted = decided.decisions.iter().filter(|decision| matches!(decision, Decision::Accepted(_))).count();
    decided.remaining.saturating_add(u32::try_from(accepted).unwrap_or(u32::MAX))
}

fn verdict(decided: &Decisions, place: usize, remaining: &mut u32) -> Result<Accepted> {
    match decided.decisions[place] {
        Decision::Accepted(record) => {
            *remaining -= 1;
            Ok(Accepted { record, remaining: *remaining })
        }
        Decision::Replayed(record) => Ok(Accepted { record, remaining: *remaining }),
        Decision::AlreadyClaimed(first) => Err(Error::CouponAlreadyIssued(first)),
        Decision::Exhausted => Err(Error::CouponExhausted),
        Decision::NotOpen => Err(Error::CampaignNotOpen { opens_at: decided.opens_at, now: decided.now }),
        Decision::Closed => Err(Error::CampaignClosed),
        Decision::Paused => Err(Error::CampaignPaused),
    }
}

/// The error of a call or a look-up, for one more of those who waited for it.
pub(super) fn again(error: &Error) -> Error {
    match error {
        Error::DependencyUnavailable { dependency, cause } => Error::unavailable(*dependency, cause.to_string()),
        Error::CouponNotFound(coupon) => Error::CouponNotFound(*coupon),
        other => Error::internal(other.chain()),
    }
}
