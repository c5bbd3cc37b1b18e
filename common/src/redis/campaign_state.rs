//! What Redis holds of a campaign: read here, written by scripts. A rebuild alone writes past them: it makes Redis
//! forget a campaign, and stages claims where nobody looks until a script takes them over.

use fred::{
    interfaces::{HashesInterface as _, KeysInterface as _},
    types::{Value, scan::Scanner as _},
};
use futures::TryStreamExt as _;
use uuid::Uuid;

use crate::{
    clock::{Timestamp, from_millis},
    domain::claim::ClaimRecord,
    error::{Error, Result},
    identifiers::{CouponId, Partition, UserId},
    redis::{
        Redis, redis_error,
        scripts::{RECORD_BYTES, read_record, write_record},
    },
};

const SCAN_STEP: u32 = 1000;

/// What Redis counts of a campaign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Seats taken.
    pub claimed: u32,
    /// All seats.
    pub total: u32,
    /// The highest sequence given; coupons change hands only with a new one.
    pub sequence: u32,
    closes_at: Timestamp,
    active: bool,
}

impl Counts {
    /// Whether, at `now`, the campaign takes claims but for want of a seat.
    pub fn sold_out(&self, now: Timestamp) -> bool {
        self.active && now < self.closes_at && self.claimed >= self.total
    }
}

/// What Redis counts of a campaign; none when it does not hold it.
pub async fn counts(redis: &Redis, partition: Partition, coupon: CouponId) -> Result<Option<Counts>> {
    let key = redis.keys.campaign(partition, coupon);
    let fields = vec!["claimed", "total", "sequence", "closes_at", "state"];
    let values: Vec<Value> = redis.client().hmget(key, fields).await.map_err(redis_error)?;
    let number = |place: usize| values.get(place).and_then(Value::as_i64);
    let (Some(claimed), Some(total), Some(sequence), Some(closes_at)) = (number(0), number(1), number(2), number(3))
    else {
        return Ok(None);
    };
    let bounded = |number: i64| u32::try_from(number).map_err(Error::internal);
    Ok(Some(Counts {
        claimed: bounded(claimed)?,
        total: bounded(total)?,
        sequence: bounded(sequence)?,
        closes_at: from_millis(closes_at),
        active: values.get(4).and_then(Value::as_str).is_some_and(|state| state == "ACTIVE"),
    }))
}

/// The user's latest claim on a campaign.
pub async fn latest_claim(
    redis: &Redis,
    partition: Partition,
    coupon: CouponId,
    user: UserId,
) -> Result<Option<ClaimRecord>> {
    let key = redis.keys.claims(partition, coupon);
    let records: Value = redis.client().hget(key, user.get().to_string()).await.map_err(redis_error)?;
    Ok(records.as_bytes().unwrap_or_default().chunks_exact(RECORD_BYTES).last().and_then(read_record))
}

/// The users who have a claim on a campaign, sorted. Read in steps, so that Redis serves others in between: one who
/// comes or goes meanwhile may be in it or not.
pub async fn holders(redis: &Redis, partition: Partition, coupon: CouponId) -> Result<Vec<u64>> {
    let key = redis.keys.claims(partition, coupon);
    let mut pages = Box::pin(redis.client().hscan(key, "*", Some(SCAN_STEP)));
    let mut holders = Vec::new();
    while let Some(mut page) = pages.try_next().await.map_err(redis_error)? {
        if let Some(users) = page.take_results() {
            holders.extend(users.inner().into_keys().filter_map(|user| user.as_str()?.parse::<u64>().ok()));
        }
        page.next();
    }
    holders.sort_unstable();
    holders.dedup();
    Ok(holders)
}

/// Lets Redis forget a campaign's counts, so that it takes no claims until it is made again.
pub async fn forget(redis: &Redis, partition: Partition, coupon: CouponId) -> Result<()> {
    redis.client().del::<(), _>(redis.keys.campaign(partition, coupon)).await.map_err(redis_error)
}

/// Adds users' records to the claims that a rebuild gathers. They vanish after an hour if it never ends.
pub async fn stage(
    redis: &Redis,
    (partition, coupon): (Partition, CouponId),
    rebuild: Uuid,
    records: &[(UserId, Vec<ClaimRecord>)],
) -> Result<()> {
    if records.is_empty() {
        return Ok(());
    }
    let key = redis.keys.staged_claims(partition, coupon, rebuild);
    let fields: Vec<(String, Value)> = records
        .iter()
        .map(|(user, records)| {
            let packed: Vec<u8> = records.iter().flat_map(write_record).collect();
            (user.get().to_string(), Value::Bytes(packed.into()))
        })
        .collect();
    let client = redis.client();
    client.hset::<(), _, _>(&key, fields).await.map_err(redis_error)?;
    client.expire::<(), _>(&key, 3600, None).await.map_err(redis_error)
}
