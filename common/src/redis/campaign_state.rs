//! The state of a campaign in Redis: its terms, its counts, and the accepted claims. Scripts write them; this module
//! reads them, and writes the staged claims that a script renames at the end of a rebuild.

use chrono::TimeDelta;
use fred::{
    clients::Client,
    interfaces::{HashesInterface as _, KeysInterface as _},
    types::{Value, scan::Scanner as _},
};
use futures::TryStreamExt as _;
use uuid::Uuid;

use crate::{
    clock::{Timestamp, from_millis},
    domain::{campaign::Campaign, claim::ClaimRecord, event::Epoch},
    error::{Error, Result},
    identifiers::{CouponId, Partition, UserId},
    redis::{
        Redis,
        scripts::{RECORD_BYTES, read_record, term_fields, write_record},
    },
};

/// How long after its end workers still compare and rebuild a campaign: late claims are then rejected as closed, not as
/// unknown.
pub const RECONCILED_AFTER_END: TimeDelta = TimeDelta::hours(1);
/// Users of one page of a scan.
const SCAN_COUNT: u32 = 1_000;
/// Users of one write of staged claims.
const STAGED_PAGE: usize = 1_000;
/// After that Redis deletes the staged claims of a rebuild that crashed.
const STAGED_TTL_SECONDS: i64 = 3_600;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    pub claimed: u32,
    pub total: u32,
    /// The highest sequence that an accepted claim has.
    pub sequence: u32,
    closes_at: Timestamp,
    active: bool,
}

impl Counts {
    /// Whether at `now` claims are rejected only because no quantity remains.
    pub fn sold_out(&self, now: Timestamp) -> bool {
        self.active && now < self.closes_at && self.claimed >= self.total
    }
}

/// The counts of a campaign; none when Redis does not hold it.
pub async fn counts(redis: &Redis, partition: Partition, coupon: CouponId) -> Result<Option<Counts>> {
    let key = redis.keys.campaign(partition, coupon);
    let fields = vec!["claimed", "total", "sequence", "closes_at", "state"];
    let values: Vec<Value> = redis.run(&key, async |client| client.hmget(&key, fields.clone()).await).await?;
    let number = |place: usize| values.get(place).and_then(Value::as_i64);
    // A script writes all fields at once, so a missing one means that the campaign is missing.
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

/// What Redis holds of a campaign, compared with MySQL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldCampaign {
    /// Whether Redis holds any field of it.
    pub exists: bool,
    /// Accepted claims, and the highest sequence of one. None when one of the two is missing or invalid.
    pub counts: Option<(u32, u32)>,
    /// As of which epoch of the database they are; missing is the first.
    pub epoch: Epoch,
    /// The fields of the hash whose terms are not those of MySQL, missing ones included.
    pub different: Vec<&'static str>,
}

/// Compares the terms of a campaign with those that Redis enforces, and reads its counts, in one round trip.
pub async fn compare(redis: &Redis, campaign: &Campaign) -> Result<HeldCampaign> {
    const COUNTS: [&str; 3] = ["claimed", "sequence", "epoch"];
    let key = redis.keys.campaign(campaign.partition, campaign.id);
    let terms = term_fields(campaign);
    let fields: Vec<&str> = COUNTS.into_iter().chain(terms.iter().map(|(name, _)| *name)).collect();
    let values: Vec<Option<String>> = redis.run(&key, async |client| client.hmget(&key, fields.clone()).await).await?;
    let count = |place: usize| values.get(place)?.as_deref()?.parse().ok();
    let held = values.iter().skip(COUNTS.len());
    let different = terms.iter().zip(held).filter(|((_, expected), held)| held.as_ref() != Some(expected));
    Ok(HeldCampaign {
        exists: values.iter().any(Option::is_some),
        counts: count(0).zip(count(1)),
        epoch: Epoch(values.get(2).and_then(|epoch| epoch.as_deref()?.parse().ok()).unwrap_or_default()),
        different: different.map(|((name, _), _)| *name).collect(),
    })
}

/// A term that Redis enforces otherwise than `MySQL` has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DifferentTerm {
    pub field: &'static str,
    pub expected: String,
    pub found: Option<String>,
}

/// The terms in which Redis differs from `MySQL`, with both values.
pub async fn list_different_terms(redis: &Redis, campaign: &Campaign) -> Result<Vec<DifferentTerm>> {
    let key = redis.keys.campaign(campaign.partition, campaign.id);
    let terms = term_fields(campaign);
    let fields: Vec<&str> = terms.iter().map(|(name, _)| *name).collect();
    let held: Vec<Option<String>> = redis.run(&key, async |client| client.hmget(&key, fields.clone()).await).await?;
    let different = terms.into_iter().zip(held).filter(|((_, expected), found)| found.as_ref() != Some(expected));
    Ok(different.map(|((field, expected), found)| DifferentTerm { field, expected, found }).collect())
}

/// The accepted claims of a user on a campaign, the latest last.
pub async fn claims_of_user(
    redis: &Redis,
    partition: Partition,
    coupon: CouponId,
    user: UserId,
) -> Result<Vec<ClaimRecord>> {
    let key = redis.keys.claims(partition, coupon);
    let field = user.get().to_string();
    let records: Value = redis.run(&key, async |client| client.hget(&key, &field).await).await?;
    Ok(records.as_bytes().unwrap_or_default().chunks_exact(RECORD_BYTES).filter_map(read_record).collect())
}

/// The latest accepted claim of a user on a campaign.
pub async fn latest_claim(
    redis: &Redis,
    partition: Partition,
    coupon: CouponId,
    user: UserId,
) -> Result<Option<ClaimRecord>> {
    Ok(claims_of_user(redis, partition, coupon, user).await?.pop())
}

/// The users with an accepted claim on a campaign, sorted. Read in pages, so that Redis serves other clients in
/// between; a user whose claim is accepted or returned meanwhile may be missing or contained.
pub async fn holders(redis: &Redis, partition: Partition, coupon: CouponId) -> Result<Vec<u64>> {
    let key = redis.keys.claims(partition, coupon);
    // Of one server from beginning to end: the cursor of another one means nothing to it.
    let read = async |client: Client| {
        let mut pages = Box::pin(client.hscan(&key, "*", Some(SCAN_COUNT)));
        let mut holders = Vec::new();
        while let Some(mut page) = pages.try_next().await? {
            if let Some(users) = page.take_results() {
                holders.extend(users.inner().into_keys().filter_map(|user| user.as_str()?.parse::<u64>().ok()));
            }
            page.next();
        }
        Ok(holders)
    };
    let mut holders = redis.run(&key, read).await?;
    // A scan may return a field twice while the hash grows.
    holders.sort_unstable();
    holders.dedup();
    Ok(holders)
}

/// Deletes the counts of a campaign, so that it accepts no claims until it is rebuilt.
pub async fn delete(redis: &Redis, partition: Partition, coupon: CouponId) -> Result<()> {
    let key = redis.keys.campaign(partition, coupon);
    redis.run(&key, async |client| client.unlink::<(), _>(&key).await).await
}

pub async fn remove(redis: &Redis, partition: Partition, coupon: CouponId) -> Result<()> {
    let campaign = redis.keys.campaign(partition, coupon);
    let keys = vec![campaign.clone(), redis.keys.claims(partition, coupon)];
    // UNLINK frees a million claims in the background; DEL would block Redis for it.
    redis.run(&campaign, async |client| client.unlink::<(), _>(keys.clone()).await).await
}

/// Adds users' records to the staged claims of a rebuild, in pages, so that Redis serves other clients in between. They
/// expire an hour after the last page.
pub async fn write_staged(
    redis: &Redis,
    partition: Partition,
    coupon: CouponId,
    rebuild: Uuid,
    records: &[(UserId, Vec<ClaimRecord>)],
) -> Result<()> {
    let key = redis.keys.staged_claims(partition, coupon, rebuild);
    for page in records.chunks(STAGED_PAGE) {
        let packed = page.iter().map(|(user, records)| {
            let packed: Vec<u8> = records.iter().flat_map(write_record).collect();
            (user.get().to_string(), Value::Bytes(packed.into()))
        });
        let fields: Vec<(String, Value)> = packed.collect();
        redis.run(&key, async |client| client.hset::<(), _, _>(&key, fields.clone()).await).await?;
        redis.run(&key, async |client| client.expire::<(), _>(&key, STAGED_TTL_SECONDS, None).await).await?;
    }
    Ok(())
}
