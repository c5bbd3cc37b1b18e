//! Settings of `dibs-api`.

use std::net::SocketAddr;

use chrono::TimeDelta;
use clap::{Args, Parser, Subcommand};
use dibs_common::{
    config::{ListenerSettings, Settings, secret},
    domain::assignment_rules::AssignmentRules,
    error::{Error, Result},
};
use secrecy::{ExposeSecret as _, SecretString};

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
    /// The bearer token of /admin calls, at least 16 characters; without one they are all refused
    #[arg(long, env, hide_env_values = true, value_parser = secret)]
    pub admin_token: Option<SecretString>,
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
        self.admin_token = self.admin_token.filter(|token| !token.expose_secret().is_empty());
        match &self.admin_token {
            Some(token) if token.expose_secret().len() < 16 => {
                Err(Error::Setting("ADMIN_TOKEN", "expected at least 16 characters".into()))
            }
            _ => Ok(self),
        }
    }
}
