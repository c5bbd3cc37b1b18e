//! The claims that Redis holds of a campaign, in steps.

use std::collections::HashMap;

use anyhow::{Context as _, Result, anyhow};
use bytes::Bytes;
use dibs_common::{
    domain::claim::ClaimRecord,
    identifiers::{CouponId, Partition, UserId},
    redis::{
        Redis,
        scripts::{RECORD_BYTES, read_record},
    },
};
use fred::{
    interfaces::HashesInterface as _,
    types::{Map, Value, scan::Scanner as _},
};
use futures::{Stream, TryStreamExt as _};

const SCAN_COUNT: u32 = 1000;

/// A user's claims, in the order of acceptance.
pub type Claims = (UserId, Vec<ClaimRecord>);

/// All claims of a campaign, some users at a time. A user may come twice while the hash changes its size, which it
/// does not at rest.
pub fn scan(redis: &Redis, partition: Partition, coupon: CouponId) -> impl Stream<Item = Result<Vec<Claims>>> {
    let key = redis.keys.claims(partition, coupon);
    let pages = redis.client().hscan(key, "*", Some(SCAN_COUNT));
    pages.map_err(|error| anyhow!("reading claims from Redis: {error}")).and_then(async |mut page| {
        let fields = page.take_results().map(Map::inner).unwrap_or_default();
        fields.into_iter().map(|(user, records)| claims(user.as_str().unwrap_or_default(), &records)).collect()
    })
}

/// How many users have claims.
pub async fn users(redis: &Redis, partition: Partition, coupon: CouponId) -> Result<u64> {
    let length = redis.client().hlen(redis.keys.claims(partition, coupon)).await;
    length.context("counting users in Redis")
}

/// The claims of these users.
pub async fn claims_of(
    redis: &Redis,
    partition: Partition,
    coupon: CouponId,
    users: &[UserId],
) -> Result<HashMap<UserId, Vec<ClaimRecord>>> {
    let fields: Vec<String> = users.iter().map(ToString::to_string).collect();
    let key = redis.keys.claims(partition, coupon);
    let found: Vec<Option<Bytes>> = redis.client().hmget(key, fields).await.context("reading claims from Redis")?;
    let held = users.iter().zip(found);
    held.map(|(&user, packed)| Ok((user, records(user, &packed.unwrap_or_default())?))).collect()
}

fn claims(user: &str, packed: &Value) -> Result<Claims> {
    let strange = || anyhow!("Redis holds claims of '{user}', who is no user");
    let user = UserId::try_from(user.parse::<u64>().map_err(|_| strange())?).map_err(|_| strange())?;
    Ok((user, records(user, packed.as_bytes().unwrap_or_default())?))
}

fn records(user: UserId, packed: &[u8]) -> Result<Vec<ClaimRecord>> {
    let read = packed.chunks(RECORD_BYTES).map(read_record);
    read.collect::<Option<_>>().ok_or_else(|| anyhow!("Redis holds half a claim of user {user}"))
}

#[cfg(test)]
mod tests {
    use dibs_common::{clock::from_millis, identifiers::ClaimId, redis::scripts::write_record};

    use super::*;

    #[test]
    fn records_stand_one_after_the_other() {
        let record = |sequence| ClaimRecord { claim_id: ClaimId::generate(), sequence, accepted_at: from_millis(1) };
        let user = UserId::try_from(7).expect("a valid id");
        let held = vec![record(1), record(2)];
        let packed: Vec<u8> = held.iter().flat_map(write_record).collect();
        assert_eq!(records(user, &packed).expect("whole records"), held);
        assert!(records(user, &packed[1..]).is_err());
        assert!(records(user, &[]).is_ok_and(|none| none.is_empty()));
    }
}
