use std::sync::Arc;

use axum::{extract::FromRequestParts, http::request::Parts};
use dibs_common::{Error, domain::access::Scope, error::CredentialFault};

use crate::{
    access::{Caller, Credential},
    problem::ApiError,
};

/// A caller that administers. The gate has checked that its scope suffices for the call.
pub struct Administrator(Arc<Credential>);

impl Administrator {
    /// The name of the credential, as `admin_actions.actor` has it.
    pub fn actor(&self) -> &str {
        &self.0.name
    }
}

impl<S: Sync> FromRequestParts<S> for Administrator {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        match parts.extensions.get::<Caller>() {
            Some(Caller::Server(credential)) if credential.scopes.allow(Scope::AdminRead) => {
                Ok(Self(Arc::clone(credential)))
            }
            Some(Caller::Server(_)) => Err(ApiError(Error::ScopeRequired(Scope::AdminRead))),
            _ => Err(ApiError(Error::Unauthenticated(CredentialFault::Missing))),
        }
    }
}
