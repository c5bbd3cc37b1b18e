//! The hot path of a claim: from the handler, through the lane of its campaign, to the claim script and back.
//!
//! Each campaign has a [`CampaignBatcher`]: requests that wait for the same campaign join into one call of the script.
//! A lane remembers that its campaign is sold out, and then answers without Redis; that memory may only refuse.
//! Whoever would like to know the outcome at once waits in [`OutcomeWaiters`] for the worker's word.

mod campaign_batcher;
mod sold_out;

use std::{sync::Arc, time::Duration};

pub use campaign_batcher::{Accepted, CampaignBatcher};
use dibs_common::{
    db::{self, Database},
    domain::{campaign::Campaign, claim::ClaimOutcome},
    error::{Error, Result},
    identifiers::{ClaimId, CouponId, new_uuid},
    redis::Redis,
};
use moka::future::Cache;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::outcome_waiters::{OutcomeWaiters, Waiting};

/// Lanes kept; that of the campaign asked for least goes first, and is made again when it is needed.
const MAX_LANES: u64 = 10_000;
/// Ids remembered as unknown, and for how long, so that guessed ids do not reach the database each time.
const MAX_UNKNOWN: u64 = 100_000;
const UNKNOWN_FOR: Duration = Duration::from_secs(1);

/// All campaigns' claims in this process.
pub struct Claims {
    database: Database,
    redis: Redis,
    tasks: TaskTracker,
    closing: CancellationToken,
    lanes: Cache<CouponId, Arc<CampaignBatcher>>,
    unknown: Cache<CouponId, ()>,
    answers: Arc<OutcomeWaiters<ClaimOutcome>>,
}

impl Claims {
    /// Begins to listen for outcomes.
    pub async fn start(database: &Database, redis: &Redis, tasks: &TaskTracker) -> Result<Self> {
        let channel = redis.keys.answers(new_uuid());
        Ok(Self {
            database: database.clone(),
            redis: redis.clone(),
            tasks: tasks.clone(),
            closing: CancellationToken::new(),
            lanes: Cache::new(MAX_LANES),
            unknown: Cache::builder().max_capacity(MAX_UNKNOWN).time_to_live(UNKNOWN_FOR).build(),
            answers: OutcomeWaiters::listen(redis, channel).await?,
        })
    }

    /// The lane of a campaign: from memory, or after a look into the database.
    pub async fn lane(&self, coupon: CouponId) -> Result<Arc<CampaignBatcher>> {
        if let Some(lane) = self.lanes.get(&coupon).await {
            return Ok(lane);
        }
        if self.unknown.contains_key(&coupon) {
            return Err(Error::CouponNotFound(coupon));
        }
        // Those who ask at the same time look once.
        self.lanes.try_get_with(coupon, self.open(coupon)).await.map_err(|error| campaign_batcher::again(&error))
    }

    async fn open(&self, coupon: CouponId) -> Result<Arc<CampaignBatcher>> {
        let Some(campaign) = db::within(db::campaigns::find(self.database.pool(), coupon)).await? else {
            self.unknown.insert(coupon, ()).await;
            return Err(Error::CouponNotFound(coupon));
        };
        Ok(CampaignBatcher::open(&campaign, &self.redis, self.answers.channel(), (&self.tasks, &self.closing)))
    }

    /// A campaign was made here: it is no longer unknown.
    pub async fn made(&self, campaign: &Campaign) {
        self.unknown.invalidate(&campaign.id).await;
    }

    /// Begins to wait for the outcome of a claim; say so before the claim is made, lest the outcome be first.
    pub fn wait_for(&self, claim: ClaimId) -> Waiting<ClaimOutcome> {
        self.answers.wait_for(claim)
    }

    /// Ends all lanes, once what waits in them is decided.
    pub fn close(&self) {
        self.closing.cancel();
    }
}
