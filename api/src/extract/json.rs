use std::{error::Error as _, time::Duration};

use axum::{
    body::{self, Body},
    extract::{FromRequest, MatchedPath, Request},
    http::{Extensions, HeaderMap, header},
};
use bytes::Bytes;
use dibs_common::Error;
use http_body_util::LengthLimitError;
use serde::de::DeserializeOwned;
use serde_json::error::Category;
use tokio::time::timeout;

use crate::problem::ApiError;

/// In bytes, but for [`LONG_BODIES`].
const MAX_BODY_BYTES: usize = 64 * 1024;
/// The route whose bodies may be longer: a list of 10,000 users, each on a line of its own.
const LONG_BODIES: (&str, usize) = ("/admin/coupons/{couponId}/assignments", 512 * 1024);
/// How long a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// A JSON body, decoded and checked by serde.
pub struct JsonBody<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for JsonBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        if !is_json(request.headers()) {
            return Err(ApiError(Error::UnsupportedMediaType));
        }
        let longest = max_body_bytes(request.extensions());
        let body = read_body(request.into_body(), longest).await?;
        if body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[') {
            // serde reads the fields of a struct from an array as well, by position.
            return Err(ApiError(Error::field(".", "expected an object, got an array")));
        }
        serde_json::from_slice(&body).map(Self).map_err(|error| ApiError(explain::<T>(&body, &error)))
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
    let arriving = timeout(BODY_TIMEOUT, body::to_bytes(body, longest)).await;
    let arrived = arriving.map_err(|_| ApiError(Error::MalformedJson("it did not arrive in time".into())))?;
    arrived.map_err(|error| {
        // axum gives both cases one error type; only the cause below it distinguishes a long body from a broken connection.
        let too_long = error.source().is_some_and(<dyn std::error::Error>::is::<LengthLimitError>);
        ApiError(if too_long { Error::PayloadTooLarge(longest) } else { Error::MalformedJson("it ended early".into()) })
    })
}

fn is_json(headers: &HeaderMap) -> bool {
    let Some(content_type) = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()) else {
        return false;
    };
    // Parameters such as `charset=utf-8` change nothing: JSON is UTF-8.
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json")
}

/// What is wrong with a body that cannot be decoded. Decodes it again to find the field: only refused requests pay for it.
fn explain<T: DeserializeOwned>(body: &[u8], error: &serde_json::Error) -> Error {
    if error.classify() != Category::Data {
        return Error::MalformedJson(error.to_string());
    }
    let mut reader = serde_json::Deserializer::from_slice(body);
    match serde_path_to_error::deserialize::<_, T>(&mut reader) {
        Ok(_) => Error::field("", error.to_string()),
        Err(error) => {
            let path = error.path().to_string();
            let message = error.into_inner().to_string();
            let message = message.split(" at line ").next().unwrap_or_default().to_owned();
            // A missing or unknown field is named by the message, inside the path of its object.
            let named = message.split('`').nth(1).filter(|_| message.contains(" field `"));
            let field = match (path.as_str(), named) {
                (".", Some(name)) => name.to_owned(),
                (path, Some(name)) if !path.ends_with(name) => format!("{path}.{name}"),
                (path, _) => path.to_owned(),
            };
            Error::field(field, message)
        }
    }
}

#[cfg(test)]
mod tests {
    use dibs_common::domain::campaign::CampaignTerms;

    use super::*;

    fn wrong_field(body: &str) -> String {
        let error = serde_json::from_str::<CampaignTerms>(body).expect_err("a wrong body");
        match explain::<CampaignTerms>(body.as_bytes(), &error) {
            Error::ValidationFailed(errors) => errors[0].field.to_string(),
            other => other.code().into_str().into(),
        }
    }

    #[test]
    fn a_wrong_field_is_named_by_its_path() {
        assert_eq!(wrong_field(r#"{"name": 1}"#), "name");
        assert_eq!(wrong_field(r#"{"discount": {"type": "FREE"}}"#), "discount.type");
        assert_eq!(wrong_field(r#"{"discount": {"type": "FIXED"}}"#), "discount.value");
        assert_eq!(wrong_field(r#"{"colour": 1}"#), "colour");
        assert_eq!(wrong_field("{}"), "name");
        assert_eq!(wrong_field("[]"), ".");
        assert_eq!(wrong_field(r#"{"name": "#), "MALFORMED_JSON");
    }
}
