use std::collections::BTreeSet;

use dibs_common::{
    clock::Timestamp,
    db::{self, Database, DuplicateCheck, issuances::PlannedClaims},
    domain::claim::{self, Claim, ExistingClaims, IssuancePlan},
    error::Result,
    identifiers::CouponId,
};

/// Decides a batch in one transaction, under the locks of its campaigns. Outcomes are in the order of the claims.
pub async fn confirm(database: &Database, claims: &[Claim], now: Timestamp) -> Result<IssuancePlan> {
    db::decide_batch("confirm_claims", |check| attempt(database, claims, now, check)).await
}

/// Those of the campaigns that another session has locked.
pub(super) async fn find_locked(database: &Database, coupons: &BTreeSet<CouponId>) -> Result<BTreeSet<CouponId>> {
    db::retrying_batch("probe_claims", || db::with_timeout(db::campaigns::find_locked(database, coupons))).await
}

/// None when it cannot be decided without reading existing outcomes.
async fn attempt(
    database: &Database,
    claims: &[Claim],
    now: Timestamp,
    check: DuplicateCheck,
) -> Result<Option<IssuancePlan>, sqlx::Error> {
    let mut coupons: Vec<CouponId> = claims.iter().map(|claim| claim.coupon).collect();
    coupons.sort_unstable();
    coupons.dedup();
    let mut transaction = database.begin_batch().await?;
    let campaigns = db::campaigns::lock(&mut transaction, &coupons).await?;
    let existing = match check {
        DuplicateCheck::Explicit => db::issuances::find_existing(&mut transaction, claims).await?,
        DuplicateCheck::Optimistic if claim::may_skip_existing(&campaigns, claims) => ExistingClaims::default(),
        DuplicateCheck::Optimistic => return Ok(None),
    };
    let plan = claim::confirm(&campaigns, &existing, claims, now);
    if check == DuplicateCheck::Optimistic && !plan.rejections.is_empty() {
        // Rows that go in prove that no outcome exists. A rejection writes none of the keys that could, so it reads
        // first.
        return Ok(None);
    }
    let batch = PlannedClaims { campaigns: &campaigns, claims, plan: &plan };
    match db::issuances::insert_batch(&mut transaction, batch, now, database.statement_bytes()).await {
        Ok(()) => transaction.commit().await.map(|()| Some(plan)),
        Err(error) if check == DuplicateCheck::Optimistic && db::is_duplicate(&error) => Ok(None),
        Err(error) => Err(error),
    }
}
