//! Settings of `dibs-api`.

use std::net::SocketAddr;

use chrono::TimeDelta;
use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;
use dibs_common::{
    config::{ListenerSettings, SecretFiles, Settings, secret},
    domain::assignment_rules::AssignmentRules,
    error::{Error, Result},
};
use secrecy::{ExposeSecret as _, SecretString};

use crate::access::AuthSettings;

const MIN_ADMIN_TOKEN_LENGTH: usize = 16;

/// Serves the REST API of the shop: claims on first-come coupons, and the shop around them.
///
/// Settings come from the environment (a `.env` of the working folder is read first) or from flags. With all of
/// them at their defaults, only `DATABASE_URL` and `REDIS_URL` have to be given. Bring the tables up to date first:
/// dibs-worker migrate.
#[derive(Clone, Debug, Parser)]
#[command(name = "dibs-api", version)]
pub struct ApiSettings {
    #[command(flatten)]
    pub shared: Settings,
    /// Where calls are answered
    #[arg(long, env, default_value = "127.0.0.1:8080")]
    pub api_address: SocketAddr,
    /// Where calls below /admin, metrics and the documents of the API are answered, and nowhere else; left out, they are
    /// answered at `API_ADDRESS`
    #[arg(long, env)]
    pub admin_address: Option<SocketAddr>,
    /// A bearer token of /admin calls, at least 16 characters
    #[arg(long, env, hide_env_values = true, value_parser = secret)]
    pub admin_token: Option<SecretString>,
    #[command(flatten)]
    pub auth: AuthSettings,
    /// Those that came from files.
    #[arg(skip)]
    pub secret_files: SecretFiles,
    /// Requests in progress at once; more are answered 503 OVERLOADED
    #[arg(long, env, default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_requests_in_progress: u32,
    /// Refused claims that are stored for the timelines of users, a second, 0 to 100000; 0 stores none
    #[arg(long, env, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(0..=100_000))]
    pub claim_attempts_per_second: u32,
    /// Claims of one user within a minute; 0 stands for any number
    #[arg(long, env, default_value_t = 0)]
    pub claims_per_user: u32,
    /// Claims from one client address within a minute; 0 stands for any number
    #[arg(long, env, default_value_t = 0)]
    pub claims_per_address: u32,
    /// Proxies in front that add to `Forwarded` or `X-Forwarded-For`; 0 takes the address of the connection
    #[arg(long, env, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=10))]
    pub trusted_proxy_hops: u32,
    /// After SIGTERM calls are answered for so many seconds, at most 300, while readiness is DOWN
    #[arg(long, env, default_value_t = 5, value_parser = clap::value_parser!(u32).range(0..=300))]
    pub shutdown_delay_seconds: u32,
    #[command(flatten)]
    pub listener: ListenerSettings,
    #[command(flatten)]
    pub assignments: AssignmentSettings,
    /// Other commands
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What administrators may assign.
#[derive(Clone, Debug, Args)]
pub struct AssignmentSettings {
    /// The most users of one assignment
    #[arg(long, env, default_value_t = 5_000_000, value_parser = clap::value_parser!(u32).range(1..=100_000_000))]
    pub assignment_max_users: u32,
    /// The longest line of a list of users, in bytes
    #[arg(long, env, default_value_t = 200, value_parser = clap::value_parser!(u32).range(32..=65_536))]
    pub assignment_max_line_bytes: u32,
    /// The most users whom all assignments of a campaign give the coupon in a business day
    #[arg(long, env, default_value_t = 1_000_000)]
    pub assignment_daily_budget: u32,
    /// An assignment of more users needs the approval of a second administrator
    #[arg(long, env, default_value_t = 10_000)]
    pub assignment_approval_threshold: u32,
    /// How many hours such an approval is awaited
    #[arg(long, env, default_value_t = 24, value_parser = clap::value_parser!(u32).range(1..=720))]
    pub assignment_approval_hours: u32,
}

#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Ask the API at `API_ADDRESS` whether it is ready; ends with 0 when it is
    Health,
    /// Print the OpenAPI document
    Openapi,
    /// Print the script by which a shell completes commands and settings
    Completions {
        /// The shell
        shell: Shell,
    },
}

impl ApiSettings {
    pub fn assignment_rules(&self) -> AssignmentRules {
        let assignments = &self.assignments;
        AssignmentRules {
            daily_budget: assignments.assignment_daily_budget,
            approval_threshold: assignments.assignment_approval_threshold,
            approval_timeout: TimeDelta::hours(assignments.assignment_approval_hours.into()),
            time_zone: self.shared.time_zone,
        }
    }

    /// Refuses settings with which nothing can work; an empty token is none.
    pub fn checked(mut self) -> Result<Self> {
        self.shared.check()?;
        self.auth.mode(self.api_address)?;
        if self.admin_address == Some(self.api_address) {
            return Err(Error::Setting("ADMIN_ADDRESS", "expected another address than API_ADDRESS".into()));
        }
        self.admin_token = self.admin_token.filter(|token| !token.expose_secret().is_empty());
        self.admin_token.as_ref().map_or(Ok(()), check_admin_token)?;
        Ok(self)
    }
}

/// Refuses a token that could be guessed.
pub fn check_admin_token(token: &SecretString) -> Result<()> {
    match token.expose_secret().len() {
        MIN_ADMIN_TOKEN_LENGTH.. => Ok(()),
        length => {
            let why = format!("expected at least {MIN_ADMIN_TOKEN_LENGTH} characters, got {length}");
            Err(Error::Setting("ADMIN_TOKEN", why))
        }
    }
}
