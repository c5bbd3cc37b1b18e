//! Settings of `dibs-api`.

use std::net::SocketAddr;

use clap::{Parser, Subcommand};
use dibs_common::{
    config::{ListenerSettings, Settings, secret},
    error::{Error, Result},
};
use secrecy::{ExposeSecret as _, SecretString};

use crate::access::AuthSettings;

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
    #[command(flatten)]
    pub auth: AuthSettings,
    /// Requests in progress at once; more are answered 503 OVERLOADED
    #[arg(long, env, default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_requests_in_progress: u32,
    /// After SIGTERM calls are answered for so many seconds, at most 300, while readiness is DOWN
    #[arg(long, env, default_value_t = 5, value_parser = clap::value_parser!(u32).range(0..=300))]
    pub shutdown_delay_seconds: u32,
    #[command(flatten)]
    pub listener: ListenerSettings,
    /// Other commands
    #[command(subcommand)]
    pub command: Option<Command>,
}

#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Ask the API at `API_ADDRESS` whether it is ready; ends with 0 when it is
    Health,
    /// Print the OpenAPI document
    Openapi,
}

impl ApiSettings {
    /// Refuses settings with which nothing can work; an empty token is none.
    pub fn checked(mut self) -> Result<Self> {
        self.shared.check()?;
        self.auth.mode(self.api_address)?;
        self.admin_token = self.admin_token.filter(|token| !token.expose_secret().is_empty());
        match &self.admin_token {
            Some(token) if token.expose_secret().len() < 16 => {
                Err(Error::Setting("ADMIN_TOKEN", "expected at least 16 characters".into()))
            }
            _ => Ok(self),
        }
    }
}
