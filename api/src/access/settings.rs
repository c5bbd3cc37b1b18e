use std::net::SocketAddr;

use clap::{Args, ValueEnum};
use dibs_common::error::{Error, Result};

/// How callers of the shop's routes are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AuthMode {
    /// By a gateway in front: every call counts as one of the gateway, which acts for any user.
    Trusted,
    /// By an API key or the token of a user.
    Required,
}

/// How callers are known.
#[derive(Clone, Debug, Default, Args)]
pub struct AuthSettings {
    /// How callers are known: 'required', by API keys and tokens, or 'trusted', by a gateway in front. Left out, it is
    /// trusted on a loopback address; elsewhere the choice has to be made
    #[arg(long, env, value_enum, ignore_case = true)]
    pub auth_mode: Option<AuthMode>,
}

impl AuthSettings {
    /// The mode of an API at `address`.
    ///
    /// # Errors
    /// When it is left out and others than this machine reach the address.
    pub fn mode(&self, address: SocketAddr) -> Result<AuthMode> {
        match self.auth_mode {
            Some(mode) => Ok(mode),
            None if address.ip().to_canonical().is_loopback() => Ok(AuthMode::Trusted),
            None => Err(Error::Setting(
                "AUTH_MODE",
                format!(
                    "expected 'required' (API keys and tokens) or 'trusted' (a gateway in front decides who calls), as \
                     others reach API_ADDRESS {address}"
                ),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trusted_is_the_default_on_a_loopback_address_only() {
        let mode = |address: &str| AuthSettings::default().mode(address.parse().expect("an address"));
        for address in ["127.0.0.1:8080", "127.9.9.9:1", "[::1]:8080", "[::ffff:127.0.0.1]:8080"] {
            assert_eq!(mode(address).ok(), Some(AuthMode::Trusted), "{address}");
        }
        for address in ["0.0.0.0:8080", "[::]:8080", "10.0.0.1:8080"] {
            let refused = mode(address).expect_err("refused").to_string();
            assert!(refused.contains("AUTH_MODE") && refused.contains(address), "{refused}");
            for chosen in [AuthMode::Trusted, AuthMode::Required] {
                let settings = AuthSettings { auth_mode: Some(chosen) };
                assert_eq!(settings.mode(address.parse().expect("an address")).ok(), Some(chosen));
            }
        }
    }
}
