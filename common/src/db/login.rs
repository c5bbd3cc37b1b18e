//! Logins without TLS.
//!
//! `MySQL` takes the password of an account (`caching_sha2_password`) without TLS only while it remembers the account,
//! and a restart makes it forget. One login with TLS makes it remember again. The other way, encryption with the
//! server's RSA key, needs the crate `rsa`: a pre-release with an open advisory (RUSTSEC-2023-0071).

use sqlx::{
    ConnectOptions as _, Connection as _,
    mysql::{MySqlConnectOptions, MySqlSslMode},
};

use super::{Database, errors::LoginNeedsTls, within};
use crate::error::{Error, Result};

/// Whether the server refuses a login without TLS.
pub(super) fn needs_tls(error: &Error) -> bool {
    matches!(error, Error::DependencyUnavailable { cause, .. } if cause.is::<LoginNeedsTls>())
}

impl Database {
    /// Logs in once with TLS, if the server refuses a login without. For a process that does not [watch](Self::watch)
    /// its connections. Any other error is left to the first query.
    pub async fn ensure_login(&self) {
        if let Err(error) = log_in(self.options()).await
            && needs_tls(&error)
        {
            self.log_in_with_tls().await;
        }
    }

    /// Logs in once, outside the pool: its error says why, while that of the pool may only say that it took too long.
    pub async fn log_in(&self) -> Result<()> {
        log_in(self.options()).await
    }

    pub(super) async fn log_in_with_tls(&self) {
        // Without a check of the certificate, as for all connections that do not ask for it. Nothing but the login
        // passes.
        match log_in(&self.options().clone().ssl_mode(MySqlSslMode::Required)).await {
            Ok(()) => tracing::info!("logged in once with TLS: the database server did not remember the account"),
            // Logged with each request that fails, too.
            Err(error) => tracing::debug!(cause = error.chain(), "login with TLS failed"),
        }
    }
}

async fn log_in(options: &MySqlConnectOptions) -> Result<()> {
    within(async { options.connect().await?.close_hard().await }).await
}
