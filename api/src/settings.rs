//! Settings of `dibs-api`.

use std::net::SocketAddr;

use clap::{Parser, Subcommand};
use dibs_common::{
    config::{ListenerSettings, SecretFiles, Settings, secret},
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
