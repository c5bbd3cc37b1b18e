//! Changes of a campaign: first in `MySQL`, then in Redis. A process that dies in between leaves the rest to the
//! worker's reconciliation.

use std::time::Duration;

use tokio::time::timeout;

use crate::{
    clock::Timestamp,
    db::{self, Database, campaigns::CreatedCampaign, retrying, with_timeout},
    domain::{
        admin_action::{ActionContext, NewAdminAction},
        campaign::{Campaign, CampaignState, CampaignTerms},
        campaign_change::{CampaignChange, differences},
    },
    error::{Dependency, Error, Result},
    identifiers::{CouponId, Partition},
    redis::{
        Redis,
        scripts::{CampaignCounts, CampaignLowered, campaign_lower, campaign_put, campaign_update},
    },
};

/// How long Redis may take while the row of a campaign is locked, and its claims wait to be confirmed.
const REDIS_TIMEOUT: Duration = Duration::from_secs(1);

/// Creates a campaign, in `MySQL` and then in Redis. A repeat of the operation returns the first one.
pub async fn create(
    database: &Database,
    redis: &Redis,
    terms: CampaignTerms,
    partition: Partition,
    context: &ActionContext,
) -> Result<Campaign> {
    let created = retrying("create_campaign", || with_timeout(insert(database, &terms, partition, context))).await?;
    let campaign = Campaign {
        id: created.id,
        terms,
        partition: created.partition,
        state: CampaignState::Active,
        revision: 1,
        issued: 0,
        revoked: 0,
        rejected: 0,
        epoch: created.epoch,
        enforced_since: None,
    };
    // An attempt before this one created it otherwise. Redis has its counts, which must not be reset; if it lost them,
    // the worker restores them from the rows.
    if created.is_new
        && let Err(error) = campaign_put(redis, &campaign, CampaignCounts::default()).await
    {
        tracing::warn!(coupon = %campaign.id, cause = error.chain(), "campaign not written to redis; the worker will write it");
    }
    Ok(campaign)
}

async fn insert(
    database: &Database,
    terms: &CampaignTerms,
    partition: Partition,
    context: &ActionContext,
) -> Result<CreatedCampaign, sqlx::Error> {
    let mut transaction = database.begin().await?;
    let created = db::campaigns::create(&mut transaction, terms, partition, context.operation, context.at).await?;
    if created.is_new {
        let action = NewAdminAction::created("campaign.create", &created.id, terms);
        db::admin_actions::insert(&mut transaction, context, &action).await?;
        transaction.commit().await?;
    }
    Ok(created)
}

/// A change of a campaign that is requested.
#[derive(Clone, Debug)]
pub struct ChangeRequest {
    pub coupon: CouponId,
    pub change: CampaignChange,
    /// The revisions that it may be applied to; none: whatever there is.
    pub expected: Option<Vec<u32>>,
    /// Nothing is changed; the result shows what would be.
    pub is_dry_run: bool,
}

/// A campaign before and after a change.
#[derive(Clone, Debug)]
pub struct Changed {
    pub before: Campaign,
    pub after: Campaign,
}

/// Changes a campaign. A lower quantity is decided by Redis, as only Redis counts claims at once; everything else by
/// the row.
///
/// When it returns, claims are decided by the new terms, unless Redis cannot be reached: then from the moment it can.
pub async fn change(
    database: &Database,
    redis: &Redis,
    request: &ChangeRequest,
    context: &ActionContext,
) -> Result<Changed> {
    // The outer result is the database's, the inner one that of the rules: a rejection is not retried.
    let changed =
        retrying("change_campaign", || with_timeout(Box::pin(change_locked(database, redis, request, context))))
            .await??;
    if changed.before.revision != changed.after.revision && !request.is_dry_run {
        // The change stands. Without Redis no claim is accepted, and the reconciliation writes the terms when it is
        // back.
        if let Err(error) = enforce(database, redis, request.coupon).await {
            tracing::warn!(coupon = %request.coupon, cause = error.chain(), "campaign terms not written to redis");
        }
    }
    Ok(changed)
}

async fn change_locked(
    database: &Database,
    redis: &Redis,
    request: &ChangeRequest,
    context: &ActionContext,
) -> Result<Result<Changed>, sqlx::Error> {
    let mut transaction = database.begin().await?;
    let Some(before) = db::campaigns::lock(&mut transaction, &[request.coupon]).await?.pop() else {
        // Dropping the transaction rolls it back, here and below.
        return Ok(Err(Error::CouponNotFound(request.coupon)));
    };
    // The answer to an attempt before this one was lost. Its revision is no longer the expected one, so it comes first.
    if db::admin_actions::is_done(&mut transaction, context.operation).await? {
        return Ok(Ok(Changed { after: before.clone(), before }));
    }
    if request.expected.as_ref().is_some_and(|expected| !expected.contains(&before.revision)) {
        return Ok(Err(Error::PreconditionFailed));
    }
    let after = match request.change.apply(&before, context.at) {
        Ok(after) => after,
        Err(reason) => return Ok(Err(reason.into())),
    };
    if after.revision == before.revision {
        return Ok(Ok(Changed { before, after }));
    }
    if after.terms.total_quantity < before.terms.total_quantity
        && let Err(error) = lower(redis, &before, after.terms.total_quantity, request.is_dry_run, context.at).await
    {
        return Ok(Err(error));
    }
    if request.is_dry_run {
        return Ok(Ok(Changed { before, after }));
    }
    let fields = differences(&before, &after);
    let action = NewAdminAction::changed(request.change.action(), &request.coupon, &fields);
    db::campaigns::update(&mut transaction, &after, context.at).await?;
    db::admin_actions::insert(&mut transaction, context, &action).await?;
    transaction.commit().await?;
    Ok(Ok(Changed { before, after }))
}

/// Redis first, before the commit: it then accepts no claim beyond the quantity that is about to be the total. A crash
/// leaves Redis with less than the row says, which the reconciliation restores.
async fn lower(redis: &Redis, campaign: &Campaign, total: u32, is_dry_run: bool, now: Timestamp) -> Result<()> {
    // Revoked coupons are claimed no longer.
    let below = |claimed: u32| {
        let claimed = claimed.saturating_sub(campaign.revoked);
        Error::QuantityBelowClaimed { requested: total, claimed }
    };
    // The other terms are not Redis's yet: they may widen the window.
    let lowered =
        Campaign { terms: CampaignTerms { total_quantity: total, ..campaign.terms.clone() }, ..campaign.clone() };
    let decided = if is_dry_run {
        let counts = crate::redis::campaign_state::counts(redis, campaign.partition, campaign.id).await?;
        counts.map_or(CampaignLowered::Unknown, |counts| {
            if counts.claimed > lowered.capacity() {
                CampaignLowered::BelowClaimed(counts.claimed)
            } else {
                CampaignLowered::Lowered
            }
        })
    } else {
        with_redis(campaign_lower(redis, &lowered)).await?
    };
    match decided {
        CampaignLowered::BelowClaimed(claimed) => Err(below(claimed)),
        // It left Redis after its end. The row counts all of its claims.
        CampaignLowered::Unknown if now < campaign.terms.closes_at => Err(Error::CampaignUnavailable(campaign.id)),
        CampaignLowered::Unknown if campaign.issued > lowered.capacity() => Err(below(campaign.issued)),
        CampaignLowered::Lowered | CampaignLowered::Unknown => Ok(()),
    }
}

/// Writes the terms of a campaign to Redis, and since when Redis enforces them to its row. Under the lock of the row: a
/// writer with older terms cannot come after it. Nothing is written for a campaign that Redis does not hold.
pub async fn enforce(database: &Database, redis: &Redis, coupon: CouponId) -> Result<()> {
    retrying("enforce_campaign", || with_timeout(Box::pin(enforce_locked(database, redis, coupon)))).await?
}

async fn enforce_locked(database: &Database, redis: &Redis, coupon: CouponId) -> Result<Result<()>, sqlx::Error> {
    let mut transaction = database.begin().await?;
    let Some(campaign) = db::campaigns::lock(&mut transaction, &[coupon]).await?.pop() else { return Ok(Ok(())) };
    let at = match with_redis(campaign_update(redis, &campaign)).await {
        Ok(Some(at)) => at,
        // A rebuild has just deleted it, and puts these terms itself.
        Ok(None) => return Ok(Ok(())),
        Err(error) => return Ok(Err(error)),
    };
    db::campaigns::set_enforced(&mut *transaction, &campaign, at).await?;
    transaction.commit().await?;
    Ok(Ok(()))
}

async fn with_redis<T>(call: impl Future<Output = Result<T>>) -> Result<T> {
    timeout(REDIS_TIMEOUT, call).await.unwrap_or_else(|elapsed| Err(Error::unavailable(Dependency::Redis, elapsed)))
}
