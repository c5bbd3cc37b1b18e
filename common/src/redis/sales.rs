//! Sales in Redis: days and windows as sorted sets. Scripts write them; this module reads them, and writes the staged
//! keys that a script renames at the end of a rebuild.

use chrono::NaiveDate;
use fred::{
    clients::Client,
    interfaces::{HashesInterface as _, KeysInterface as _, SortedSetsInterface as _},
    types::scan::Scanner as _,
};
use futures::TryStreamExt as _;
use uuid::Uuid;

use crate::{
    clock::{Timestamp, from_millis},
    domain::{event::Position, ranking::Scores},
    error::{Error, Result},
    identifiers::ProductId,
    redis::{
        Redis,
        keys::{product_of_member, sales_member},
    },
};

/// Products of one read or write, which takes Redis about a millisecond.
const PAGE_SIZE: u32 = 1_000;
/// After that Redis deletes the staged keys of a rebuild that crashed.
pub(super) const STAGED_TTL_SECONDS: i64 = 3 * 3_600;

/// The position up to which events are counted; none when Redis does not know.
pub async fn applied(redis: &Redis) -> Result<Option<Position>> {
    let key = redis.keys.sales_applied();
    let applied: Option<String> = redis.run(&key, async |client| client.get(&key).await).await?;
    Ok(applied.and_then(|applied| applied.parse().ok()))
}

/// Whether messages of Kafka were counted since the last rebuild.
pub async fn is_counted_from_kafka(redis: &Redis) -> Result<bool> {
    let key = redis.keys.sales_counted();
    redis.run(&key, async |client| client.exists(&key).await).await
}

/// Deletes the position of the counters. No process counts until the worker that notices has rebuilt them.
pub async fn invalidate(redis: &Redis) -> Result<()> {
    let key = redis.keys.sales_applied();
    redis.run(&key, async |client| client.del::<(), _>(&key).await).await
}

/// The scores of a business day. Read in pages, so that Redis serves other clients in between; a score that changes
/// meanwhile is the one before or after.
pub async fn daily(redis: &Redis, day: NaiveDate) -> Result<Scores> {
    read_pages(redis, &redis.keys.daily_sales(day), 1).await
}

/// The units of a product on a business day; none when Redis has none.
pub async fn units_of_day(redis: &Redis, day: NaiveDate, product: ProductId) -> Result<Option<i64>> {
    let (key, member) = (redis.keys.daily_sales(day), sales_member(product));
    let score: Option<f64> = redis.run(&key, async |client| client.zscore(&key, &member).await).await?;
    Ok(score.map(units))
}

/// The units of all products in the window of `days` days, read in the same way.
pub async fn whole_window(redis: &Redis, days: u8) -> Result<Scores> {
    read_pages(redis, &redis.keys.sales_window(days), -1).await
}

async fn read_pages(redis: &Redis, key: &str, weight: i64) -> Result<Scores> {
    // Of one server from beginning to end: the cursor of another one means nothing to it.
    let read = async |client: Client| {
        let mut pages = Box::pin(client.zscan(key, "*", Some(PAGE_SIZE)));
        let mut members = Vec::new();
        while let Some(mut page) = pages.try_next().await? {
            members.extend(page.take_results().unwrap_or_default());
            page.next();
        }
        Ok(members)
    };
    // ZSCAN may return a member twice while the set is rehashed. A map takes that without harm.
    let mut scores = Scores::new();
    for (member, score) in redis.run(key, read).await? {
        let product = member.as_str().as_deref().and_then(product_of_member);
        scores.insert(product.ok_or_else(|| invalid(&member))?, weight * units(score));
    }
    Ok(scores)
}

/// Adds products and their units, times `weight`, to the key `staged`, see [`crate::redis::keys::Keys::staged`].
/// Written in pages, so that Redis serves other clients in between. The key expires three hours after the last page.
pub async fn write_staged(redis: &Redis, staged: &str, scores: &Scores, weight: i64) -> Result<()> {
    let mut rest = scores.iter();
    loop {
        let page = rest.by_ref().take(PAGE_SIZE as usize);
        let page: Vec<(f64, String)> =
            page.map(|(product, units)| (score(weight * units), sales_member(*product))).collect();
        if page.is_empty() {
            return Ok(());
        }
        let add = async |client: Client| client.zadd::<(), _, _>(staged, None, None, false, false, page.clone()).await;
        redis.run(staged, add).await?;
        // With every page, so that a crash at any point leaves no key behind for good.
        redis.run(staged, async |client| client.expire::<(), _>(staged, STAGED_TTL_SECONDS, None).await).await?;
    }
}

/// Deletes the staged keys of a rebuild that failed.
pub async fn delete_staged(redis: &Redis, keys: impl Iterator<Item = String> + Send, rebuild: Uuid) -> Result<()> {
    let staged: Vec<String> = keys.map(|key| redis.keys.staged(&key, rebuild)).collect();
    // UNLINK frees the members in the background. DEL of a million of them would stop Redis for a third of a second.
    let Some(first) = staged.first() else { return Ok(()) };
    redis.run(first, async |client| client.unlink::<(), _>(staged.clone()).await).await
}

/// The last day of a window, and when it changed last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowInfo {
    pub to: NaiveDate,
    /// Greater with each change.
    pub updated_at: Timestamp,
}

/// The info of the window of `days` days; none when Redis does not hold it.
pub async fn window_info(redis: &Redis, days: u8) -> Result<Option<WindowInfo>> {
    let key = redis.keys.sales_window_info(days);
    let (to, updated_at): (Option<String>, Option<i64>) =
        redis.run(&key, async |client| client.hmget(&key, vec!["to", "at"]).await).await?;
    let (Some(to), Some(updated_at)) = (to, updated_at) else { return Ok(None) };
    Ok(Some(WindowInfo { to: to.parse().map_err(Error::internal)?, updated_at: from_millis(updated_at) }))
}

/// The first `limit` products of the window of `days` days, and their units.
pub async fn window(redis: &Redis, days: u8, limit: u32) -> Result<Vec<(ProductId, i64)>> {
    let key = redis.keys.sales_window(days);
    // Units are negative in a window, so the ascending order begins with the best seller.
    let range = async |client: Client| client.zrange(&key, 0, i64::from(limit) - 1, None, false, None, true).await;
    let members: Vec<(String, f64)> = redis.run(&key, range).await?;
    let read = |(member, score): (String, f64)| {
        Ok((product_of_member(&member).ok_or_else(|| invalid(&member))?, -units(score)))
    };
    members.into_iter().map(read).collect()
}

/// The rank of a product in the window of `days` days, from 1, and its units; none when it sold nothing.
pub async fn window_rank(redis: &Redis, days: u8, product: ProductId) -> Result<Option<(u64, i64)>> {
    let (key, member) = (redis.keys.sales_window(days), sales_member(product));
    let rank: Option<u64> = redis.run(&key, async |client| client.zrank(&key, &member, false).await).await?;
    let score: Option<f64> = redis.run(&key, async |client| client.zscore(&key, &member).await).await?;
    Ok(rank.zip(score).map(|(rank, score)| (rank + 1, -units(score))))
}

fn invalid(member: &dyn std::fmt::Debug) -> Error {
    Error::internal(format!("a sorted set of sales has an invalid member: {member:?}"))
}

/// A score of Redis is a double, exact up to 2^53: far more than a week of sales.
#[expect(clippy::cast_precision_loss, reason = "exact up to 2^53")]
const fn score(units: i64) -> f64 {
    units as f64
}

#[expect(clippy::cast_possible_truncation, reason = "exact up to 2^53")]
const fn units(score: f64) -> i64 {
    score as i64
}
