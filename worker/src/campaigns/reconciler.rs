use dibs_common::{
    clock,
    db::{self, Database},
    domain::campaign::Campaign,
    error::Result,
    identifiers::Partition,
    redis::{
        Redis,
        campaign_state::{self, KEPT_AFTER_END},
    },
};

use super::rebuild::{rebuild, rebuild_missing};

const PAGE_SIZE: u32 = 500;

/// Compares every campaign that is not long over with Redis, and rebuilds those that Redis has lost in whole or in part.
/// Returns their partitions.
pub async fn reconcile_all(database: &Database, redis: &Redis) -> Result<Vec<Partition>> {
    let since = clock::now() - KEPT_AFTER_END;
    let mut partitions = Vec::new();
    let mut after = None;
    loop {
        let campaigns = db::within(db::campaigns::list_not_ended(&database.pool(), since, after, PAGE_SIZE)).await?;
        let Some(last) = campaigns.last() else { break };
        after = Some(last.id);
        for campaign in &campaigns {
            partitions.push(campaign.partition);
            if let Err(error) = reconcile(database, redis, campaign).await {
                // It must not hold up the others.
                tracing::warn!(coupon = %campaign.id, cause = error.chain(), "campaign reconciliation failed");
            }
        }
    }
    partitions.sort_unstable();
    partitions.dedup();
    Ok(partitions)
}

async fn reconcile(database: &Database, redis: &Redis, campaign: &Campaign) -> Result<()> {
    match campaign_state::counts(redis, campaign.partition, campaign.id).await? {
        // Redis counts a claim before it is issued, and MySQL was read first: fewer claims in Redis mean a loss.
        Some(counts) if counts.claimed >= campaign.issued => Ok(()),
        counts => {
            if campaign.issued > 0 {
                let claimed = counts.map(|counts| counts.claimed);
                tracing::warn!(coupon = %campaign.id, ?claimed, issued = campaign.issued, "redis lost claims; rebuilding campaign");
            }
            match counts {
                Some(_) => rebuild(database, redis, campaign).await,
                None => rebuild_missing(database, redis, campaign).await,
            }
        }
    }
}
