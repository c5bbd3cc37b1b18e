//! The hot path of a claim: from the handler, through the batcher of its campaign, to the claim script and back.
//!
//! Each campaign has a [`CampaignBatcher`]: requests that wait for the same campaign join into one call of the script.
//! It remembers that its campaign is exhausted, and then refuses without Redis; that memory may only refuse. A caller
//! that prefers the outcome waits for it in [`OutcomeWaiters`].

mod attempts;
mod campaign_batcher;
mod exhausted;
mod outcomes;
mod rate_limiter;

use std::{sync::Arc, time::Duration};

pub use attempts::ClaimAttempts;
pub use campaign_batcher::{AcceptedClaim, CampaignBatcher};
use dibs_common::{
    clock::{self, Timestamp},
    db::{self, Database},
    domain::{campaign::Campaign, claim::ClaimOutcome},
    error::{Error, Result},
    identifiers::{CouponId, UserId},
    redis::Redis,
    supervisor::Supervisor,
};
use moka::future::Cache;
pub use outcomes::AwaitedClaim;
pub use rate_limiter::{Admission, RateLimiter};
use tokio_util::sync::CancellationToken;

use crate::outcome_waiters::{OutcomeWaiter, OutcomeWaiters};

/// Batchers kept. That of the campaign claimed least goes first, and is opened again when it is needed.
const MAX_BATCHERS: u64 = 10_000;
/// Ids remembered as unknown, and for how long, so that guessed ids do not reach the database each time.
const MAX_UNKNOWN: u64 = 100_000;
const UNKNOWN_FOR: Duration = Duration::from_secs(1);
/// Campaigns that Redis does not hold, and how long it is remembered when they close: while Redis has lost many, claims
/// must not all reach the database.
const MAX_MISSING: u64 = 10_000;
const MISSING_FOR: Duration = Duration::from_secs(1);

/// All campaigns' claims in this process.
pub struct Claims {
    database: Database,
    redis: Redis,
    supervisor: Supervisor,
    closing: CancellationToken,
    batchers: Cache<CouponId, Arc<CampaignBatcher>>,
    unknown: Cache<CouponId, ()>,
    missing: Cache<CouponId, Timestamp>,
    waiters: Arc<OutcomeWaiters<ClaimOutcome>>,
}

impl Claims {
    /// Begins to listen for outcomes. At most `max_waiting` callers wait for one at once.
    pub async fn start(
        database: &Database,
        redis: &Redis,
        supervisor: &Supervisor,
        max_waiting: usize,
    ) -> Result<Self> {
        Ok(Self {
            database: database.clone(),
            redis: redis.clone(),
            supervisor: supervisor.clone(),
            closing: CancellationToken::new(),
            batchers: Cache::new(MAX_BATCHERS),
            unknown: Cache::builder().max_capacity(MAX_UNKNOWN).time_to_live(UNKNOWN_FOR).build(),
            missing: Cache::builder().max_capacity(MAX_MISSING).time_to_live(MISSING_FOR).build(),
            waiters: OutcomeWaiters::start(database, redis, supervisor, max_waiting).await?,
        })
    }

    /// The batcher of a campaign: from memory, else opened with the campaign's row.
    pub async fn batcher(&self, coupon: CouponId) -> Result<Arc<CampaignBatcher>> {
        if let Some(batcher) = self.batchers.get(&coupon).await {
            return Ok(batcher);
        }
        if self.unknown.contains_key(&coupon) {
            return Err(Error::CouponNotFound(coupon));
        }
        // Requests that miss the cache at the same time share one query.
        let opened = self.batchers.try_get_with(coupon, self.open(coupon)).await;
        opened.map_err(|error| error.shared())
    }

    async fn open(&self, coupon: CouponId) -> Result<Arc<CampaignBatcher>> {
        let Some(campaign) = db::within(db::campaigns::find(&self.database.pool(), coupon)).await? else {
            // For a second only, as another process may create the campaign.
            self.unknown.insert(coupon, ()).await;
            return Err(Error::CouponNotFound(coupon));
        };
        Ok(CampaignBatcher::open(&campaign, &self.redis, self.waiters.channel(), &self.supervisor, &self.closing))
    }

    /// Whether the claim window of a campaign that Redis does not hold is over, as the database says: it may have been
    /// changed since its batcher was opened. Redis loses an ended campaign after some days.
    pub async fn is_over(&self, coupon: CouponId) -> Result<bool> {
        let closes_at = self.missing.try_get_with(coupon, async {
            let campaign = db::within(db::campaigns::find(&self.database.pool(), coupon)).await?;
            campaign.map(|campaign| campaign.terms.closes_at).ok_or(Error::CouponNotFound(coupon))
        });
        Ok(clock::now() >= closes_at.await.map_err(|error| error.shared())?)
    }

    /// Records a refusal that came before the campaign was looked up. Only of one that is claimed here: a caller
    /// that invents ids must not push out what others want to know.
    pub fn record_refusal(&self, attempts: &ClaimAttempts, user: UserId, coupon: CouponId, refusal: &Error) {
        if self.batchers.contains_key(&coupon) {
            attempts.record(user, coupon, refusal);
        }
    }

    /// A campaign was created here: it is no longer unknown.
    pub async fn created(&self, campaign: &Campaign) {
        // Its creator often claims at once, and must not wait for the second to pass.
        self.unknown.invalidate(&campaign.id).await;
    }

    /// Registers a caller for the outcome of a claim; see [`OutcomeWaiters::register`].
    pub fn wait_for(&self, claim: AwaitedClaim) -> Option<OutcomeWaiter<ClaimOutcome>> {
        self.waiters.register(claim)
    }

    /// Closes all batchers. Claims that wait in them are decided first.
    pub fn close(&self) {
        self.closing.cancel();
    }
}
