//! The accepted claims of a campaign, read page by page: by user, or in the order of a scan. No command reads more than
//! a page, so that Redis serves other clients in between.

use fred::{
    clients::Client,
    interfaces::{ClientLike as _, HashesInterface as _},
    types::{ClusterHash, CustomCommand, Value},
};

use crate::{
    domain::audit::HeldClaims,
    error::{Error, Result},
    identifiers::{CouponId, Partition, UserId},
    redis::{
        Redis,
        scripts::{RECORD_BYTES, read_record},
    },
};

/// Users of one page: about a millisecond of Redis.
pub const PAGE_SIZE: usize = 1_000;

/// What Redis has of these users, in their order, at most [`PAGE_SIZE`].
pub async fn find(redis: &Redis, partition: Partition, coupon: CouponId, users: &[UserId]) -> Result<Vec<HeldClaims>> {
    if users.is_empty() {
        return Ok(Vec::new());
    }
    let key = redis.keys.claims(partition, coupon);
    let fields: Vec<String> = users.iter().map(ToString::to_string).collect();
    let values: Vec<Value> = redis.run(&key, async |client| client.hmget(&key, fields.clone()).await).await?;
    Ok(values.iter().map(held_claims).collect())
}

/// How many users have an accepted claim.
pub async fn count_holders(redis: &Redis, partition: Partition, coupon: CouponId) -> Result<u64> {
    let key = redis.keys.claims(partition, coupon);
    redis.run(&key, async |client| client.hlen(&key).await).await
}

/// About [`PAGE_SIZE`] users and what Redis has of them, and the cursor of the next page; 0 after the last. Every user
/// that is there from the first page to the last is in at least one. The cursor means nothing to another server.
pub async fn scan(
    redis: &Redis,
    partition: Partition,
    coupon: CouponId,
    cursor: u64,
) -> Result<(u64, Vec<(UserId, HeldClaims)>)> {
    let key = redis.keys.claims(partition, coupon);
    let read = async |client: Client| {
        // The library's scan hides the cursor, which a caller of several calls needs.
        let command = CustomCommand::new_static("HSCAN", ClusterHash::FirstKey, false);
        let arguments = vec![key.clone(), cursor.to_string(), "COUNT".into(), PAGE_SIZE.to_string()];
        client.custom::<Value, _>(command, arguments).await
    };
    let mut reply = redis.run(&key, read).await?.into_array().into_iter();
    let malformed = || Error::internal("a reply of HSCAN has no cursor and fields");
    let next = reply.next().and_then(|next| next.as_str()?.parse::<u64>().ok()).ok_or_else(malformed)?;
    let fields = reply.next().ok_or_else(malformed)?.into_array();
    let mut held = Vec::with_capacity(fields.len() / 2);
    for pair in fields.chunks_exact(2) {
        // Another field than a user's id is nothing that Dibs writes or reads.
        let user =
            pair[0].as_str().and_then(|user| user.parse::<u64>().ok()).and_then(|user| UserId::try_from(user).ok());
        held.extend(user.map(|user| (user, held_claims(&pair[1]))));
    }
    Ok((next, held))
}

fn held_claims(value: &Value) -> HeldClaims {
    let packed = value.as_bytes().unwrap_or_default();
    let records: Vec<_> = packed.chunks_exact(RECORD_BYTES).filter_map(read_record).collect();
    let is_unreadable = !value.is_null() && (packed.is_empty() || packed.len() != records.len() * RECORD_BYTES);
    HeldClaims { records, is_unreadable }
}
