use std::{collections::BTreeSet, time::Duration};

use chrono::NaiveDate;
use chrono_tz::Tz;
use dibs_common::{
    clock::Timestamp,
    db::{self, Database},
    domain::ranking::last_days,
    error::Result,
};

/// How long one day may take.
const PATIENCE: Duration = Duration::from_mins(5);

/// Writes what sold on `day` into `product_daily_sales`, and the three days up to it into `best_sellers`, each in the
/// place of what was there. Written anew with it are the two days before, and every earlier day of which orders were
/// cancelled from `since` on: an order that is cancelled later counts no more on the day on which it was paid. Returns
/// what it did, in words.
pub async fn persist_daily_sales(database: &Database, day: NaiveDate, zone: Tz, since: Timestamp) -> Result<String> {
    let pool = &database.pool();
    let touched = db::sales::list_days_cancelled_since(pool, day, since, zone);
    let touched = db::within_limit(PATIENCE, touched).await?;
    let days: BTreeSet<NaiveDate> = last_days(day, 3).chain(touched).collect();
    let mut products = 0;
    for written in &days {
        let sold = db::retrying("persist_day", || db::sales::persist_day(database, *written, zone)).await?;
        products = if *written == day { sold } else { products };
    }
    let best = db::retrying("persist_best_sellers", || db::sales::persist_best_sellers(database, day)).await?;
    Ok(format!("{products} products sold; {} days written, {best} best sellers", days.len()))
}
