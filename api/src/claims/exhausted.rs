use std::{
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use dibs_common::{
    clock,
    domain::campaign::Campaign,
    error::Result,
    identifiers::{CouponId, Partition, UserId},
    redis::{Redis, campaign_state},
    retry,
    supervisor::{Lifetime, Supervisor, Task},
};

/// How often the memory is compared with Redis.
const POLL_INTERVAL: Duration = Duration::from_millis(400);
/// Holders kept in memory for one campaign, 8 bytes each. Claims on a larger campaign always go to Redis.
const MAX_HOLDERS: u32 = 4_000_000;

/// Remembers that a campaign is exhausted, and who holds its coupons: the claims of these go to Redis, which answers
/// with the first claim. All other claims are refused here. A slot that comes free, a raised quantity or a change of
/// holders takes effect within [`POLL_INTERVAL`]. When Redis does not answer, nothing is remembered.
pub(super) struct Exhausted {
    coupon: CouponId,
    partition: Partition,
    redis: Redis,
    supervisor: Supervisor,
    /// Sorted; none while there may be a slot.
    holders: RwLock<Option<Arc<[u64]>>>,
    watching: AtomicBool,
}

/// What Redis says of an exhausted campaign.
struct Observed {
    /// Coupons change hands only with a new sequence.
    sequence: u32,
    /// None when the sequence is that observed before.
    holders: Option<Arc<[u64]>>,
}

impl Exhausted {
    pub(super) fn new(campaign: &Campaign, redis: &Redis, supervisor: &Supervisor) -> Arc<Self> {
        Arc::new(Self {
            coupon: campaign.id,
            partition: campaign.partition,
            redis: redis.clone(),
            supervisor: supervisor.clone(),
            holders: RwLock::new(None),
            watching: AtomicBool::new(false),
        })
    }

    /// Whether the campaign is known to have no slot for this user, nor to have issued one.
    pub(super) fn refuses(&self, user: UserId) -> bool {
        let holders = self.holders.read().unwrap_or_else(PoisonError::into_inner);
        // A sorted array and not a hash set: a million holders take 8 MB, and the search is 20 steps.
        holders.as_ref().is_some_and(|holders| holders.binary_search(&user.get()).is_err())
    }

    pub(super) fn is_remembered(&self) -> bool {
        self.holders.read().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Redis has refused a claim because no slot is left: begin to watch, if no task does.
    pub(super) fn suspect(self: &Arc<Self>) {
        // One watcher, however many refusals come at once.
        if !self.watching.swap(true, Ordering::AcqRel) {
            // Weak, so that a restart of the task does not revive the memory of a batcher that was dropped.
            let watched = Arc::downgrade(self);
            self.supervisor.spawn(Task::new("exhausted_campaign_watcher", Lifetime::UntilDone, move || {
                let watched = watched.clone();
                async move {
                    if let Some(exhausted) = watched.upgrade() {
                        exhausted.watch().await;
                    }
                    Ok(())
                }
            }));
        }
    }

    async fn watch(self: Arc<Self>) {
        let mut known: Option<u32> = None;
        let mut rounds = retry::every(POLL_INTERVAL, &self.supervisor.stopping);
        // Once the batcher is dropped, this task holds the only reference.
        while rounds.next().await && Arc::strong_count(&self) > 1 {
            match self.observe(known).await {
                Ok(Some(Observed { sequence, holders })) => {
                    known = Some(sequence);
                    if let Some(holders) = holders {
                        self.remember(Some(holders));
                    }
                }
                Ok(None) => break,
                Err(error) => {
                    tracing::debug!(coupon = %self.coupon, %error, "exhausted campaign not readable");
                    break;
                }
            }
        }
        // Forgotten before another task may begin to watch: that one must not be overwritten.
        self.remember(None);
        self.watching.store(false, Ordering::Release);
    }

    fn remember(&self, holders: Option<Arc<[u64]>>) {
        *self.holders.write().unwrap_or_else(PoisonError::into_inner) = holders;
    }

    /// None when there may be a slot.
    async fn observe(&self, known: Option<u32>) -> Result<Option<Observed>> {
        let Some(counts) = campaign_state::counts(&self.redis, self.partition, self.coupon).await? else {
            return Ok(None);
        };
        // Too many holders to remember: then each claim goes to Redis, which is slower and as correct.
        if !counts.sold_out(clock::now()) || counts.claimed > MAX_HOLDERS {
            return Ok(None);
        }
        let sequence = counts.sequence;
        // The holders of a large campaign are megabytes, so they are read only after a change.
        if known == Some(sequence) {
            return Ok(Some(Observed { sequence, holders: None }));
        }
        let holders = campaign_state::holders(&self.redis, self.partition, self.coupon).await?;
        Ok(Some(Observed { sequence, holders: Some(holders.into()) }))
    }
}
