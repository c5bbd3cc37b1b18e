use std::convert::Infallible;

use axum::{
    extract::{FromRequestParts, Request},
    http::{HeaderMap, HeaderName, HeaderValue, request::Parts},
};
use bytes::Bytes;
use dibs_common::{
    domain::trace_context::TraceContext,
    identifiers::{ClaimId, new_uuid},
};
use uuid::Uuid;

static X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The longest request id that a caller may give; the stream carries its length in one byte.
const MAX_BYTES: usize = 128;

/// The id of a request: the caller's own, or a new one, which its claim takes as well.
#[derive(Clone)]
pub struct RequestId {
    header: HeaderValue,
    generated: Option<ClaimId>,
    /// Set when the request has an operation id, which its claim takes.
    operation: Option<ClaimId>,
    trace: Option<TraceContext>,
}

impl RequestId {
    pub(crate) fn of(request: &Request) -> Self {
        let given = request.headers().get(&X_REQUEST_ID);
        // An invalid id is replaced, not refused: it serves the log, and must not cost the caller the request.
        match given.filter(|id| (1..=MAX_BYTES).contains(&id.len()) && id.to_str().is_ok()) {
            Some(id) => Self { header: id.clone(), generated: None, operation: None, trace: None },
            None => Self::generate(),
        }
    }

    fn generate() -> Self {
        let id = new_uuid();
        // From shared bytes, as the header is cloned into the response, the log and the stream.
        let text = Bytes::copy_from_slice(id.hyphenated().encode_lower(&mut [0; 36]).as_bytes());
        let header = HeaderValue::from_maybe_shared(text).unwrap_or(HeaderValue::from_static("none"));
        Self { header, generated: Some(ClaimId(id)), operation: None, trace: None }
    }

    /// The same id, of a request whose span this is.
    pub(crate) fn traced(self, trace: Option<TraceContext>) -> Self {
        Self { trace, ..self }
    }

    /// The request's span, when it is sampled.
    pub const fn trace(&self) -> Option<TraceContext> {
        self.trace
    }

    pub fn as_str(&self) -> &str {
        self.header.to_str().unwrap_or_default()
    }

    /// The id of this request's claim, and the request id that the stream carries: empty when it is the claim's id.
    pub fn for_claim(&self) -> (ClaimId, Bytes) {
        match (self.operation, self.generated) {
            // Empty, because the stream would only repeat the id of the claim.
            (None, Some(id)) => (id, Bytes::new()),
            (operation, _) => {
                let claim = operation.unwrap_or_else(ClaimId::generate);
                (claim, Bytes::copy_from_slice(self.header.as_bytes()))
            }
        }
    }

    /// The same id, of a request whose claim takes the id of the operation, so that a repeat is the same claim.
    pub(crate) fn with_operation(&self, operation: Uuid) -> Self {
        Self { operation: Some(ClaimId(operation)), ..self.clone() }
    }

    pub(crate) fn write_into(self, headers: &mut HeaderMap) {
        headers.insert(X_REQUEST_ID.clone(), self.header);
    }
}

impl<S: Sync> FromRequestParts<S> for RequestId {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.remove().unwrap_or_else(Self::generate))
    }
}
