use axum::{
    extract::{FromRef, FromRequestParts},
    http::{header, request::Parts},
};
use dibs_common::{Error, secret::constant_time_eq};
use secrecy::{ExposeSecret as _, SecretString};

use crate::problem::ApiError;

/// The administrator's token, when one is set.
#[derive(Clone)]
pub struct AdminToken(pub Option<SecretString>);

/// A caller with the administrator's token.
pub struct Administrator {
    /// The name of the credential, as `admin_actions.actor` has it.
    pub actor: &'static str,
}

/// The name of the one credential that there is: the setting that holds it.
const ACTOR: &str = "ADMIN_TOKEN";

impl<S> FromRequestParts<S> for Administrator
where
    S: Sync,
    AdminToken: FromRef<S>,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let AdminToken(Some(token)) = AdminToken::from_ref(state) else {
            return Err(ApiError(Error::Forbidden("Administration is off: ADMIN_TOKEN is not set on this API.")));
        };
        let given = parts.headers.get(header::AUTHORIZATION).map(axum::http::HeaderValue::as_bytes);
        let shown = given.and_then(bearer_token).unwrap_or_default();
        // In constant time: otherwise the response time would give the token away byte by byte.
        if constant_time_eq(shown, token.expose_secret().as_bytes()) {
            Ok(Self { actor: ACTOR })
        } else {
            Err(ApiError(Error::Unauthenticated))
        }
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
