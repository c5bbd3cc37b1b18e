use chrono_tz::Tz;
use dibs_common::{
    clock::Timestamp,
    domain::ranking::{Scores, WINDOWS, add, business_day, last_days},
    error::Result,
    identifiers::new_uuid,
    redis::{Redis, sales, scripts::sales_window},
};

/// Makes the windows anew that readers look at: what sold in the last 1, 3 and 7 business days up to `now`. Returns how
/// many products sold in the longest; none when Redis does not know what it has counted, and nothing was made.
///
/// Added up here, a page at a time: Redis itself would serve nobody for six seconds while it adds up seven days of a
/// million products, and coupons open on the hour, as this is done.
pub async fn warm(redis: &Redis, zone: Tz, now: Timestamp) -> Result<Option<usize>> {
    if sales::applied(redis).await?.is_none() {
        return Ok(None);
    }
    let (today, making) = (business_day(now, zone), new_uuid());
    let mut sold = Scores::new();
    let mut added = 0;
    for window in WINDOWS {
        for day in last_days(today, u64::from(window)).skip(added) {
            for (product, units) in sales::daily(redis, day).await? {
                add(&mut sold, product, units);
            }
        }
        added = usize::from(window);
        let staged = redis.keys.staged(&redis.keys.sales_window(window), making);
        sales::write_staged(redis, &staged, &sold, -1).await?;
        if !sales_window(redis, window, making, today, now).await? {
            return Ok(None);
        }
    }
    Ok(Some(sold.len()))
}
