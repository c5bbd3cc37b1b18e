//! What runs next to the users of a shop: products are restocked, progress is shown.

use std::time::Duration;

use anyhow::Result;
use dibs_common::identifiers::{CouponId, ProductId};
use indicatif::ProgressBar;
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::state::ShopState;
use crate::{api::Api, faults::Load};

/// A product with less stock is restocked.
const RESTOCK_THRESHOLD: i64 = 300;
const RESTOCK_UNITS: i64 = 1_000;
const RESTOCK_INTERVAL: Duration = Duration::from_secs(2);

/// Creates the products, and a campaign of every kind of discount; one of these is soon sold out.
pub async fn open(api: &Api, products: u32, users: u32) -> Result<(Vec<ProductId>, Vec<CouponId>)> {
    let mut created = Vec::new();
    for number in 1..=products {
        // Prices between 1,000 and 15,000 won, so that minimum amounts of campaigns matter.
        let price = 1_000 * i64::from(1 + number * 7 % 15);
        let body = json!({"name": format!("Shop {number}"), "price": price, "stock": RESTOCK_UNITS});
        created.push(api.create_product(&body).await?);
    }
    let campaigns = [
        (json!({"type": "FIXED", "value": 1_000}), 0, users * 20),
        // Sold out after a coupon for every second user.
        (json!({"type": "FIXED", "value": 5_000}), 20_000, users / 2),
        (json!({"type": "PERCENT", "value": 10, "maxAmount": 3_000}), 10_000, users * 20),
        // An order with it costs nothing: it is paid without a row in the ledger.
        (json!({"type": "PERCENT", "value": 100}), 0, users * 2),
    ];
    let mut open = Vec::new();
    for (discount, minimum, quantity) in campaigns {
        let terms = json!({"discount": discount, "minimumOrderAmount": minimum, "perUserLimit": 20});
        open.push(api.open_campaign_of("shop", quantity.max(1), &terms).await?);
    }
    Ok((created, open))
}

/// Restocks products until the end of the load.
pub async fn restock(api: &Api, shop: &ShopState) -> Result<()> {
    while Instant::now() + RESTOCK_INTERVAL < shop.end {
        sleep(RESTOCK_INTERVAL).await;
        match restock_once(api, shop).await {
            // The next round restocks what this one did not.
            Err(_) if shop.has_faults => {}
            restocked => restocked?,
        }
    }
    Ok(())
}

async fn restock_once(api: &Api, shop: &ShopState) -> Result<()> {
    for product in &shop.products {
        if api.stock(*product).await? < RESTOCK_THRESHOLD {
            api.restock(*product, RESTOCK_UNITS).await?;
        }
    }
    Ok(())
}

/// The milliseconds of a load, which faults are spread over.
pub struct Elapsed {
    pub began: Instant,
    pub end: Instant,
}

impl Load for Elapsed {
    fn position(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn is_over(&self) -> bool {
        Instant::now() >= self.end
    }
}

/// Advances a bar of seconds until `end`.
pub async fn show_time(progress: &ProgressBar, end: Instant) -> Result<()> {
    while Instant::now() < end {
        sleep(Duration::from_secs(1)).await;
        progress.inc(1);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn faults_are_due_by_the_milliseconds_since_the_beginning() {
        let began = Instant::now();
        let elapsed = Elapsed { began, end: began + Duration::from_secs(2) };
        sleep(Duration::from_millis(1500)).await;
        assert_eq!((elapsed.position(), elapsed.is_over()), (1500, false));
        sleep(Duration::from_millis(500)).await;
        assert!(elapsed.is_over());
    }

    #[tokio::test(start_paused = true)]
    async fn the_bar_shows_one_second_after_the_other() {
        let bar = ProgressBar::hidden();
        show_time(&bar, Instant::now() + Duration::from_secs(5)).await.expect("time passes");
        assert_eq!(bar.position(), 5);
    }
}
