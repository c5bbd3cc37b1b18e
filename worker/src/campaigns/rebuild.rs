use std::{
    collections::{BTreeMap, HashSet},
    time::Duration,
};

use dibs_common::{
    audit,
    db::{
        self, Database, Lease,
        audits::{RowCounts, WrongCounts},
        issued_claims::IssuedClaim,
    },
    domain::{
        campaign::Campaign,
        claim::{Claim, ClaimRecord},
    },
    error::{Error, Result},
    identifiers::{ClaimId, CouponId, UserId, new_uuid},
    redis::{
        Redis, campaign_state,
        scripts::{CampaignCounts, campaign_put},
    },
};

const PAGE_SIZE: u32 = 5_000;
/// A page of rows that are not in memory takes the disk a while.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// Rebuilds a campaign in Redis from its issued claims in MySQL and its accepted claims on the stream. Redis does not
/// know the campaign meanwhile, so no claim can slip in between; it appears whole, at once. Returns its counts; none
/// when another process rebuilds it.
pub async fn rebuild(database: &Database, redis: &Redis, campaign: &Campaign) -> Result<Option<CampaignCounts>> {
    // Boxed: it is large, and its callers are part of other large futures.
    Box::pin(under_lease(database, campaign, async |lease| {
        campaign_state::delete(redis, campaign.partition, campaign.id).await?;
        let campaign = recounted(database, campaign.id).await?;
        gather_and_put(lease, database, redis, &campaign).await
    }))
    .await
}

/// The campaign, with counts that are those of its rows. Wrong ones would have it rebuilt again and again: Redis is
/// compared with them.
async fn recounted(database: &Database, coupon: CouponId) -> Result<Campaign> {
    if let Some(wrong) = db::audits::recount(database, coupon).await? {
        let WrongCounts { counts, revoked_quantity, revocations } = wrong;
        let RowCounts { issued_quantity, issuances, rejected_quantity, rejections } = counts;
        tracing::warn!(
            %coupon, issued_quantity, issuances, revoked_quantity, revocations, rejected_quantity, rejections,
            "campaign counts corrected"
        );
    }
    db::found(db::campaigns::find(&database.pool(), coupon), Error::CouponNotFound(coupon)).await
}

/// The same for a campaign that Redis does not know. It is not deleted first: another process may just have rebuilt
/// it, and then that stays.
pub(super) async fn rebuild_missing(
    database: &Database,
    redis: &Redis,
    campaign: &Campaign,
) -> Result<Option<CampaignCounts>> {
    Box::pin(under_lease(database, campaign, async |lease| gather_and_put(lease, database, redis, campaign).await))
        .await
}

async fn under_lease(
    database: &Database,
    campaign: &Campaign,
    steps: impl AsyncFnOnce(&mut Lease) -> Result<CampaignCounts>,
) -> Result<Option<CampaignCounts>> {
    let Some(mut lease) = database.try_lease(&rebuild_lease(campaign.id)).await? else { return Ok(None) };
    let rebuilt = steps(&mut lease).await;
    lease.release().await.and(rebuilt).map(Some)
}

/// The stream is read before MySQL, so that a claim that is confirmed meanwhile is found at least once.
async fn gather_and_put(
    lease: &mut Lease,
    database: &Database,
    redis: &Redis,
    campaign: &Campaign,
) -> Result<CampaignCounts> {
    let unanswered = list_unanswered(database, redis, campaign).await?;
    let unanswered = without_rejected(database, unanswered).await?;
    let mut waiting: BTreeMap<UserId, Vec<ClaimRecord>> = BTreeMap::new();
    for claim in unanswered {
        waiting.entry(claim.user).or_default().push(claim.record);
    }
    // A sequence is used once, also that of a rejected claim.
    let sequence = db::within(db::issuances::last_rejected_sequence(&database.pool(), campaign.id)).await?;
    let sequence = sequence.max(campaign.issued + campaign.rejected);
    let mut counts = CampaignCounts { rebuild: new_uuid(), sequence, ..CampaignCounts::default() };
    let mut after = None;
    loop {
        let pool = &database.pool();
        let page = db::issued_claims::list(pool, campaign.id, after, PAGE_SIZE);
        let page = db::within_limit(READ_TIMEOUT, page).await?;
        let Some(last) = page.last() else { break };
        after = Some(last.position());
        // Redis has one value for all claims of a user. It is staged once, where the first of them comes.
        let limit = usize::from(campaign.terms.per_user_limit);
        let first: Vec<IssuedClaim> = page.into_iter().filter(|claim| claim.ordinal == 1).collect();
        // As many coupons at once as a page has, however many a user may hold.
        for first in first.chunks((PAGE_SIZE as usize / limit).max(1)) {
            let mut records: BTreeMap<UserId, Vec<ClaimRecord>> = BTreeMap::new();
            let issued = if limit == 1 { first.to_vec() } else { all_of_users(database, campaign, first).await? };
            for IssuedClaim { user, record, .. } in issued {
                records.entry(user).or_default().push(record);
            }
            for (user, records) in &mut records {
                records.extend(waiting.remove(user).unwrap_or_default());
            }
            add(redis, campaign, &mut counts, records).await?;
        }
    }
    add(redis, campaign, &mut counts, waiting).await?;
    // A holder that was overtaken would put what it read before the other rebuild.
    lease.confirm().await?;
    let put = campaign_put(redis, campaign, counts).await?;
    // Only now does Redis decide claims by these terms.
    db::within(db::campaigns::set_enforced(lease.begin().await?, campaign, put.at)).await?;
    lease.commit().await?;
    tracing::info!(
        coupon = %campaign.id, claimed = counts.claimed, revoked = campaign.revoked, ?put,
        "campaign rebuilt"
    );
    Ok(counts)
}

/// Held by what rebuilds a campaign, and by what moves claims of it back to their stream.
pub(crate) fn rebuild_lease(coupon: CouponId) -> String {
    format!("rebuild {coupon}")
}

/// Accepted claims that may have no outcome yet.
pub(super) async fn list_unanswered(database: &Database, redis: &Redis, campaign: &Campaign) -> Result<Vec<Claim>> {
    let mut claims = Vec::new();
    audit::visit_unanswered(database, redis, campaign, |claim| claims.push(claim)).await?;
    Ok(claims)
}

/// All coupons of the users who hold these.
async fn all_of_users(database: &Database, campaign: &Campaign, held: &[IssuedClaim]) -> Result<Vec<IssuedClaim>> {
    let users: Vec<UserId> = held.iter().map(|claim| claim.user).collect();
    let pool = &database.pool();
    db::within_limit(READ_TIMEOUT, db::issued_claims::list_of_users(pool, campaign.id, &users)).await
}

async fn without_rejected(database: &Database, claims: Vec<Claim>) -> Result<Vec<Claim>> {
    // A rejected claim holds no slot. Its entry is on the stream until the slot is returned.
    let mut kept = Vec::with_capacity(claims.len());
    for page in claims.chunks(PAGE_SIZE as usize) {
        let rejected = db::within(async {
            let mut connection = database.pool().acquire().await?;
            db::issuances::find_rejected(&mut connection, page).await
        })
        .await?;
        kept.extend(page.iter().filter(|claim| !rejected.contains_key(&claim.record.claim_id)).cloned());
    }
    Ok(kept)
}

/// Stages users' records, each claim once, and counts them.
async fn add(
    redis: &Redis,
    campaign: &Campaign,
    counts: &mut CampaignCounts,
    records: BTreeMap<UserId, Vec<ClaimRecord>>,
) -> Result<()> {
    let mut staged = Vec::with_capacity(records.len());
    for (user, mut records) in records {
        let mut seen: HashSet<ClaimId> = HashSet::new();
        // One that was confirmed meanwhile was found on the stream and in MySQL.
        records.retain(|record| seen.insert(record.claim_id));
        records.sort_by_key(|record| record.sequence);
        counts.claimed += u32::try_from(records.len()).unwrap_or(u32::MAX);
        counts.sequence = records.iter().map(|record| record.sequence).chain([counts.sequence]).max().unwrap_or(0);
        staged.push((user, records));
    }
    for page in staged.chunks(PAGE_SIZE as usize) {
        campaign_state::write_staged(redis, campaign.partition, campaign.id, counts.rebuild, page).await?;
    }
    Ok(())
}
