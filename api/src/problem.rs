//! Errors as problem details (RFC 9457).

use axum::{
    body::Body,
    http::{HeaderValue, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use dibs_common::{
    Error,
    domain::{FieldError, claim::ClaimRecord, facts::Facts},
    error::{CredentialFault, Dependency},
};
use serde::Serialize;
use utoipa::ToSchema;

/// Why a call failed.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Problem<'p> {
    /// The path of the code's page.
    #[serde(rename = "type")]
    #[schema(value_type = String, example = "/errors/COUPON_EXHAUSTED")]
    kind: PagePath,
    /// The kind of problem in words.
    #[schema(example = "coupon exhausted")]
    title: &'static str,
    /// The HTTP status.
    #[schema(minimum = 400, maximum = 599)]
    status: u16,
    /// What was expected, and what to do.
    detail: String,
    /// The path that was called.
    instance: &'p str,
    /// The stable code of the kind of problem.
    #[schema(example = "COUPON_EXHAUSTED")]
    code: &'static str,
    /// Finds the request in the log.
    request_id: &'p str,
    /// The fields that are not as expected.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    errors: &'p [FieldError],
    /// The user's first claim, for `COUPON_ALREADY_ISSUED`.
    #[serde(skip_serializing_if = "Option::is_none")]
    claim: Option<ClaimRecord>,
    /// The unreachable dependency, for `DEPENDENCY_UNAVAILABLE`.
    #[serde(skip_serializing_if = "Option::is_none")]
    dependency: Option<Dependency>,
    #[serde(flatten)]
    facts: Facts,
}

/// The path at which `routes::errors` serves the page of a code.
#[derive(Debug)]
struct PagePath(&'static str);

impl Serialize for PagePath {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("/errors/{}", self.0))
    }
}

/// The error of a call. The edge knows the request's id and path, and renders it as a [`Problem`].
#[derive(Debug)]
pub struct ApiError(pub Error);

impl<E: Into<Error>> From<E> for ApiError {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

/// Passes the error from the handler to the edge, as an extension of the response.
#[derive(Clone)]
struct ErrorExtension(std::sync::Arc<Error>);

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = StatusCode::INTERNAL_SERVER_ERROR.into_response();
        // Not rendered here: the handler knows neither the request id nor the path.
        response.extensions_mut().insert(ErrorExtension(std::sync::Arc::new(self.0)));
        response
    }
}

/// Whether a response asks the caller to come again with another operation: the command of this one is decided, without
/// an effect, and its cause passes.
pub fn needs_new_operation(response: &Response) -> bool {
    let error = response.extensions().get::<ErrorExtension>();
    error.is_some_and(|ErrorExtension(error)| matches!(**error, Error::OrderPending(_)))
}

/// Renders the error of a response, if it has one, as a problem.
pub fn render(mut response: Response, request_id: &str, uri: &Uri) -> Response {
    match response.extensions_mut().remove::<ErrorExtension>() {
        Some(ErrorExtension(error)) => write(&error, request_id, uri.path()),
        None => response,
    }
}

/// The content type of a problem.
pub const PROBLEM_JSON: &str = "application/problem+json";
/// Most problems fit, so their body is allocated once.
const BODY_CAPACITY: usize = 512;

fn write(error: &Error, request_id: &str, instance: &str) -> Response {
    let code = error.code();
    let (status, title, code) = (code.status(), code.title(), code.into_str());
    match error {
        Error::Internal(cause) => tracing::error!(request_id, instance, cause, "request failed: internal error"),
        Error::DependencyUnavailable { dependency, cause } => {
            // A warning: the server comes back by itself. All other errors are the caller's, and would only fill the
            // log.
            tracing::warn!(request_id, instance, dependency = dependency.into_str(), cause, "dependency unavailable");
        }
        _ => {}
    }
    let problem = Problem {
        kind: PagePath(code),
        title,
        status,
        detail: error.to_string(),
        instance,
        code,
        request_id,
        errors: if let Error::ValidationFailed(errors) = error { errors } else { &[] },
        claim: if let Error::CouponAlreadyIssued(claim) = error { Some(*claim) } else { None },
        dependency: if let Error::DependencyUnavailable { dependency, .. } = error { Some(*dependency) } else { None },
        facts: error.facts(),
    };
    let mut body = Vec::with_capacity(BODY_CAPACITY);
    if let Err(error) = serde_json::to_writer(&mut body, &problem) {
        tracing::error!(request_id, %error, "problem not serialized");
    }
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
    if let Some(seconds) = error.retry_after() {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    // What RFC 9110 requires or advises of these.
    match error {
        Error::Unauthenticated(fault) => drop(headers.insert(header::WWW_AUTHENTICATE, challenge(*fault))),
        Error::UnsupportedContentEncoding => {
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        }
        // The rest of the body may still come, and must not be read as the next request.
        Error::RequestTimeout(_) => drop(headers.insert(header::CONNECTION, HeaderValue::from_static("close"))),
        _ => {}
    }
    response
}

/// What RFC 6750 asks of a response of 401: a call without credentials is given no error code.
fn challenge(fault: CredentialFault) -> HeaderValue {
    let challenge = if fault == CredentialFault::Missing { "Bearer" } else { "Bearer error=\"invalid_token\"" };
    HeaderValue::from_static(challenge)
}
