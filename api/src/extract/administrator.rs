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
pub struct Administrator;

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
        let shown = given.and_then(|value| value.strip_prefix(b"Bearer ")).unwrap_or_default();
        // In constant time: otherwise the response time would give the token away byte by byte.
        if constant_time_eq(shown, token.expose_secret().as_bytes()) {
            Ok(Self)
        } else {
            Err(ApiError(Error::Unauthenticated))
        }
    }
}
