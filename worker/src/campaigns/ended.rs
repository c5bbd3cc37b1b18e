use dibs_common::{
    audit::MAX_CHECKED_ENTRIES,
    clock::Timestamp,
    db::{self, Database, Lease},
    domain::campaign::Campaign,
    error::Result,
    redis::{
        Redis, campaign_state,
        streams::{self, ClaimEntry},
    },
};

use super::rebuild::{list_unanswered, rebuild_lease};

/// Campaigns that are removed at once. The next run goes on.
const REMOVED_AT_ONCE: u32 = 1_000;

/// Removes campaigns from Redis that ended before `before`. MySQL still has their claims, and an assignment rebuilds its
/// campaign. Returns how many were removed.
pub async fn remove_ended(database: &Database, redis: &Redis, before: Timestamp) -> Result<u64> {
    let pool = &database.pool();
    let ended = db::campaigns::list_ended(pool, before, REMOVED_AT_ONCE);
    let mut removed = 0;
    for campaign in db::within(ended).await? {
        // Without the lease another process rebuilds it; the next run looks at it again.
        let Some(mut lease) = database.try_lease(&rebuild_lease(campaign.id)).await? else { continue };
        let done = remove(&mut lease, database, redis, &campaign).await;
        lease.release().await?;
        removed += u64::from(done?);
    }
    Ok(removed)
}

async fn remove(lease: &mut Lease, database: &Database, redis: &Redis, campaign: &Campaign) -> Result<bool> {
    // A claim without an outcome may be rejected, and then its slot must return to Redis.
    if streams::len::<ClaimEntry>(redis, campaign.partition).await? > MAX_CHECKED_ENTRIES
        || !list_unanswered(database, redis, campaign).await?.is_empty()
    {
        return Ok(false);
    }
    lease.confirm().await?;
    campaign_state::remove(redis, campaign.partition, campaign.id).await?;
    // Last, so that the next run removes it when this one dies before.
    db::within(db::campaigns::clear_enforced(lease.begin().await?, campaign.id)).await?;
    lease.commit().await?;
    Ok(true)
}
