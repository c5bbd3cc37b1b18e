//! Settings of `dibs-worker`.

use std::net::SocketAddr;

use chrono::TimeDelta;
use clap::{Args, Parser, Subcommand};
use dibs_common::{
    config::{Settings, masked},
    domain::order::OrderRules,
    identifiers::CouponId,
};

/// Carries out what the API has accepted: confirms claims, and keeps Redis and the database in step.
///
/// Settings come from the environment (a `.env` of the working folder is read first) or from flags. Any number of
/// workers may run; they share the work, and take over from one that dies.
#[derive(Clone, Debug, Parser)]
#[command(name = "dibs-worker", version)]
pub struct WorkerSettings {
    /// Settings that API and worker share.
    #[command(flatten)]
    pub shared: Settings,
    /// Where health and metrics are answered
    #[arg(long, env, default_value = "127.0.0.1:8081")]
    pub worker_address: SocketAddr,
    /// How long an order may stay unpaid, in seconds, 1 to 2592000 (30 days)
    #[arg(long, env, default_value_t = 1_800, value_parser = clap::value_parser!(u32).range(1..=2_592_000))]
    pub order_expiry_seconds: u32,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What the worker is asked to do.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Work until told to stop
    Run,
    /// Bring the tables up to date; safe to run at any time, on several machines at once
    Migrate,
    /// Add a demo campaign and products when the database has none; prints the id of an open campaign
    Seed,
    /// Make a campaign in Redis again from the database; it takes no claims until that is done
    Rebuild(Rebuild),
    /// Ask the worker at `WORKER_ADDRESS` whether it is ready; ends with 0 when it is
    Health,
}

/// Which campaign to rebuild.
#[derive(Clone, Copy, Debug, Args)]
pub struct Rebuild {
    /// The campaign's id
    #[arg(value_parser = coupon_id)]
    pub coupon: CouponId,
}

fn coupon_id(text: &str) -> Result<CouponId, String> {
    text.parse::<u64>().map_err(|error| error.to_string()).and_then(CouponId::try_from)
}

impl WorkerSettings {
    /// The rules of orders, as set.
    pub fn order_rules(&self) -> OrderRules {
        OrderRules {
            expiry: TimeDelta::seconds(i64::from(self.order_expiry_seconds)),
            holding_cap: self.shared.points_holding_cap,
        }
    }

    /// Logs the settings, secrets masked.
    pub fn log(&self) {
        tracing::info!(
            database_url = masked(&self.shared.database_url),
            redis_url = masked(&self.shared.redis_url),
            redis_key_prefix = self.shared.redis_key_prefix,
            claim_partitions = self.shared.claim_partitions,
            time_zone = %self.shared.time_zone,
            points_charge_minimum = self.shared.points_charge_minimum,
            points_holding_cap = self.shared.points_holding_cap,
            payment_gateway_url = self.shared.payment_gateway_in_words(),
            worker_address = %self.worker_address,
            order_expiry_seconds = self.order_expiry_seconds,
            "settings"
        );
    }
}
