use std::{collections::BTreeMap, time::Duration};

use dibs_common::{
    clock::{self, Timestamp},
    db::{self, Database, issuances::PlannedClaims},
    domain::claim::{self, Claim, ClaimOutcome, ExistingClaims, IssuancePlan},
    error::{Error, Result},
    identifiers::{ClaimId, CouponId, Partition, UserId},
    redis::{Redis, scripts},
};

use crate::campaigns::KEPT_AFTER_END;

/// A transaction that takes longer has lost its server.
const LONGEST: Duration = Duration::from_secs(30);

/// Decides a batch in one transaction, under the locks of its campaigns, and answers the outcomes, in the order of
/// the claims.
pub async fn confirm(database: &Database, claims: &[Claim], now: Timestamp) -> Result<IssuancePlan> {
    if let Some(plan) = transact(database, claims, now, DuplicateCheck::Optimistic).await? {
        return Ok(plan);
    }
    let looked = transact(database, claims, now, DuplicateCheck::Explicit).await?;
    looked.ok_or_else(|| Error::internal("a batch was not decided though all that is there was known"))
}

/// Whether a transaction reads what the database holds of a batch. Nearly always nothing is there, and looking
/// would take a third of the time.
#[derive(Clone, Copy, PartialEq, Eq)]
enum DuplicateCheck {
    Optimistic,
    Explicit,
}

async fn transact(
    database: &Database,
    claims: &[Claim],
    now: Timestamp,
    look: DuplicateCheck,
) -> Result<Option<IssuancePlan>> {
    db::retrying("confirm_claims", || async {
        let attempt = tokio::time::timeout(LONGEST, attempt(database, claims, now, look)).await;
        attempt.unwrap_or_else(|elapsed| Err(sqlx::Error::Io(elapsed.into())))
    })
    .await
}

/// None when it cannot be decided without looking.
async fn attempt(
    database: &Database,
    claims: &[Claim],
    now: Timestamp,
    look: DuplicateCheck,
) -> Result<Option<IssuancePlan>, sqlx::Error> {
    let mut coupons: Vec<CouponId> = claims.iter().map(|claim| claim.coupon).collect();
    coupons.sort_unstable();
    coupons.dedup();
    let mut transaction = database.begin().await?;
    let campaigns = db::campaigns::lock(&mut transaction, &coupons).await?;
    let existing = match look {
        DuplicateCheck::Explicit => db::issuances::find_existing(&mut transaction, claims).await?,
        DuplicateCheck::Optimistic if claim::may_skip_existing(&campaigns, claims) => ExistingClaims::default(),
        DuplicateCheck::Optimistic => return Ok(None),
    };
    let plan = claim::confirm(&campaigns, &existing, claims, now);
    if look == DuplicateCheck::Optimistic && !plan.rejections.is_empty() {
        // Only rows that go in prove that nothing was there: a refusal needs to know.
        return Ok(None);
    }
    let batch = PlannedClaims { campaigns: &campaigns, claims, plan: &plan };
    match db::issuances::insert_batch(&mut transaction, batch, now, database.statement_bytes()).await {
        Ok(()) => transaction.commit().await.map(|()| Some(plan)),
        Err(error) if look == DuplicateCheck::Optimistic && db::is_duplicate(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Gives back the seats of the claims that were refused, in this transaction or an earlier one.
pub async fn return_seats(
    database: &Database,
    redis: &Redis,
    partition: Partition,
    claims: &[Claim],
    outcomes: &[ClaimOutcome],
) -> Result<()> {
    let mut refused: BTreeMap<CouponId, Vec<(UserId, ClaimId)>> = BTreeMap::new();
    for (claim, outcome) in claims.iter().zip(outcomes) {
        if matches!(outcome, ClaimOutcome::Rejected(_)) {
            refused.entry(claim.coupon).or_default().push((claim.user, claim.record.claim_id));
        }
    }
    for (coupon, claims) in refused {
        match scripts::return_seats(redis, partition, coupon, &claims).await {
            Ok(returned) => {
                let refused = claims.len();
                tracing::warn!(%coupon, refused, returned, "accepted claims were refused; their seats went back");
            }
            // A rebuild may be counting the seats right now, unless nobody makes the campaign again.
            Err(error @ Error::CampaignUnavailable(_)) if is_kept(database, coupon).await? => return Err(error),
            Err(Error::CampaignUnavailable(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

async fn is_kept(database: &Database, coupon: CouponId) -> Result<bool> {
    let campaign = db::within(db::campaigns::find(database.pool(), coupon)).await?;
    Ok(campaign.is_some_and(|campaign| clock::now() < campaign.terms.closes_at + KEPT_AFTER_END))
}
