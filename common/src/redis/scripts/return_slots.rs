use std::sync::LazyLock;

use bytes::Bytes;
use fred::types::{Value, scripts::Script};

use super::{Contract, count, integer, run};
use crate::{
    error::{Error, Result},
    identifiers::{ClaimId, CouponId, Partition, UserId},
    redis::Redis,
};

pub(super) const CONTRACT: Contract = Contract {
    source: include_str!("../../../../lua/return_slots.lua"),
    keys: &["campaign", "claims"],
    arguments: &["user, claim"],
    codes: &[("UNKNOWN", 0), ("RETURNED", 1)],
};
static SCRIPT: LazyLock<Script> = LazyLock::new(|| CONTRACT.script());

/// Returns the slots of claims that were rejected; a slot returns once, however often
/// this is called. Returns how many went back now, or [`Error::CampaignUnavailable`] when Redis does not hold the
/// campaign: then it must be called again when Redis does. See `lua/return_slots.lua`.
pub async fn return_slots(
    redis: &Redis,
    partition: Partition,
    coupon: CouponId,
    claims: &[(UserId, ClaimId)],
) -> Result<u64> {
    // Both keys carry the hash tag of the partition, as a cluster runs a script on one slot only.
    let keys = vec![redis.keys.campaign(partition, coupon), redis.keys.claims(partition, coupon)];
    let arguments = claims.iter().flat_map(|(user, claim)| {
        [Value::from(user.get().to_string()), Value::Bytes(Bytes::copy_from_slice(claim.0.as_bytes()))]
    });
    let reply = run(redis, &SCRIPT, keys, arguments.collect()).await?;
    if integer(reply.first())? == 0 {
        return Err(Error::CampaignUnavailable(coupon));
    }
    count(&reply)
}
