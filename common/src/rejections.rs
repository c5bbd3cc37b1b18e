//! Claims that were accepted and are rejected after that: their rows, and their quantity in Redis.

use std::collections::BTreeMap;

use crate::{
    clock::{self, Timestamp},
    db::{self, Database, issuances::PlannedClaims},
    domain::claim::{self, Claim, ClaimOutcome},
    error::{Error, Result},
    identifiers::{ClaimId, CouponId, Partition, UserId},
    redis::{Redis, campaign_state::RECONCILED_AFTER_END, scripts},
};

/// Rejects claims that cannot be processed, but for those that have an outcome. Returns the outcomes, in the order of
/// the claims. The quantity of the rejected ones still has to go back: see [`return_slots`].
pub async fn reject_failed(database: &Database, claims: &[Claim], now: Timestamp) -> Result<Vec<ClaimOutcome>> {
    let mut coupons: Vec<CouponId> = claims.iter().map(|claim| claim.coupon).collect();
    // Locks are taken in the order of ids, as batches of the worker take theirs.
    coupons.sort_unstable();
    coupons.dedup();
    let rejected = db::retrying("reject_claims", || {
        db::with_timeout(async {
            let mut transaction = database.begin().await?;
            // The lock of the campaigns excludes the worker that may be confirming the same claims.
            let campaigns = db::campaigns::lock(&mut transaction, &coupons).await?;
            // Read under that lock: a claim that the worker has just confirmed keeps its coupon.
            let existing = db::issuances::find_existing(&mut transaction, claims).await?;
            let plan = claim::reject_failed(&existing, claims);
            let batch = PlannedClaims { campaigns: &campaigns, claims, plan: &plan };
            db::issuances::insert_batch(&mut transaction, batch, now, database.statement_bytes()).await?;
            transaction.commit().await?;
            Ok(plan.outcomes)
        })
    });
    rejected.await
}

/// Gives the quantity of rejected claims back to Redis, once for each claim however often this is called. Call it after
/// the rejections are durable: a quantity that went back before could be issued twice.
pub async fn return_slots(
    database: &Database,
    redis: &Redis,
    partition: Partition,
    claims: &[Claim],
    outcomes: &[ClaimOutcome],
) -> Result<()> {
    let mut rejected: BTreeMap<CouponId, Vec<(UserId, ClaimId)>> = BTreeMap::new();
    for (claim, outcome) in claims.iter().zip(outcomes) {
        if matches!(outcome, ClaimOutcome::Rejected(_)) {
            rejected.entry(claim.coupon).or_default().push((claim.user, claim.record.claim_id));
        }
    }
    for (coupon, claims) in rejected {
        match scripts::return_slots(redis, partition, coupon, &claims).await {
            Ok(returned) => {
                let rejected = claims.len();
                tracing::warn!(%coupon, rejected, returned, "accepted claims rejected; their quantity is returned");
            }
            // A rebuild may be counting these claims right now. A campaign that ended long ago is not rebuilt.
            Err(error @ Error::CampaignUnavailable(_)) if is_kept(database, coupon).await? => return Err(error),
            Err(Error::CampaignUnavailable(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

async fn is_kept(database: &Database, coupon: CouponId) -> Result<bool> {
    let campaign = db::within(db::campaigns::find(&database.pool(), coupon)).await?;
    Ok(campaign.is_some_and(|campaign| clock::now() < campaign.terms.closes_at + RECONCILED_AFTER_END))
}
