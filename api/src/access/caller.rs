use std::{convert::Infallible, sync::Arc};

use axum::{extract::FromRequestParts, http::request::Parts};
use dibs_common::{
    domain::access::{Scope, Scopes},
    error::{Error, Result},
    identifiers::UserId,
};

/// Who makes a call, as the gate found out.
#[derive(Clone, Debug)]
pub enum Caller {
    /// A call that anyone may make: the gate has not looked at its credentials.
    Public,
    /// A gateway in front of the API has decided who calls. It acts for any user.
    Gateway,
    /// A server, or an administrator. It acts for any user.
    Server(Arc<Credential>),
    User(UserId),
}

/// A secret that is not bound to a user.
#[derive(Debug, PartialEq, Eq)]
pub struct Credential {
    /// As `admin_actions.actor` has it.
    pub name: String,
    pub scopes: Scopes,
}

impl Caller {
    /// Whether what belongs to `user` is the caller's to see and to change. A handler answers as if there were nothing
    /// when it is not: see [`Self::require_own`].
    pub fn acts_for(&self, user: UserId) -> bool {
        match self {
            Self::Public => false,
            Self::Gateway | Self::Server(_) => true,
            Self::User(own) => *own == user,
        }
    }

    /// Refuses with `missing` what belongs to another user. Not with 403, which would say that it exists.
    pub fn require_own(&self, user: UserId, missing: Error) -> Result<()> {
        if self.acts_for(user) { Ok(()) } else { Err(missing) }
    }

    /// [`Self::acts_for`] of what may be of an earlier version of Dibs, which did not note the user.
    pub fn acts_for_noted(&self, user: Option<UserId>) -> bool {
        user.map_or_else(|| !matches!(self, Self::User(_) | Self::Public), |user| self.acts_for(user))
    }

    /// The user whom the caller is confined to.
    pub const fn user(&self) -> Option<UserId> {
        if let Self::User(user) = self { Some(*user) } else { None }
    }

    pub fn has(&self, required: Scope) -> bool {
        matches!(self, Self::Server(credential) if credential.scopes.allow(required))
    }
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        // Without the gate in front there is no caller that acts for a user.
        Ok(parts.extensions.get().cloned().unwrap_or(Self::Public))
    }
}

/// The user whom the body of a request has to name, in `userId`.
#[derive(Clone, Copy, Debug)]
pub struct BodyOwner(pub UserId);
