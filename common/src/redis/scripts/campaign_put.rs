use std::sync::LazyLock;

use fred::types::{Value, scripts::Script};
use uuid::Uuid;

use super::{Contract, integer, run, unexpected};
use crate::{
    clock::{Timestamp, from_millis},
    domain::campaign::Campaign,
    error::Result,
    redis::Redis,
};

pub(super) const CONTRACT: Contract = Contract {
    source: include_str!("../../../../lua/campaign_put.lua"),
    keys: &["campaign", "claims", "staged"],
    arguments: &["total", "limit", "opens_at", "closes_at", "state", "claimed", "sequence"],
    codes: &[("CREATED", 1), ("UPDATED", 2)],
};
static SCRIPT: LazyLock<Script> = LazyLock::new(|| CONTRACT.script());

/// The outcome of [`campaign_put`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CampaignPut {
    /// Whether the campaign was unknown. Otherwise its terms changed, and its counts did not.
    pub is_new: bool,
    /// The clock of Redis. Claims that are accepted later meet these terms.
    pub at: Timestamp,
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
    let code = integer(answer.first())?;
    if !(1..=2).contains(&code) {
        return Err(unexpected(&answer));
    }
    Ok(CampaignPut { is_new: code == 1, at: from_millis(integer(answer.get(1))?) })
}
