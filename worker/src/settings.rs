//! Settings of `dibs-worker`.

use std::net::SocketAddr;

use chrono::{NaiveDate, TimeDelta};
use clap::{Args, Parser, Subcommand, ValueEnum as _};
use clap_complete::Shell;
use dibs_common::{
    config::{ListenerSettings, SecretFiles, Settings},
    db::processes::SharedSettings,
    domain::{admin_action::MAX_REASON_LENGTH, dead_letter::DeadLetterStatus, order::OrderRules},
    identifiers::{CouponId, DeadLetterId},
};

use crate::{jobs::Job, kafka::KafkaSettings, keys::KeysCommand, webhooks::WebhookSettings};

pub const DEFAULT_DRIFT_CLAIMS_PER_SECOND: u32 = 25_000;
/// How long a command waits for a lease.
const WAIT_SECONDS: u64 = 60;

/// Processes what the API has accepted: confirms claims, executes commands, and delivers events.
///
/// Settings come from the environment (a `.env` of the working directory is read first) or from flags. Any number of
/// workers may run: they share the work, and reclaim that of one that dies.
#[derive(Clone, Debug, Parser)]
#[command(name = "dibs-worker", version)]
pub struct WorkerSettings {
    #[command(flatten)]
    pub shared: Settings,
    /// Where health and metrics are answered
    #[arg(long, env, default_value = "127.0.0.1:8081")]
    pub worker_address: SocketAddr,
    #[command(flatten)]
    pub listener: ListenerSettings,
    /// How long an order may stay unpaid, in seconds, 1 to 2592000 (30 days)
    #[arg(long, env, default_value_t = 1_800, value_parser = clap::value_parser!(u32).range(1..=2_592_000))]
    pub order_expiry_seconds: u32,
    /// How many unpaid orders a user may have at once, 0 to 1000000; 0 is no limit
    #[arg(long, env, default_value_t = OrderRules::DEFAULT.unpaid_orders_limit,
        value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub unpaid_orders_limit: u32,
    /// How many units of one product a user's unpaid orders may hold, 0 to 1000000; 0 is no limit
    #[arg(long, env, default_value_t = OrderRules::DEFAULT.unpaid_units_limit,
        value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub unpaid_units_limit: u32,
    /// How many claims a second the drift check compares, 1000 to 10000000
    #[arg(
        long,
        env,
        default_value_t = DEFAULT_DRIFT_CLAIMS_PER_SECOND,
        value_parser = clap::value_parser!(u32).range(1_000..=10_000_000)
    )]
    pub drift_claims_per_second: u32,
    #[command(flatten)]
    pub retention: Retention,
    #[command(flatten)]
    pub webhooks: WebhookSettings,
    #[command(flatten)]
    pub kafka: KafkaSettings,
    /// Those that came from files.
    #[arg(skip)]
    pub secret_files: SecretFiles,
    #[command(subcommand)]
    pub command: Command,
}

/// How long what is over is kept.
#[derive(Clone, Copy, Debug, Args)]
pub struct Retention {
    /// How many days refused claims are kept for the timelines of users, 1 to 365
    #[arg(long, env, default_value_t = Self::DEFAULT.claim_attempts_days,
        value_parser = clap::value_parser!(u16).range(1..=365))]
    pub claim_attempts_days: u16,
    /// How many days an ended campaign stays in Redis, 1 to 365; then its claims are answered from the database
    #[arg(long, env, default_value_t = Self::DEFAULT.ended_campaign_days,
        value_parser = clap::value_parser!(u16).range(1..=365))]
    pub ended_campaign_days: u16,
}

impl Retention {
    pub const DEFAULT: Self = Self { claim_attempts_days: 7, ended_campaign_days: 7 };

    pub(crate) fn claim_attempts(self) -> TimeDelta {
        TimeDelta::days(self.claim_attempts_days.into())
    }

    pub(crate) fn ended_campaigns(self) -> TimeDelta {
        TimeDelta::days(self.ended_campaign_days.into())
    }
}

#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Work until SIGTERM or Ctrl-C
    Run,
    /// Migrate the database; safe to run at any time, on several machines at once
    Migrate,
    /// Add a demo campaign and products when the database has none; prints the id of an open campaign
    Seed,
    /// Compare a campaign in Redis with the database: terms, counts, and every claim
    #[command(after_help = DIFFERENCES)]
    Audit(Audit),
    /// Compare every campaign that is open, or ended within the last hour, with the database
    #[command(after_help = DIFFERENCES)]
    Drift(DriftOptions),
    /// Rebuild a campaign in Redis from the database, which accepts no claims meanwhile; or the ranking
    Rebuild(Rebuild),
    /// Begin an epoch after the database was restored to an earlier state; before the workers start
    Restored,
    /// Run a job now, whether it is due or not
    Job(JobRun),
    /// List dead letters, the newest first; or redrive one
    DeadLetters(DeadLetters),
    /// Create, list and revoke API keys
    #[command(subcommand)]
    Keys(KeysCommand),
    /// Look for what is wrong around the processes: servers, their settings, migrations, receivers
    #[command(after_help = "Ends with 0 when all is well, with 1 for warnings, and with 2 for errors.")]
    Doctor(Doctor),
    /// Ask the worker at `WORKER_ADDRESS` whether it is ready; ends with 0 when it is
    Health,
    /// Print the script by which a shell completes commands and settings
    Completions {
        /// The shell
        shell: Shell,
    },
}

/// What the comparing commands have in common.
const DIFFERENCES: &str = "\
Ends with 0 when nothing differs, with 3 when something does, and with 1 when it could not be compared.
Claims on their way from Redis to the database are no differences. Nothing is changed: `dibs-worker rebuild ID` makes
Redis again from the database.

Kinds: CAMPAIGN_MISSING, TERM_DIFFERS, COUNT_DIFFERS, MISSING_IN_REDIS (issued, but Redis does not know),
MISSING_IN_MYSQL (accepted, but neither issued nor on its way), RECORD_DIFFERS, UNREADABLE_IN_REDIS.";

#[derive(Clone, Copy, Debug, Args)]
pub struct Audit {
    /// The campaign
    #[arg(value_parser = coupon_id)]
    pub coupon: CouponId,
    /// At most so many differences of claims, 1 to 100000; then it ends early
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub limit: u32,
    /// Print one object of JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Clone, Copy, Debug, Args)]
pub struct Doctor {
    /// Print one object of JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Clone, Copy, Debug, Args)]
pub struct DriftOptions {
    /// Print each campaign that differs as an object of JSON on a line of its own
    #[arg(long)]
    pub json: bool,
}

#[derive(Clone, Debug, Args)]
pub struct Rebuild {
    /// A campaign's id, or 'ranking' for the sales of the last days, from the orders
    #[arg(value_parser = rebuildable)]
    pub what: Rebuildable,
    /// A business day whose rows in `product_daily_sales` are rebuilt as well; with 'ranking'
    #[arg(long)]
    pub day: Option<NaiveDate>,
    /// How long to wait while another process rebuilds it, in seconds
    #[arg(long, default_value_t = WAIT_SECONDS)]
    pub wait: u64,
    /// Why, for the list of actions: up to 500 characters; with a campaign
    #[arg(long, value_parser = reason)]
    pub reason: Option<String>,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rebuildable {
    Campaign(CouponId),
    Ranking,
}

#[derive(Clone, Copy, Debug, Args)]
pub struct JobRun {
    /// The job to run
    pub job: Job,
    /// The business day to run it for; with persist-daily-sales
    #[arg(long)]
    pub day: Option<NaiveDate>,
    /// How long to wait while another process runs it, in seconds
    #[arg(long, default_value_t = WAIT_SECONDS)]
    pub wait: u64,
}

/// Which dead letters to list, or what to do with them.
#[derive(Clone, Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct DeadLetters {
    /// Only those of this source, such as data-platform
    #[arg(long)]
    pub source: Option<String>,
    /// Only those of this status: DEAD, REDRIVE, SENT or DROPPED
    #[arg(long, value_parser = dead_letter_status)]
    pub status: Option<DeadLetterStatus>,
    /// At most so many, 1 to 1000
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub limit: u32,
    /// Print each as an object of JSON on a line of its own, with its whole payload
    #[arg(long)]
    pub json: bool,
    /// What to do with them; they are listed when it is left out.
    #[command(subcommand)]
    pub action: Option<DeadLetterAction>,
}

/// What to do with dead letters.
#[derive(Clone, Debug, Subcommand)]
pub enum DeadLetterAction {
    /// Request that one, or all of a source, be processed again; the worker that serves the source does so
    Redrive(Selection),
    /// Drop one, or all of a source; their claims without an outcome are rejected
    Drop(Selection),
}

/// Which letters: one of both.
#[derive(Clone, Debug, Args)]
pub struct Selection {
    /// The id of one
    #[arg(value_parser = dead_letter_id, required_unless_present = "source", conflicts_with = "source")]
    pub id: Option<DeadLetterId>,
    /// All of this source, such as data-platform
    #[arg(long)]
    pub source: Option<String>,
    /// Why, for the list of actions: up to 500 characters
    #[arg(long, value_parser = reason)]
    pub reason: Option<String>,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

fn reason(text: &str) -> Result<String, String> {
    let length = text.chars().count();
    if (1..=MAX_REASON_LENGTH).contains(&length) {
        Ok(text.to_owned())
    } else {
        Err(format!("expected 1 to {MAX_REASON_LENGTH} characters, got {length}"))
    }
}

fn dead_letter_status(text: &str) -> Result<DeadLetterStatus, String> {
    text.parse().map_err(|_| "expected DEAD, REDRIVE, SENT or DROPPED".into())
}

fn dead_letter_id(text: &str) -> Result<DeadLetterId, String> {
    let id = text.parse::<u64>().map_err(|error| format!("expected the id of a dead letter: {error}"))?;
    DeadLetterId::try_from(id)
}

fn coupon_id(text: &str) -> Result<CouponId, String> {
    let id = text.parse::<u64>().map_err(|error| format!("expected a campaign's id: {error}"))?;
    CouponId::try_from(id)
}

fn rebuildable(text: &str) -> Result<Rebuildable, String> {
    if text == "ranking" {
        return Ok(Rebuildable::Ranking);
    }
    let id = text.parse::<u64>().map_err(|error| format!("expected a campaign's id or 'ranking': {error}"))?;
    CouponId::try_from(id).map(Rebuildable::Campaign)
}

impl WorkerSettings {
    /// The values that must be the same for all workers, by name.
    pub fn shared_by_workers(&self) -> SharedSettings {
        let source = self.kafka.ranking_source.to_possible_value();
        let source = source.map(|value| value.get_name().to_owned()).unwrap_or_default();
        [("RANKING_SOURCE".to_owned(), source)].into()
    }

    pub fn order_rules(&self) -> OrderRules {
        OrderRules {
            expiry: TimeDelta::seconds(i64::from(self.order_expiry_seconds)),
            holding_cap: self.shared.points_holding_cap,
            time_zone: self.shared.time_zone,
            unpaid_orders_limit: self.unpaid_orders_limit,
            unpaid_units_limit: self.unpaid_units_limit,
        }
    }
}
