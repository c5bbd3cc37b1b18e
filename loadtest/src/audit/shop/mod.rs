//! The audit of the shop: products, points, orders, payments, events and keys, in the tables; its streams in Redis;
//! and what a client was answered.
//!
//! What the tables must say is a list of rules, a statement each. They are about all orders at once, so none asks for
//! rows one by one, nor for what has no index.

mod delivered;
mod keys;
mod lives;
mod money;
mod points;
mod rest;
mod rule;
mod sales;
mod stock;
mod told;

use std::time::Duration;

use anyhow::Result;
use chrono_tz::Tz;
use clap::Args;
pub use delivered::last_sequence;
use rule::Rule;

use super::Findings;
use crate::{
    record::{Deliveries, ShopRecord},
    stores::Stores,
    waiting,
};

/// What a shop has set that the audit must know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Args)]
pub struct ShopSettings {
    /// The most points that a user may hold
    #[arg(long, env, default_value_t = 10_000_000)]
    pub points_holding_cap: i64,
    /// Where a business day begins and ends
    #[arg(long, env, default_value = "Asia/Seoul")]
    pub time_zone: Tz,
}

/// Who says what happened, beside the tables and Redis.
#[derive(Clone, Copy, Debug, Default)]
pub struct Witnesses<'w> {
    /// What a client was answered.
    pub client: Option<&'w ShopRecord>,
    /// What receivers of webhooks were told.
    pub deliveries: Option<&'w Deliveries>,
}

/// Waits until no command is on a stream and every sink was told everything, at most `limit`, then audits the shop.
/// What is left by then is a difference.
pub async fn audit_shop_at_rest(
    stores: &Stores,
    limit: Duration,
    settings: ShopSettings,
    witnesses: Witnesses<'_>,
) -> Result<Findings> {
    until_at_rest(stores, limit).await;
    audit_shop(stores, settings, witnesses).await
}

/// Waits until no command is on a stream and every sink was told everything, at most `limit`.
pub async fn until_at_rest(stores: &Stores, limit: Duration) {
    // Whether it came to rest is one of the checks.
    let _ = waiting::until("the end of commands and events", limit, Duration::from_millis(100), async || {
        Ok(stores.commands_left().await?.is_nothing() && delivered::all_told(stores.database.pool()).await?)
    })
    .await;
}

/// Audits the shop, with what others say.
pub async fn audit_shop(stores: &Stores, settings: ShopSettings, witnesses: Witnesses<'_>) -> Result<Findings> {
    let pool = stores.database.pool();
    let mut checks = Vec::new();
    for rule in rules() {
        checks.push(rule.check(pool, settings.points_holding_cap).await?);
    }
    checks.push(sales::days_in_redis(stores, settings.time_zone).await?);
    checks.push(sales::stored_days(stores, settings.time_zone).await?);
    checks.push(rest::streams(stores).await?);
    if let Some(deliveries) = witnesses.deliveries {
        checks.extend(delivered::recorded(pool, deliveries).await?);
    }
    if let Some(record) = witnesses.client {
        checks.push(told::answers(record));
        checks.push(told::repeats(record));
        checks.push(told::outcomes(pool, record).await?);
    }
    Ok(Findings { subject: "the shop".to_owned(), checks })
}

fn rules() -> impl Iterator<Item = Rule> {
    stock::RULES
        .into_iter()
        .chain(points::RULES)
        .chain(money::RULES)
        .chain(lives::RULES)
        .chain(keys::RULES)
        .chain(delivered::RULES)
}
