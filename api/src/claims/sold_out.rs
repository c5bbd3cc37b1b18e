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
};

/// How often the memory is held against Redis.
const LOOK_EVERY: Duration = Duration::from_millis(400);
/// Holders kept in memory for one campaign, 8 bytes each; a larger campaign is always asked of Redis.
const MAX_HOLDERS: u32 = 4_000_000;

/// Remembers that a campaign is sold out, and who holds its coupons: these are sent to Redis, which tells them so.
/// Everyone else is refused here. A freed seat, a raised quantity or a change of hands is seen within
/// [`LOOK_EVERY`]; when Redis cannot be asked, nothing is remembered.
pub(super) struct SoldOut {
    coupon: CouponId,
    partition: Partition,
    redis: Redis,
    /// Sorted; none while there may be a seat.
    holders: RwLock<Option<Arc<[u64]>>>,
    watching: AtomicBool,
}

impl SoldOut {
    pub(super) fn new(campaign: &Campaign, redis: &Redis) -> Arc<Self> {
        Arc::new(Self {
            coupon: campaign.id,
            partition: campaign.partition,
            redis: redis.clone(),
            holders: RwLock::new(None),
            watching: AtomicBool::new(false),
        })
    }

    /// Whether the campaign is known to have no seat for this user, nor to have given one.
    pub(super) fn refuses(&self, user: UserId) -> bool {
        let holders = self.holders.read().unwrap_or_else(PoisonError::into_inner);
        holders.as_ref().is_some_and(|holders| holders.binary_search(&user.get()).is_err())
    }

    /// Whether anything is remembered now.
    pub(super) fn is_remembered(&self) -> bool {
        self.holders.read().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Redis has refused a claim for want of a seat: begin to watch, unless that is being done.
    pub(super) fn suspect(self: &Arc<Self>) {
        if !self.watching.swap(true, Ordering::AcqRel) {
            tokio::spawn(Arc::clone(self).watch());
        }
    }

    async fn watch(self: Arc<Self>) {
        let mut known: Option<u32> = None;
        // Alone with itself, the lane that would ask is gone.
        while Arc::strong_count(&self) > 1 {
            match self.look(known).await {
                Ok(Some((sequence, holders))) => {
                    known = Some(sequence);
                    if let Some(holders) = holders {
                        self.remember(Some(holders));
                    }
                }
                Ok(None) => break,
                Err(error) => {
                    tracing::debug!(coupon = %self.coupon, %error, "what is sold out cannot be known now");
                    break;
                }
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        self.remember(None);
        self.watching.store(false, Ordering::Release);
    }

    fn remember(&self, holders: Option<Arc<[u64]>>) {
        *self.holders.write().unwrap_or_else(PoisonError::into_inner) = holders;
    }

    /// None when there may be a seat; else the sequence reached, and the holders unless `known` is that sequence:
    /// coupons change hands only with a new sequence.
    async fn look(&self, known: Option<u32>) -> Result<Option<(u32, Option<Arc<[u64]>>)>> {
        let Some(counts) = campaign_state::counts(&self.redis, self.partition, self.coupon).await? else {
            return Ok(None);
        };
        if !counts.sold_out(clock::now()) || counts.claimed > MAX_HOLDERS {
            return Ok(None);
        }
        if known == Some(counts.sequence) {
            return Ok(Some((counts.sequence, None)));
        }
        let holders = campaign_state::holders(&self.redis, self.partition, self.coupon).await?;
        Ok(Some((counts.sequence, Some(holders.into()))))
    }
}
