//! The claims of a campaign in Redis, in batches.

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

/// The claims of a user, in the order of acceptance.
pub type Claims = (UserId, Vec<ClaimRecord>);

/// All claims of a campaign, some users at a time. HSCAN returns a user twice only while the hash is resized, and that
/// of a drained stack is not.
pub fn scan(redis: &Redis, partition: Partition, coupon: CouponId) -> impl Stream<Item = Result<Vec<Claims>>> {
    let key = redis.keys.claims(partition, coupon);
    // HSCAN does not block Redis for the size of the hash, as HGETALL would.
    let pages = redis.client().hscan(key, "*", Some(SCAN_COUNT));
    pages.map_err(|error| anyhow!("reading claims from Redis: {error}")).and_then(async |mut page| {
        let fields = page.take_results().map(Map::inner).unwrap_or_default();
        fields.into_iter().map(|(user, records)| claims(user.as_str().unwrap_or_default(), &records)).collect()
    })
}

/// Users with claims.
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
    // HMGET keeps the order of the fields, and answers null for a missing one.
    let found: Vec<Option<Bytes>> = redis.client().hmget(key, fields).await.context("reading claims from Redis")?;
    let held = users.iter().zip(found);
    held.map(|(&user, packed)| Ok((user, records(user, &packed.unwrap_or_default())?))).collect()
}

fn claims(user: &str, packed: &Value) -> Result<Claims> {
    let invalid = || anyhow!("Redis holds claims of '{user}', which is no user id");
    let user = UserId::try_from(user.parse::<u64>().map_err(|_| invalid())?).map_err(|_| invalid())?;
    Ok((user, records(user, packed.as_bytes().unwrap_or_default())?))
}

fn records(user: UserId, packed: &[u8]) -> Result<Vec<ClaimRecord>> {
    let read = packed.chunks(RECORD_BYTES).map(read_record);
    read.collect::<Option<_>>().ok_or_else(|| anyhow!("Redis holds a truncated claim of user {user}"))
}

#[cfg(test)]
mod tests {
    use dibs_common::{clock::from_millis, identifiers::ClaimId, redis::scripts::write_record};

    use super::*;

    #[test]
    fn records_are_packed_one_after_the_other() {
        let record = |sequence| ClaimRecord { claim_id: ClaimId::generate(), sequence, accepted_at: from_millis(1) };
        let user = UserId::try_from(7).expect("a valid id");
        let held = vec![record(1), record(2)];
        let packed: Vec<u8> = held.iter().flat_map(write_record).collect();
        assert_eq!(records(user, &packed).expect("whole records"), held);
        assert!(records(user, &packed[1..]).is_err());
        assert!(records(user, &[]).is_ok_and(|none| none.is_empty()));
    }

    #[test]
    fn a_field_that_is_no_user_id_is_an_error() {
        let packed = Value::Bytes(Bytes::new());
        assert_eq!(claims("7", &packed).map(|(user, records)| (user.get(), records.len())).expect("a user"), (7, 0));
        for user in ["0", "x", ""] {
            assert!(claims(user, &packed).is_err(), "{user}");
        }
    }
}
