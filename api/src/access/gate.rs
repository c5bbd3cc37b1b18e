use std::sync::{Arc, OnceLock};

use axum::{
    extract::{MatchedPath, Query, Request},
    http::{HeaderMap, HeaderValue, header},
};
use dibs_common::{Error, error::CredentialFault, identifiers::UserId};
use futures::future::BoxFuture;

use super::{
    AuthMode, BodyOwner, Caller, Credential, Credentials, Found,
    policy::{self, Access, Listener, Owner, Policy},
};

/// Applies the policies in front of one route.
#[derive(Clone)]
pub struct Gate {
    credentials: Arc<Credentials>,
    listener: Listener,
    policies: &'static [Policy],
    /// Those of the one path that this gate is in front of, found at its first request.
    found: Arc<OnceLock<Box<[&'static Policy]>>>,
}

/// The credential of a session of the console, in a request that the console makes within the process. No request from
/// outside has it: extensions do not travel.
#[derive(Clone)]
pub struct SessionCredential(pub Arc<Credential>);

/// What the gate says of a request.
pub enum Authorization {
    /// The request carries its [`Caller`].
    Granted,
    Refused(Error),
    /// The token is of a key that may be new. Ask again when this has ended.
    AfterRefresh(BoxFuture<'static, Result<(), Error>>),
    /// The route does not take the method; those that it takes, as `Allow` lists them.
    OtherMethod(HeaderValue),
}

impl Gate {
    pub fn new(credentials: Arc<Credentials>, listener: Listener, policies: &'static [Policy]) -> Self {
        Self { credentials, listener, policies, found: Arc::default() }
    }

    /// A gate in front of another route.
    #[must_use]
    pub fn of_route(&self) -> Self {
        Self { found: Arc::default(), ..self.clone() }
    }

    /// Decides about a request, and leaves in it what extractors need.
    pub fn admit(&self, request: &mut Request) -> Authorization {
        // There is nothing behind a path without a route, and it is answered as such.
        let Some(path) = request.extensions().get::<MatchedPath>() else { return Authorization::Granted };
        let policies = self.found.get_or_init(|| self.policies_of(path.as_str()));
        let Some(policy) = policy::of_method(policies, request.method()) else { return other_method(policies) };
        match self.caller(policy, request) {
            Ok(Found::Caller(caller)) => {
                request.extensions_mut().insert(caller);
                Authorization::Granted
            }
            Ok(Found::AfterRefresh(refresh)) => Authorization::AfterRefresh(refresh),
            Err(error) => Authorization::Refused(error),
        }
    }

    fn policies_of(&self, path: &str) -> Box<[&'static Policy]> {
        let of_path = || self.policies.iter().filter(|policy| policy.path == path);
        if of_path().next().is_none() {
            tracing::error!(path, "route without a policy; it is not served");
        }
        of_path().filter(|policy| self.listener.serves(policy.place)).collect()
    }

    fn caller(&self, policy: &Policy, request: &mut Request) -> Result<Found, Error> {
        let (scope, owner) = match policy.access {
            // Of a page, the guard of the console finds the session behind the gate.
            Access::Public | Access::Console(_) => return Ok(Found::Caller(Caller::Public)),
            Access::Users(..) if self.credentials.mode == AuthMode::Trusted => {
                return Ok(Found::Caller(Caller::Gateway));
            }
            Access::Users(scope, owner) => (scope, Some(owner)),
            Access::Administrators(scope) => (scope, None),
        };
        let found = match request.extensions().get() {
            Some(SessionCredential(credential)) => Found::Caller(Caller::Server(Arc::clone(credential))),
            None => self.authenticated(request.headers())?,
        };
        match (&found, owner) {
            (Found::Caller(Caller::User(user)), Some(owner)) => require_own(policy, owner, *user, request)?,
            // A user has no scope, and with it no call of administrators.
            (Found::Caller(caller), _) if !caller.has(scope) => return Err(Error::ScopeRequired(scope)),
            _ => {}
        }
        Ok(found)
    }

    fn authenticated(&self, headers: &HeaderMap) -> Result<Found, Error> {
        let mut values = headers.get_all(header::AUTHORIZATION).iter();
        // Of two headers it is not known which one a proxy in front has looked at.
        let (Some(value), None) = (values.next(), values.next()) else {
            return Err(Error::Unauthenticated(CredentialFault::Missing));
        };
        let token = bearer_token(value.as_bytes()).ok_or(Error::Unauthenticated(CredentialFault::Missing))?;
        self.credentials.find(token)
    }
}

/// Refuses the call of a user that names another one, before anything is looked up.
fn require_own(policy: &Policy, owner: Owner, user: UserId, request: &mut Request) -> Result<(), Error> {
    match owner {
        Owner::Path => {
            let segments = policy.path.split('/').zip(request.uri().path().split('/'));
            // An id has one spelling, so texts are compared.
            let is_own = segments.filter(|(name, _)| *name == "{userId}").all(|(_, id)| id == user.to_string());
            if is_own { Ok(()) } else { Err(another_user()) }
        }
        Owner::Query => {
            let parameters = Query::<Vec<(String, String)>>::try_from_uri(request.uri());
            let parameters = parameters.map(|Query(pairs)| pairs).unwrap_or_default();
            let named: Vec<&str> =
                parameters.iter().filter(|(name, _)| name == "userId").map(|(_, value)| value.as_str()).collect();
            // Without one, a list could be that of all users.
            if named.is_empty() {
                return Err(unnamed_user());
            }
            if named.iter().all(|id| **id == user.to_string()) { Ok(()) } else { Err(another_user()) }
        }
        Owner::Body => {
            request.extensions_mut().insert(BodyOwner(user));
            Ok(())
        }
        Owner::Loaded => Ok(()),
    }
}

/// The refusal of a user's call that names another user.
pub fn another_user() -> Error {
    Error::Forbidden("The token of a user is for what belongs to that user; 'userId' is another one.")
}

/// The refusal of a user's call that names no user.
pub fn unnamed_user() -> Error {
    Error::field("userId", "expected the user of the token")
}

/// Without its policies a route is not served.
fn other_method(policies: &[&Policy]) -> Authorization {
    match HeaderValue::try_from(policy::allowed(policies)) {
        Ok(allowed) if !policies.is_empty() => Authorization::OtherMethod(allowed),
        _ => Authorization::Refused(Error::RouteNotFound),
    }
}

/// The token of `Bearer TOKEN`. The scheme is case-insensitive (RFC 9110, section 11.1).
fn bearer_token(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked(b"Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then_some(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scheme_is_case_insensitive_and_the_token_is_not() {
        assert_eq!(bearer_token(b"Bearer Abc"), Some(&b"Abc"[..]));
        assert_eq!(bearer_token(b"bearer Abc"), Some(&b"Abc"[..]));
        assert_eq!(bearer_token(b"Basic Abc"), None);
        assert_eq!(bearer_token(b"Bearer"), None);
    }
}
