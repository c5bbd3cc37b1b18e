use axum::{
    extract::{FromRef, FromRequestParts},
    http::{header, request::Parts},
};
use dibs_common::Error;
use secrecy::{ExposeSecret as _, SecretString};

use crate::problem::ApiError;

/// The administrator's token, when one is set.
#[derive(Clone)]
pub struct AdminToken(pub Option<SecretString>);

/// A caller who has shown the administrator's token.
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
        if same(shown, token.expose_secret().as_bytes()) { Ok(Self) } else { Err(ApiError(Error::Unauthenticated)) }
    }
}

/// Compares in a time that does not tell where the two differ.
fn same(shown: &[u8], expected: &[u8]) -> bool {
    let difference = shown.iter().zip(expected).fold(0, |sum, (one, other)| sum | (one ^ other));
    shown.len() == expected.len() && std::hint::black_box(difference) == 0
}

#[cfg(test)]
mod tests {
    use super::same;

    #[test]
    fn only_the_same_token_is_the_same() {
        assert!(same(b"token", b"token"));
        for other in [&b""[..], b"toke", b"tokem", b"tokens"] {
            assert!(!same(other, b"token"));
        }
    }
}
