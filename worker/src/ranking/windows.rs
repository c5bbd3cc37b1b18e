use chrono_tz::Tz;
use dibs_common::{
    clock::Timestamp,
    domain::ranking::{WINDOWS, business_day},
    error::Result,
    redis::Redis,
    scripts::sales_union,
};

/// Makes the windows anew that readers look at: what sold in the last 1, 3 and 7 business days up to `now`. Answers how
/// many products sold in the longest; none when Redis does not know what it has counted, and nothing was made.
pub async fn warm(redis: &Redis, zone: Tz, now: Timestamp) -> Result<Option<u64>> {
    let today = business_day(now, zone);
    let mut products = None;
    for days in WINDOWS {
        products = sales_union(redis, days, today, now).await?;
    }
    Ok(products)
}
