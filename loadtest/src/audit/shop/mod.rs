//! The audit of the shop: products, points, orders, payments, events and idempotency keys in MySQL, its streams in
//! Redis, and the record of a client.
//!
//! The conditions on the tables are a list of rules, one statement each. Each reads all rows in one pass instead of a
//! row at a time.

mod client;
mod deliveries;
mod drained;
mod idempotency;
mod payments;
mod points;
mod rule;
mod sales;
mod states;
mod stock;

use std::time::Duration;

use anyhow::Result;
use chrono_tz::Tz;
use clap::Args;
pub use deliveries::last_sequence;
use rule::Rule;

use super::AuditReport;
use crate::{
    record::{Deliveries, ShopRecord},
    stores::Stores,
    wait,
};

/// Settings of the stack that the audit depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Args)]
pub struct ShopSettings {
    /// `POINTS_HOLDING_CAP` of the stack
    #[arg(long, env, default_value_t = 10_000_000)]
    pub points_holding_cap: i64,
    /// `TIME_ZONE` of the stack, which determines the business day
    #[arg(long, env, default_value = "Asia/Seoul")]
    pub time_zone: Tz,
}

impl Default for ShopSettings {
    /// Of a stack whose settings are the default ones.
    fn default() -> Self {
        Self { points_holding_cap: 10_000_000, time_zone: chrono_tz::Asia::Seoul }
    }
}

/// The records of a run, beside MySQL and Redis.
#[derive(Clone, Copy, Debug, Default)]
pub struct Evidence<'r> {
    /// The responses to the users.
    pub client: Option<&'r ShopRecord>,
    /// The deliveries to the webhook receivers.
    pub deliveries: Option<&'r Deliveries>,
}

/// Waits until the order streams are drained and every event is delivered, at most `timeout`, then audits the shop.
pub async fn audit_shop_drained(
    stores: &Stores,
    timeout: Duration,
    settings: ShopSettings,
    evidence: Evidence<'_>,
) -> Result<AuditReport> {
    until_drained(stores, timeout).await;
    audit_shop(stores, settings, evidence).await
}

/// Waits until the order streams are drained and every event is delivered, at most `timeout`.
pub async fn until_drained(stores: &Stores, timeout: Duration) {
    // A timeout is no error: the audit reports what is left.
    let _timed_out = wait::until("all commands and events", timeout, Duration::from_millis(100), async || {
        // Commands first: each writes events.
        Ok(stores.commands_left().await?.is_drained() && deliveries::all_delivered(&stores.database.pool()).await?)
    })
    .await;
}

/// Audits the shop, and compares it with the records.
pub async fn audit_shop(stores: &Stores, settings: ShopSettings, evidence: Evidence<'_>) -> Result<AuditReport> {
    let pool = &stores.database.pool();
    let mut checks = Vec::new();
    // One connection and one rule at a time: the audit must not load the server more than the stack does.
    for rule in rules() {
        checks.push(rule.check(pool, settings.points_holding_cap).await?);
    }
    checks.push(sales::days_in_redis(stores, settings.time_zone).await?);
    checks.push(sales::windows_in_redis(stores).await?);
    checks.push(sales::stored_days(stores, settings.time_zone).await?);
    checks.push(drained::streams(stores).await?);
    if let Some(recorded) = evidence.deliveries {
        checks.extend(deliveries::recorded(pool, recorded).await?);
    }
    if let Some(record) = evidence.client {
        checks.push(client::responses(record));
        checks.push(client::duplicates(record));
        checks.push(client::outcomes(pool, record).await?);
    }
    Ok(AuditReport { subject: "the shop".to_owned(), checks })
}

fn rules() -> impl Iterator<Item = Rule> {
    stock::RULES
        .into_iter()
        .chain(points::RULES)
        .chain(payments::RULES)
        .chain(states::RULES)
        .chain(idempotency::RULES)
        .chain(deliveries::RULES)
}
