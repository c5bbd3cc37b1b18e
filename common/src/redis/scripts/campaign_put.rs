use std::sync::LazyLock;

use fred::types::{Value, scripts::Script};
use uuid::Uuid;

use super::{Contract, integer, run, unexpected};
use crate::{
    clock::{Timestamp, from_millis},
    domain::campaign::Campaign,
    error::{Error, Result},
    redis::Redis,
};

pub(super) const CONTRACT: Contract = Contract {
    source: include_str!("../../../../lua/campaign_put.lua"),
    keys: &["campaign", "claims", "staged"],
    arguments: &["total", "limit", "opens_at", "closes_at", "state", "claimed", "sequence", "guard", "epoch"],
    codes: &[("UNKNOWN", 0), ("CREATED", 1), ("UPDATED", 2), ("BELOW_CLAIMED", 3)],
};
static SCRIPT: LazyLock<Script> = LazyLock::new(|| CONTRACT.script());

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
    pub claimed: u32,
    /// The highest sequence that an accepted claim has.
    pub sequence: u32,
    /// The rebuild that staged those claims.
    pub rebuild: Uuid,
}

/// Creates a campaign in Redis with `counts`, or updates the terms of an existing one. See `lua/campaign_put.lua`.
pub async fn campaign_put(redis: &Redis, campaign: &Campaign, counts: CampaignCounts) -> Result<CampaignPut> {
    let numbers = [counts.claimed, counts.sequence].map(|count| count.to_string());
    match put(redis, campaign, counts.rebuild, numbers, "").await? {
        (1, at, _) => Ok(CampaignPut { is_new: true, at }),
        (2, at, _) => Ok(CampaignPut { is_new: false, at }),
        answer => Err(unexpected(&answer)),
    }
}

/// Updates the terms of a campaign, and returns the time by the clock of Redis; none when Redis does not hold it, or
/// holds it as of another epoch. It never creates one: a rebuild may just have deleted the campaign.
pub async fn campaign_update(redis: &Redis, campaign: &Campaign) -> Result<Option<Timestamp>> {
    match put(redis, campaign, Uuid::nil(), [String::new(), String::new()], "").await? {
        (0, ..) => Ok(None),
        (2, at, _) => Ok(Some(at)),
        answer => Err(unexpected(&answer)),
    }
}

/// The result of [`campaign_lower`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CampaignLowered {
    /// No claim beyond the new quantity is accepted from now on.
    Lowered,
    /// Nothing changed: so many claims are accepted.
    BelowClaimed(u32),
    /// Redis does not hold the campaign.
    Unknown,
}

/// Lowers the quantity of a campaign, unless more is claimed already. Decided by Redis, so that no claim slips in
/// between.
pub async fn campaign_lower(redis: &Redis, campaign: &Campaign) -> Result<CampaignLowered> {
    match put(redis, campaign, Uuid::nil(), [String::new(), String::new()], "NOT_BELOW_CLAIMED").await? {
        (0, ..) => Ok(CampaignLowered::Unknown),
        (2, ..) => Ok(CampaignLowered::Lowered),
        (3, _, claimed) => Ok(CampaignLowered::BelowClaimed(claimed)),
        answer => Err(unexpected(&answer)),
    }
}

/// The code, the time by the clock of Redis, and the accepted claims.
async fn put(
    redis: &Redis,
    campaign: &Campaign,
    rebuild: Uuid,
    counts: [String; 2],
    guard: &'static str,
) -> Result<(i64, Timestamp, u32)> {
    // All of one partition, and so of one slot: a script reaches no other node of a cluster.
    let keys = vec![
        redis.keys.campaign(campaign.partition, campaign.id),
        redis.keys.claims(campaign.partition, campaign.id),
        redis.keys.staged_claims(campaign.partition, campaign.id, rebuild),
    ];
    let terms = term_fields(campaign).map(|(_, value)| value);
    let rest = [guard.to_owned(), campaign.epoch.to_string()];
    let arguments = terms.into_iter().chain(counts).chain(rest).map(Value::from).collect();
    let answer = run(redis, &SCRIPT, keys, arguments).await?;
    let claimed = u32::try_from(integer(answer.get(2))?).map_err(Error::internal)?;
    Ok((integer(answer.first())?, from_millis(integer(answer.get(1))?), claimed))
}

/// The fields of the hash that are terms, and their values, in the order of the script's arguments.
pub(in crate::redis) fn term_fields(campaign: &Campaign) -> [(&'static str, String); 5] {
    let terms = &campaign.terms;
    [
        ("total", campaign.capacity().to_string()),
        ("limit", terms.per_user_limit.to_string()),
        ("opens_at", terms.opens_at.timestamp_millis().to_string()),
        ("closes_at", terms.closes_at.timestamp_millis().to_string()),
        ("state", campaign.state.into_str().to_owned()),
    ]
}
