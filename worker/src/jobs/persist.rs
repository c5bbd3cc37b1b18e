use std::{collections::BTreeSet, time::Duration};

use chrono::NaiveDate;
use chrono_tz::Tz;
use dibs_common::{
    clock::Timestamp,
    db::{self, Database},
    domain::ranking::last_days,
    error::Result,
};

/// How long it may take to find the days with cancelled orders.
const DAYS_TIMEOUT: Duration = Duration::from_mins(5);

/// Orders of one statement, which holds their locks.
const STORED_DAYS_BATCH: u32 = 1_000;

/// Stores the day of the sale with orders that were paid by a version which did not. Returns their number.
pub async fn store_missing_days(database: &Database, zone: Tz) -> Result<u64> {
    let mut stored = 0;
    loop {
        let pool = &database.pool();
        match db::retrying("store_days", || db::sales::store_days(pool, zone, STORED_DAYS_BATCH)).await? {
            0 => return Ok(stored),
            some => stored += some,
        }
    }
}

/// Writes the sales of `day` into `product_daily_sales`, and those of the three days up to it into `best_sellers`, each
/// in place of what was there. It rewrites the two days before, and every earlier day with orders that were cancelled
/// from `since` on: a cancelled order no longer counts on the day of its sale. Returns a description of what it did.
pub async fn persist_daily_sales(database: &Database, day: NaiveDate, zone: Tz, since: Timestamp) -> Result<String> {
    let pool = &database.pool();
    let touched = db::sales::list_days_cancelled_since(pool, day, since, zone);
    let touched = db::within_limit(DAYS_TIMEOUT, touched).await?;
    let days: BTreeSet<NaiveDate> = last_days(day, 3).chain(touched).collect();
    let mut products = 0;
    // One transaction for each day: a retry after contention repeats one day, not all of them.
    for written in &days {
        let sold = db::retrying("persist_day", || db::sales::persist_day(database, *written, zone)).await?;
        products = if *written == day { sold } else { products };
    }
    let best = db::retrying("persist_best_sellers", || db::sales::persist_best_sellers(database, day)).await?;
    Ok(format!("{products} products sold; {} days written, {best} best sellers", days.len()))
}
