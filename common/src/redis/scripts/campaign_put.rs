use std::sync::LazyLock;

use fred::types::{Value, scripts::Script};
use uuid::Uuid;

use super::{Contract, integer, run, unexpected};
use crate::{domain::campaign::Campaign, error::Result, redis::Redis};

pub(super) const CONTRACT: Contract = Contract {
    source: include_str!("../../../../lua/campaign_put.lua"),
    keys: &["campaign", "claims", "staged"],
    arguments: &["total", "limit", "opens_at", "closes_at", "state", "claimed", "sequence"],
    codes: &[("CREATED", 1), ("UPDATED", 2), ("BELOW_CLAIMED", 3)],
};
static SCRIPT: LazyLock<Script> = LazyLock::new(|| CONTRACT.script());

/// The outcome of [`campaign_put`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CampaignPut {
    /// The campaign was unknown.
    Created,
    /// The terms of a known campaign changed; its counts did not.
    Updated,
    /// Nothing changed: so many claims are accepted, more than the new total.
    BelowClaimed(u32),
}

/// The counts that an unknown campaign begins with.
#[derive(Clone, Copy, Debug, Default)]
pub struct CampaignCounts {
    /// Accepted claims.
    pub claimed: u32,
    /// The highest sequence that an accepted claim has.
    pub sequence: u32,
    /// The rebuild that staged those claims.
    pub rebuild: Uuid,
}

/// Creates a campaign in Redis with `counts`, or updates the terms of an existing one. See `lua/campaign_put.lua`.
pub async fn campaign_put(redis: &Redis, campaign: &Campaign, counts: CampaignCounts) -> Result<CampaignPut> {
    let keys = vec![
        redis.keys.campaign(campaign.partition, campaign.id),
        redis.keys.claims(campaign.partition, campaign.id),
        redis.keys.staged_claims(campaign.partition, campaign.id, counts.rebuild),
    ];
    let arguments = vec![
        Value::from(i64::from(campaign.terms.total_quantity)),
        Value::from(i64::from(campaign.terms.per_user_limit)),
        Value::from(campaign.terms.opens_at.timestamp_millis()),
        Value::from(campaign.terms.closes_at.timestamp_millis()),
        Value::from(campaign.state.into_str()),
        Value::from(i64::from(counts.claimed)),
        Value::from(i64::from(counts.sequence)),
    ];
    let answer = run(redis, &SCRIPT, keys, arguments).await?;
    match integer(answer.first())? {
        1 => Ok(CampaignPut::Created),
        2 => Ok(CampaignPut::Updated),
        3 => Ok(CampaignPut::BelowClaimed(u32::try_from(integer(answer.get(1))?).unwrap_or(u32::MAX))),
        _ => Err(unexpected(&answer)),
    }
}
