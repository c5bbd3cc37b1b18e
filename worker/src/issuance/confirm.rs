use std::{collections::BTreeSet, time::Duration};

use dibs_common::{
    clock::Timestamp,
    db::{self, Database, issuances::PlannedClaims},
    domain::claim::{self, Claim, ExistingClaims, IssuancePlan},
    error::{Error, Result},
    identifiers::CouponId,
};

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

/// Those of the campaigns that another session has locked.
pub(super) async fn find_locked(database: &Database, coupons: &BTreeSet<CouponId>) -> Result<BTreeSet<CouponId>> {
    db::retrying_batch("probe_claims", || {
        db::with_timeout(async {
            let mut transaction = database.begin_batch().await?;
            let locked = db::campaigns::find_locked(&mut transaction, coupons).await?;
            transaction.rollback().await?;
            Ok(locked)
        })
    })
    .await
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
    db::retrying_batch("confirm_claims", || async {
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
    let mut transaction = database.begin_batch().await?;
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
