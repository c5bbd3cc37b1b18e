use std::{error::Error as _, future::poll_fn, pin::pin, task::Poll, time::Duration};

use axum::{
    body::{self, Body},
    extract::{FromRequest, MatchedPath, Request},
    http::{Extensions, HeaderMap, header},
};
use bytes::Bytes;
use dibs_common::{Error, domain::FieldError, identifiers::UserId};
use futures::FutureExt as _;
use http_body_util::LengthLimitError;
use serde::{Deserialize, de::DeserializeOwned};
use tokio::time::timeout;

use super::expected::{Expected, refusal};
use crate::{
    access::{BodyOwner, another_user, unnamed_user},
    problem::ApiError,
};

/// In bytes, but for [`LONG_BODIES`].
const MAX_BODY_BYTES: usize = 64 * 1024;
/// The route whose bodies may be longer: a list of 10,000 users, each on a line of its own.
const LONG_BODIES: (&str, usize) = ("/admin/coupons/{couponId}/assignments", 512 * 1024);
/// How long a body may take to arrive.
pub(super) const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// A JSON body, decoded and checked by serde.
pub struct JsonBody<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for JsonBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let (parts, body) = request.into_parts();
        if !is_identity(&parts.headers) {
            return Err(ApiError(Error::UnsupportedContentEncoding));
        }
        if !is_json(&parts.headers) {
            return Err(ApiError(Error::UnsupportedMediaType));
        }
        let body = read_body(body, max_body_bytes(&parts.extensions)).await?;
        // serde reads the fields of a struct from an array as well, by position.
        let is_array = body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[');
        match serde_json::from_slice(&body) {
            Ok(value) if !is_array => {
                if let Some(BodyOwner(user)) = parts.extensions.get() {
                    require_named(*user, &body)?;
                }
                Ok(Self(value))
            }
            _ => Err(ApiError(explain::<T>(&body, Expected::of(&parts.extensions, &parts.method)))),
        }
    }
}

/// Refuses a body that does not name `user`. It is read again, so that no handler can forget the comparison; only calls
/// of users pay for it.
fn require_named(user: UserId, body: &[u8]) -> Result<(), ApiError> {
    #[derive(Deserialize)]
    struct Named {
        #[serde(rename = "userId")]
        user: Option<UserId>,
    }
    match serde_json::from_slice(body) {
        Ok(Named { user: Some(named) }) if named == user => Ok(()),
        Ok(Named { user: Some(_) }) => Err(ApiError(another_user())),
        Ok(Named { user: None }) | Err(_) => Err(ApiError(unnamed_user())),
    }
}

/// The longest body that the route of a request takes, in bytes.
pub(crate) fn max_body_bytes(extensions: &Extensions) -> usize {
    let (route, longest) = LONG_BODIES;
    let is_long = extensions.get::<MatchedPath>().is_some_and(|matched| matched.as_str() == route);
    if is_long { longest } else { MAX_BODY_BYTES }
}

/// The whole of a body, unless it is longer than `longest`, too slow or cut off.
pub(crate) async fn read_body(body: Body, longest: usize) -> Result<Bytes, ApiError> {
    // The limit of the server covers the head alone. Without this one, a slow body would hold its place among the
    // requests in progress.
    let mut arriving = pin!(body::to_bytes(body, longest));
    let arrived = match first_polls(arriving.as_mut()).await {
        Some(arrived) => arrived,
        None => timeout(BODY_TIMEOUT, arriving)
            .await
            .map_err(|_| ApiError(Error::RequestTimeout(BODY_TIMEOUT.as_secs())))?,
    };
    arrived.map_err(|error| {
        // axum gives both cases one error type; only the cause below it distinguishes a long body from a broken
        // connection.
        let too_long = error.source().is_some_and(<dyn std::error::Error>::is::<LengthLimitError>);
        ApiError(if too_long { Error::PayloadTooLarge(longest) } else { Error::MalformedJson("it ended early".into()) })
    })
}

/// What a future returns in its first two polls; none when it takes longer. A body that came in one packet with its head
/// is there then: the connection hands it over between the two. A timer for each request would take the lock of all
/// timers twice.
async fn first_polls<F: Future + Unpin>(mut future: F) -> Option<F::Output> {
    let mut polls = 0;
    poll_fn(|context| {
        polls += 1;
        match future.poll_unpin(context) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending if polls > 1 => Poll::Ready(None),
            Poll::Pending => {
                context.waker().wake_by_ref();
                Poll::Pending
            }
        }
    })
    .await
}

/// Whether the body is sent as it is. A compressed one would be limited by its length on the wire only.
pub(super) fn is_identity(headers: &HeaderMap) -> bool {
    let encodings = headers.get_all(header::CONTENT_ENCODING);
    encodings.iter().all(|encoding| encoding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"identity"))
}

fn is_json(headers: &HeaderMap) -> bool {
    let Some(content_type) = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()) else {
        return false;
    };
    // Parameters such as `charset=utf-8` change nothing: JSON is UTF-8.
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json")
}

/// What is wrong with a body that cannot be decoded. Reads it again: only refused requests pay for it.
fn explain<T: DeserializeOwned>(body: &[u8], expected: Expected) -> Error {
    match serde_json::from_slice(body) {
        Ok(value) => {
            let mut errors = expected.body_errors(&value);
            if errors.is_empty() {
                errors.extend(repeated_field::<T>(body));
            }
            refusal(errors)
        }
        Err(error) => Error::MalformedJson(error.to_string()),
    }
}

/// The field that a body has twice. A parsed value shows only the last one.
fn repeated_field<T: DeserializeOwned>(body: &[u8]) -> Option<FieldError> {
    let error = serde_path_to_error::deserialize::<_, T>(&mut serde_json::Deserializer::from_slice(body)).err()?;
    let (path, message) = (error.path().to_string(), error.inner().to_string());
    let name = message.strip_prefix("duplicate field `")?.split('`').next()?;
    // The path may end at the object or at the field itself.
    let object = path.strip_suffix(name).unwrap_or(&path).trim_end_matches('.');
    let field = if object.is_empty() { name.to_owned() } else { format!("{object}.{name}") };
    Some(FieldError::new(field, "expected once"))
}

#[cfg(test)]
mod tests {
    use dibs_common::domain::order::Line;

    use super::*;

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Order {
        #[serde(rename = "items")]
        _items: Vec<Line>,
    }

    #[test]
    fn a_field_that_comes_twice_is_named() {
        let repeated = |body: &str| repeated_field::<Order>(body.as_bytes()).map(|error| error.field.into_owned());
        assert_eq!(repeated(r#"{"items": [], "items": []}"#).as_deref(), Some("items"));
        let twice = r#"{"items": [{"productId": 1, "quantity": 1, "quantity": 2}]}"#;
        assert_eq!(repeated(twice).as_deref(), Some("items[0].quantity"));
        assert_eq!(repeated("{}"), None);
    }
}
