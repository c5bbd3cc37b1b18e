//! What Redis holds of sales: read here, written by scripts. A rebuild alone writes past them: it stages days where
//! nobody looks until a script puts them in place, and makes Redis forget how far it has counted.

use chrono::NaiveDate;
use fred::{
    interfaces::{HashesInterface as _, KeysInterface as _, SortedSetsInterface as _},
    types::scan::Scanner as _,
};
use futures::TryStreamExt as _;
use uuid::Uuid;

use crate::{
    clock::{Timestamp, from_millis},
    domain::ranking::Scores,
    error::{Error, Result},
    identifiers::ProductId,
    redis::{
        Redis,
        keys::{product_of_member, sales_member},
        redis_error,
    },
};

/// How many products are read or written at once: about a millisecond of Redis.
const PAGE: u32 = 1_000;
/// For how long what is staged outlives a rebuild that never ends, in seconds.
const STAGED_FOR: i64 = 3 * 3_600;

/// Up to which event sales are counted; none when Redis does not know.
pub async fn applied(redis: &Redis) -> Result<Option<u64>> {
    redis.client().get(redis.keys.sales_applied()).await.map_err(redis_error)
}

/// Whether sales are counted from Kafka since the days were last made anew.
pub async fn is_counted_from_kafka(redis: &Redis) -> Result<bool> {
    redis.client().exists(redis.keys.sales_counted()).await.map_err(redis_error)
}

/// Lets Redis forget up to which event sales are counted, so that the worker who counts makes the days anew.
pub async fn forget(redis: &Redis) -> Result<()> {
    redis.client().del::<(), _>(redis.keys.sales_applied()).await.map_err(redis_error)
}

/// The scores of a business day. Read in steps, so that Redis serves others in between: one that changes meanwhile may
/// be as before or after.
pub async fn daily(redis: &Redis, day: NaiveDate) -> Result<Scores> {
    let mut pages = Box::pin(redis.client().zscan(redis.keys.daily_sales(day), "*", Some(PAGE)));
    let mut scores = Scores::new();
    while let Some(mut page) = pages.try_next().await.map_err(redis_error)? {
        for (member, units) in page.take_results().unwrap_or_default() {
            let product = member.as_str().as_deref().and_then(product_of_member);
            scores.insert(product.ok_or_else(|| strange(&member))?, whole(units));
        }
        page.next();
    }
    Ok(scores)
}

/// Makes a sorted set anew at [`crate::redis::keys::Keys::staged`]: products and their units, times `weight`. A page at a time, so
/// that Redis serves others in between. It vanishes after three hours if whoever makes it never ends.
pub async fn stage(redis: &Redis, staged: &str, scores: &Scores, weight: i64) -> Result<()> {
    let client = redis.client();
    let mut rest = scores.iter();
    loop {
        let page = rest.by_ref().take(PAGE as usize);
        let page: Vec<(f64, String)> =
            page.map(|(product, units)| (score(weight * units), sales_member(*product))).collect();
        if page.is_empty() {
            return Ok(());
        }
        client.zadd::<(), _, _>(staged, None, None, false, false, page).await.map_err(redis_error)?;
        client.expire::<(), _>(staged, STAGED_FOR, None).await.map_err(redis_error)?;
    }
}

/// Removes what was staged of days or windows that will not be put in place.
pub async fn unstage(redis: &Redis, keys: impl Iterator<Item = String> + Send, making: Uuid) -> Result<()> {
    let staged: Vec<String> = keys.map(|key| redis.keys.staged(&key, making)).collect();
    redis.client().unlink::<(), _>(staged).await.map_err(redis_error)
}

/// Of which days a window is, and when it was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Made {
    /// Its last day.
    pub to: NaiveDate,
    /// When it was made.
    pub at: Timestamp,
}

/// When the window of `days` days was made; none when Redis does not hold it.
pub async fn window_made(redis: &Redis, days: u8) -> Result<Option<Made>> {
    let key = redis.keys.sales_window_made(days);
    let (to, at): (Option<String>, Option<i64>) =
        redis.client().hmget(key, vec!["to", "at"]).await.map_err(redis_error)?;
    let (Some(to), Some(at)) = (to, at) else { return Ok(None) };
    Ok(Some(Made { to: to.parse().map_err(Error::internal)?, at: from_millis(at) }))
}

/// The first `longest` products of the window of `days` days, and their units.
pub async fn window(redis: &Redis, days: u8, longest: u32) -> Result<Vec<(ProductId, i64)>> {
    let key = redis.keys.sales_window(days);
    let range = redis.client().zrange(key, 0, i64::from(longest) - 1, None, false, None, true);
    let members: Vec<(String, f64)> = range.await.map_err(redis_error)?;
    let read = |(member, units): (String, f64)| {
        Ok((product_of_member(&member).ok_or_else(|| strange(&member))?, -whole(units)))
    };
    members.into_iter().map(read).collect()
}

/// The rank of a product in the window of `days` days, and its units; none when it sold nothing.
pub async fn window_place(redis: &Redis, days: u8, product: ProductId) -> Result<Option<(u64, i64)>> {
    let (key, member) = (redis.keys.sales_window(days), sales_member(product));
    let client = redis.client();
    let rank: Option<u64> = client.zrank(&key, &member, false).await.map_err(redis_error)?;
    let units: Option<f64> = client.zscore(&key, &member).await.map_err(redis_error)?;
    Ok(rank.zip(units).map(|(rank, units)| (rank + 1, -whole(units))))
}

fn strange(member: &dyn std::fmt::Debug) -> Error {
    Error::internal(format!("a sorted set of sales has a member that is no product: {member:?}"))
}

/// Redis counts in floating point, which is exact far beyond what can be sold in a week.
#[expect(clippy::cast_precision_loss, reason = "exact up to 2^53")]
const fn score(units: i64) -> f64 {
    units as f64
}

#[expect(clippy::cast_possible_truncation, reason = "exact up to 2^53")]
const fn whole(score: f64) -> i64 {
    score as i64
}
