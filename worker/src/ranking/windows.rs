use chrono_tz::Tz;
use dibs_common::{
    clock::Timestamp,
    domain::ranking::{Scores, WINDOWS, add, business_day, last_days},
    error::Result,
    identifiers::new_uuid,
    redis::{Redis, sales, scripts::sales_window},
};

/// Rebuilds the windows that the API reads: the sales of the last 1, 3 and 7 business days up to `now`. Returns how
/// many products sold in the longest; none when Redis does not know up to where it has counted, and nothing was
/// rebuilt.
///
/// The sums are calculated here, a page at a time: Redis would serve no other client for six seconds while it sums
/// seven days of a million products, and coupon campaigns open on the hour, when this runs.
pub async fn warm(redis: &Redis, zone: Tz, now: Timestamp) -> Result<Option<usize>> {
    if sales::applied(redis).await?.is_none() {
        return Ok(None);
    }
    let (today, rebuild) = (business_day(now, zone), new_uuid());
    let mut sold = Scores::new();
    let mut days_added = 0;
    for window in WINDOWS {
        // Each window contains the shorter one, so every day is read once.
        for day in last_days(today, u64::from(window)).skip(days_added) {
            for (product, units) in sales::daily(redis, day).await? {
                add(&mut sold, product, units);
            }
        }
        days_added = usize::from(window);
        let staged = redis.keys.staged(&redis.keys.sales_window(window), rebuild);
        // Negative, so that the ascending order of Redis puts the best first, and of two that sold the same the lower
        // id.
        sales::write_staged(redis, &staged, &sold, -1).await?;
        // A rename at the end: readers see the old window or the new one, never a part.
        if !sales_window(redis, window, rebuild, today, now).await? {
            return Ok(None);
        }
    }
    Ok(Some(sold.len()))
}
