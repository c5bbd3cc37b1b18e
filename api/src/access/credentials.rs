use std::sync::Arc;

use dibs_common::{
    domain::access::{Scope, Scopes},
    error::{CredentialFault, Result},
    secret::constant_time_eq,
};
use secrecy::{ExposeSecret as _, SecretString};

use super::{AuthMode, Caller, Credential};
use crate::settings::ApiSettings;

/// The name of the credential that the setting of this name holds.
const ADMIN_TOKEN: &str = "ADMIN_TOKEN";

/// Everything that a caller can be known by.
pub struct Credentials {
    pub mode: AuthMode,
    admin_token: Option<SecretString>,
    administrator: Arc<Credential>,
}

impl Credentials {
    pub fn of(settings: &ApiSettings) -> Result<Self> {
        Ok(Self {
            mode: settings.auth.mode(settings.api_address)?,
            admin_token: settings.admin_token.clone(),
            administrator: Arc::new(Credential {
                name: ADMIN_TOKEN.into(),
                scopes: Scopes::default().with(Scope::Admin),
            }),
        })
    }

    /// The caller who has the token of an `Authorization` header.
    pub fn find(&self, token: &[u8]) -> Result<Caller, CredentialFault> {
        let is_administrator = self.admin_token.as_ref().is_some_and(|expected| {
            // In constant time: otherwise the response time would give the token away byte by byte.
            constant_time_eq(token, expected.expose_secret().as_bytes())
        });
        if is_administrator {
            return Ok(Caller::Server(Arc::clone(&self.administrator)));
        }
        Err(CredentialFault::Unknown)
    }
}
