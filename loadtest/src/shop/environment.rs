//! What goes on in the shop beside its users: shelves are filled again, the worker is killed, the time passes.

use std::time::Duration;

use anyhow::Result;
use dibs_common::identifiers::{CouponId, ProductId};
use indicatif::ProgressBar;
use serde_json::json;
use tokio::time::{Instant, sleep, sleep_until};

use super::state::ShopState;
use crate::{api::Api, processes::OwnStack};

/// Products with less than this are restocked.
const LOW: i64 = 300;
const RESTOCK: i64 = 1_000;
const RESTOCK_EVERY: Duration = Duration::from_secs(2);

/// Makes so many products, and campaigns with every kind of discount; one of these is soon sold out.
pub async fn open(api: &Api, products: u32, users: u32) -> Result<(Vec<ProductId>, Vec<CouponId>)> {
    let mut made = Vec::new();
    for number in 1..=products {
        let price = 1_000 * i64::from(1 + number * 7 % 15);
        let body = json!({"name": format!("Shop {number}"), "price": price, "stock": RESTOCK});
        made.push(api.create_product(&body).await?);
    }
    let campaigns = [
        (json!({"type": "FIXED", "value": 1_000}), 0, users * 20),
        (json!({"type": "FIXED", "value": 5_000}), 20_000, users / 2),
        (json!({"type": "PERCENT", "value": 10, "maxAmount": 3_000}), 10_000, users * 20),
        // Nothing is left to pay.
        (json!({"type": "PERCENT", "value": 100}), 0, users * 2),
    ];
    let mut open = Vec::new();
    for (discount, minimum, quantity) in campaigns {
        let terms = json!({"discount": discount, "minimumOrderAmount": minimum, "perUserLimit": 20});
        open.push(api.open_campaign_of("shop", quantity.max(1), &terms).await?);
    }
    Ok((made, open))
}

/// Fills the shelves again, until the market closes.
pub async fn restock(api: &Api, market: &ShopState) -> Result<()> {
    while Instant::now() + RESTOCK_EVERY < market.end {
        sleep(RESTOCK_EVERY).await;
        for product in &market.products {
            if api.stock(*product).await? < LOW {
                api.restock(*product, RESTOCK).await?;
            }
        }
    }
    Ok(())
}

/// SIGKILL to the worker every so often until the market closes, each time with another one after it; how often.
pub async fn kill_worker(stack: &mut OwnStack, every: Duration, end: Instant) -> Result<u64> {
    let mut kills = 0;
    let mut next = Instant::now() + every;
    while next < end {
        sleep_until(next).await;
        stack.kill_and_restart_worker().await?;
        stack.until_worker_recovered().await?;
        kills += 1;
        next += every;
    }
    Ok(kills)
}

/// Shows the time pass.
pub async fn show_time(progress: &ProgressBar, end: Instant) -> Result<()> {
    while Instant::now() < end {
        sleep(Duration::from_secs(1)).await;
        progress.inc(1);
    }
    Ok(())
}
