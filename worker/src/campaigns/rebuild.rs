use std::{
    collections::{BTreeMap, HashSet},
    time::Duration,
};

use dibs_common::{
    db::{self, Database, issuances::IssuedClaim},
    domain::{
        campaign::Campaign,
        claim::{Claim, ClaimRecord},
    },
    error::Result,
    identifiers::{ClaimId, UserId, new_uuid},
    redis::{
        Redis, campaign_state,
        scripts::{CampaignCounts, campaign_put},
        streams::ClaimStream,
    },
};

const PAGE: u32 = 5000;
/// A page of rows that are not in memory takes the disk a while.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long it may go on without saying so to the database that holds its lock.
const LONGEST: Duration = Duration::from_mins(15);

/// Makes a campaign in Redis again from what is issued in the database and what is accepted but not yet answered.
/// While that goes on Redis does not know the campaign, so no claim can slip in between; it appears whole, at once.
/// One process does so at a time: one that finds another at it leaves it to that.
pub async fn rebuild(database: &Database, redis: &Redis, campaign: &Campaign) -> Result<()> {
    let Some(mut lock) = database.try_lease(&format!("rebuild {}", campaign.id)).await? else { return Ok(()) };
    lock.hold_for(LONGEST).await?;
    let forgotten = campaign_state::delete(redis, campaign.partition, campaign.id).await;
    let rebuilt = match forgotten {
        Ok(()) => make_alone(database, redis, campaign).await,
        Err(error) => Err(error),
    };
    lock.release().await.and(rebuilt)
}

/// The same for a campaign that Redis does not know. It is not forgotten first: whoever has just made it may be putting
/// it there, and then it is left as it is.
pub(super) async fn make_missing(database: &Database, redis: &Redis, campaign: &Campaign) -> Result<()> {
    let Some(mut lock) = database.try_lease(&format!("rebuild {}", campaign.id)).await? else { return Ok(()) };
    lock.hold_for(LONGEST).await?;
    let made = make_alone(database, redis, campaign).await;
    lock.release().await.and(made)
}

/// The stream is read before the database, so that a claim which is confirmed meanwhile is found at least once.
async fn make_alone(database: &Database, redis: &Redis, campaign: &Campaign) -> Result<()> {
    let place = (campaign.partition, campaign.id);
    let unanswered = ClaimStream::unanswered(redis, campaign.partition, campaign.id).await?;
    let unanswered = without_rejected(database, unanswered).await?;
    let mut waiting: BTreeMap<UserId, Vec<ClaimRecord>> = BTreeMap::new();
    for claim in unanswered {
        waiting.entry(claim.user).or_default().push(claim.record);
    }
    // A sequence is given once, also that of a claim that was refused.
    let sequence = db::within(db::issuances::last_rejected_sequence(database.pool(), campaign.id)).await?;
    let mut counts = CampaignCounts { rebuild: new_uuid(), sequence, ..CampaignCounts::default() };
    let mut after = None;
    loop {
        let page = db::issuances::list_issued(database.pool(), campaign.id, after, PAGE);
        let page = db::within_limit(PATIENCE, page).await?;
        let Some(IssuedClaim { user: last_user, ordinal: last_ordinal, .. }) = page.last().copied() else { break };
        // A user's rows must not be cut apart: the last user's are read again with the next page, unless that is
        // all there is.
        let whole = page.len() < PAGE as usize || page.first().is_some_and(|claim| claim.user == last_user);
        let kept = page.iter().filter(|claim| whole || claim.user != last_user);
        let mut records: BTreeMap<UserId, Vec<ClaimRecord>> = BTreeMap::new();
        for IssuedClaim { user, record, .. } in kept {
            records.entry(*user).or_default().push(*record);
        }
        for (user, records) in &mut records {
            records.extend(waiting.remove(user).unwrap_or_default());
        }
        add(redis, place, &mut counts, records).await?;
        after = if whole { Some((last_user, last_ordinal)) } else { before(last_user) };
    }
    add(redis, place, &mut counts, waiting).await?;
    let put = campaign_put(redis, campaign, counts).await?;
    tracing::info!(coupon = %campaign.id, claimed = counts.claimed, ?put, "redis holds the campaign again");
    Ok(())
}

/// The place in the order of rows right before the first of `user`.
fn before(user: UserId) -> Option<(UserId, u16)> {
    UserId::try_from(user.get() - 1).ok().map(|previous| (previous, u16::MAX))
}

async fn without_rejected(database: &Database, claims: Vec<Claim>) -> Result<Vec<Claim>> {
    let mut kept = Vec::with_capacity(claims.len());
    for page in claims.chunks(PAGE as usize) {
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
    place: (dibs_common::identifiers::Partition, dibs_common::identifiers::CouponId),
    counts: &mut CampaignCounts,
    records: BTreeMap<UserId, Vec<ClaimRecord>>,
) -> Result<()> {
    let mut staged = Vec::with_capacity(records.len());
    for (user, mut records) in records {
        let mut seen: HashSet<ClaimId> = HashSet::new();
        records.retain(|record| seen.insert(record.claim_id));
        records.sort_by_key(|record| record.sequence);
        counts.claimed += u32::try_from(records.len()).unwrap_or(u32::MAX);
        counts.sequence = records.iter().map(|record| record.sequence).chain([counts.sequence]).max().unwrap_or(0);
        staged.push((user, records));
    }
    for page in staged.chunks(PAGE as usize) {
        campaign_state::write_staged(redis, place.0, place.1, counts.rebuild, page).await?;
    }
    Ok(())
}
