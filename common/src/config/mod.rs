//! Settings that all processes share. They come from the environment, or from flags of the same names.

mod listener;
mod secret_files;
mod shown;
mod url;

use std::{convert::Infallible, io::IsTerminal as _};

use chrono::TimeDelta;
use chrono_tz::Tz;
use clap::{Args, ValueEnum};
pub use listener::ListenerSettings;
use secrecy::{ExposeSecret, SecretString};
pub use secret_files::{SecretFiles, SecretWatch};
pub use shown::{Parsed, parse, print_completions};
use tracing_subscriber::EnvFilter;
pub use url::describe_url;
use url::{check_database_url, check_redis_url};

use crate::{
    db::Database,
    domain::{campaign::MAX_AMOUNT, points::PointRules},
    error::{Dependency, Error, Result},
    identifiers::Partition,
    integrations::payment_gateway::{PaymentGateway, payments_url},
    redis::{Redis, keys::Keys},
    traces::TraceSettings,
};

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    Auto,
    /// For people.
    Text,
    /// For machines: an object a line.
    Json,
}

/// Settings that API and worker share.
#[derive(Clone, Debug, Args)]
pub struct Settings {
    /// The database, `MySQL` 8.4 or newer, or `MariaDB` 10.11 or newer: mysql://user:password@host:port/database
    // Without one it is empty, which `check` refuses: some commands need no server.
    #[arg(long, env, value_parser = secret, hide_env_values = true, default_value = "", hide_default_value = true)]
    pub database_url: SecretString,
    /// Redis 7 or newer, or Valkey 8 or newer: redis://, rediss://, redis-cluster:// or redis-sentinel://
    #[arg(long, env, value_parser = secret, hide_env_values = true, default_value = "", hide_default_value = true)]
    pub redis_url: SecretString,
    /// What every Redis key begins with, to share a server with others
    #[arg(long, env, default_value = "", value_parser = key_prefix)]
    pub redis_key_prefix: String,
    /// Over how many hash tags new campaigns and users are spread, 1 to 1024; it can be raised, workers first
    #[arg(long, env, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub claim_partitions: u16,
    /// Where a business day begins and ends
    #[arg(long, env, default_value = "Asia/Seoul")]
    pub time_zone: Tz,
    /// By how many seconds the clock is ahead, at most a day, to rehearse a midnight; Redis, and the times of
    /// jobs, go by the machine's
    #[arg(long, env, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=86_400), hide = true)]
    pub clock_offset_seconds: u32,
    /// The smallest charge of points, in won
    #[arg(long, env, default_value_t = 10_000, value_parser = clap::value_parser!(i64).range(1..=MAX_AMOUNT))]
    pub points_charge_minimum: i64,
    /// The most points that a user may hold
    #[arg(long, env, default_value_t = 10_000_000, value_parser = clap::value_parser!(i64).range(1..=MAX_AMOUNT))]
    pub points_holding_cap: i64,
    /// The payment gateway for charges of points, http or https; without one every charge is approved
    #[arg(long, env, value_parser = secret, hide_env_values = true)]
    pub payment_gateway_url: Option<SecretString>,
    /// Threads that do the work of the process; 0 stands for all cores in `dibs-worker`, and for half in `dibs-api`
    #[arg(long, env, default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=1024))]
    pub runtime_threads: u16,
    /// How log lines look
    #[arg(long, env, value_enum, default_value = "auto")]
    pub log_format: LogFormat,
    /// What is logged: error, warn, info, debug, trace, or a filter by module
    #[arg(long = "log", env = "RUST_LOG", default_value = "info")]
    pub log: String,
    #[command(flatten)]
    pub traces: TraceSettings,
}

impl Settings {
    /// Refuses settings with which nothing can work. Not while they are parsed: a parser would print the secret.
    pub fn check(&self) -> Result<()> {
        check_database_url(self.database_url.expose_secret()).map_err(|why| Error::Setting("DATABASE_URL", why))?;
        check_redis_url(self.redis_url.expose_secret()).map_err(|why| Error::Setting("REDIS_URL", why))?;
        if self.points_charge_minimum > self.points_holding_cap {
            return Err(Error::Setting("POINTS_CHARGE_MINIMUM", "expected at most POINTS_HOLDING_CAP".into()));
        }
        if let Some(url) = self.gateway_url() {
            payments_url(url.expose_secret()).map_err(|why| Error::Setting("PAYMENT_GATEWAY_URL", why))?;
        }
        self.traces.check()?;
        EnvFilter::try_new(&self.log).map(drop).map_err(|error| Error::Setting("RUST_LOG", error.to_string()))
    }

    /// The values that must be the same for all processes, by name.
    pub fn shared_by_all(&self) -> [(String, String); 5] {
        let gateway = self.gateway_url().map(describe_url).unwrap_or_default();
        [
            ("CLAIM_PARTITIONS", self.claim_partitions.to_string()),
            ("PAYMENT_GATEWAY_URL", gateway),
            ("POINTS_HOLDING_CAP", self.points_holding_cap.to_string()),
            ("REDIS_KEY_PREFIX", self.redis_key_prefix.clone()),
            ("TIME_ZONE", self.time_zone.to_string()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
    }

    /// By how much the clock is ahead.
    pub fn clock_offset(&self) -> TimeDelta {
        TimeDelta::seconds(self.clock_offset_seconds.into())
    }

    /// What a user may charge and hold.
    pub const fn point_rules(&self) -> PointRules {
        PointRules { charge_minimum: self.points_charge_minimum, holding_cap: self.points_holding_cap }
    }

    /// The way to the payment gateway, when there is one.
    pub fn payment_gateway(&self) -> Result<Option<PaymentGateway>> {
        self.gateway_url().map(PaymentGateway::at).transpose()
    }

    /// An empty URL is none.
    fn gateway_url(&self) -> Option<&SecretString> {
        self.payment_gateway_url.as_ref().filter(|url| !url.expose_secret().trim().is_empty())
    }

    /// A pool of at most `connections` to the database.
    pub fn database(&self, connections: u32) -> Result<Database> {
        Database::new(&self.database_url, connections)
    }

    pub async fn redis(&self, connections: usize) -> Result<Redis> {
        let connected = Redis::connect(&self.redis_url, Keys::new(&*self.redis_key_prefix), connections).await;
        connected.map_err(|error| {
            Error::Setting("REDIS_URL", format!("{} cannot be used: {}", describe_url(&self.redis_url), error.chain()))
        })
    }

    /// A partition for a new campaign.
    pub fn choose_partition(&self) -> Partition {
        // Random, so that campaigns that open at the same time mostly have streams, and workers, of their own.
        Partition(crate::identifiers::random_below(self.claim_partitions))
    }

    /// Whether log lines are JSON.
    pub fn logs_are_json(&self) -> bool {
        match self.log_format {
            // Standard error, as the log goes there.
            LogFormat::Auto => !std::io::stderr().is_terminal(),
            LogFormat::Text => false,
            LogFormat::Json => true,
        }
    }
}

/// Reads `.env` of the working folder, when there is one, before the settings are parsed.
#[expect(clippy::print_stderr, reason = "a log is not set up yet, and a wrong file must not go unseen")]
pub fn read_environment_file() {
    if let Err(error) = dotenvy::dotenv()
        && !error.not_found()
    {
        eprintln!(".env is left out: {error}");
    }
}

/// Prints for a person at the terminal why a process ends, with the causes.
#[expect(clippy::print_stderr, reason = "it is read by the person who started the process")]
pub fn report(error: &Error) {
    eprintln!("{}", description(error));
}

fn description(error: &Error) -> String {
    let mut line = match error {
        // The text for callers says to come again. At a start the setting may be wrong, such as its password.
        Error::DependencyUnavailable { dependency, .. } => {
            let setting = match dependency {
                Dependency::MySql => "DATABASE_URL",
                Dependency::Redis => "REDIS_URL",
            };
            format!("error: {setting}: {} cannot be used with it", dependency.into_str())
        }
        error => format!("error: {error}"),
    };
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        line = format!("{line}\n  because: {inner}");
        cause = inner.source();
    }
    line
}

/// Any text, which is not printed when it is wrong.
pub fn secret(text: &str) -> Result<SecretString, Infallible> {
    Ok(text.into())
}

fn key_prefix(prefix: &str) -> Result<String, String> {
    if prefix.contains(['{', '}']) {
        // A brace would move the hash tag, and with it a campaign's keys to different slots.
        Err("expected no braces".into())
    } else {
        Ok(prefix.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_refuses_the_process_is_named_by_its_setting() {
        let refused = Error::unavailable(Dependency::MySql, "Access denied for user 'dibs'");
        let expected = "error: DATABASE_URL: mysql cannot be used with it\n  because: Access denied for user 'dibs'";
        assert_eq!(description(&refused), expected);
        let setting = Error::Setting("REDIS_URL", "expected redis://".into());
        assert_eq!(description(&setting), "error: REDIS_URL: expected redis://");
    }

    #[test]
    fn a_key_prefix_has_no_braces() {
        assert!(key_prefix("a{b}").is_err());
        assert_eq!(key_prefix("shop:"), Ok("shop:".into()));
    }

    #[derive(clap::Parser)]
    struct Given {
        #[command(flatten)]
        settings: Settings,
    }

    fn refused(arguments: &[&str]) -> String {
        let servers = ["test", "--database-url=mysql://root@host/dibs", "--redis-url=redis://host"];
        match <Given as clap::Parser>::try_parse_from(servers.iter().chain(arguments)) {
            Err(error) => error.to_string(),
            Ok(given) => given.settings.check().map_or_else(|error| error.to_string(), |()| String::new()),
        }
    }

    #[test]
    fn wrong_settings_of_points_are_refused_with_a_sentence_that_names_them() {
        assert_eq!(refused(&[]), "");
        assert_eq!(refused(&["--payment-gateway-url=https://user:secret@pay.example/v1"]), "");
        assert_eq!(refused(&["--payment-gateway-url="]), "", "an empty one is none");
        let wrong_url = refused(&["--payment-gateway-url=ftp://user:secret@pay"]);
        assert!(wrong_url.contains("PAYMENT_GATEWAY_URL") && !wrong_url.contains("secret"), "{wrong_url}");
        assert!(refused(&["--points-holding-cap=9999"]).contains("POINTS_CHARGE_MINIMUM"));
        assert!(refused(&["--points-charge-minimum=0"]).contains("points-charge-minimum"));
        assert!(refused(&["--points-holding-cap=9007199254740992"]).contains("points-holding-cap"));
    }
}
