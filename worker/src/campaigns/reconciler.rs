use chrono::TimeDelta;
use dibs_common::{
    clock,
    db::{self, Database},
    domain::campaign::Campaign,
    error::Result,
    identifiers::Partition,
    redis::{Redis, campaign_state},
};

use super::rebuild::{make_missing, rebuild};

const PAGE: u32 = 500;

/// How long after its end a campaign is still kept in Redis: latecomers are told that it is closed.
pub(crate) const KEPT_AFTER_END: TimeDelta = TimeDelta::hours(1);

/// Holds every campaign that is not long over against Redis, and makes those again that it has forgotten, in whole or in part. Returns their partitions.
pub async fn reconcile_all(database: &Database, redis: &Redis) -> Result<Vec<Partition>> {
    let since = clock::now() - KEPT_AFTER_END;
    let mut partitions = Vec::new();
    let mut after = None;
    loop {
        let campaigns = db::within(db::campaigns::list_not_ended(database.pool(), since, after, PAGE)).await?;
        let Some(last) = campaigns.last() else { break };
        after = Some(last.id);
        for campaign in &campaigns {
            partitions.push(campaign.partition);
            if let Err(error) = mend(database, redis, campaign).await {
                // The others are not to wait for this one.
                tracing::warn!(coupon = %campaign.id, cause = error.chain(), "a campaign cannot be mended now");
            }
        }
    }
    partitions.sort_unstable();
    partitions.dedup();
    Ok(partitions)
}

async fn mend(database: &Database, redis: &Redis, campaign: &Campaign) -> Result<()> {
    match campaign_state::counts(redis, campaign.partition, campaign.id).await? {
        // A claim is counted in Redis before it is issued, and the database was read first.
        Some(counts) if counts.claimed >= campaign.issued => Ok(()),
        counts => {
            if campaign.issued > 0 {
                let claimed = counts.map(|counts| counts.claimed);
                tracing::warn!(coupon = %campaign.id, ?claimed, issued = campaign.issued, "redis has forgotten claims");
            }
            match counts {
                Some(_) => rebuild(database, redis, campaign).await,
                None => make_missing(database, redis, campaign).await,
            }
        }
    }
}
