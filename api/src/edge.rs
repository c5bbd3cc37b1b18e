//! What happens to every request at the edge: an id, a limit, a measure, and a written answer to every refusal.

use std::{sync::atomic::Ordering, time::Instant};

use axum::{
    extract::{FromRequestParts, MatchedPath, Request, State},
    http::{HeaderName, HeaderValue, Method, request::Parts},
    middleware::Next,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use dibs_common::{
    Error,
    identifiers::{ClaimId, new_uuid},
};
use tracing::Instrument as _;

use crate::{
    app::SharedApp,
    problem::{Refused, written_out},
};

static X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The longest request id that is taken from a caller, in bytes; the stream carries its length in one byte.
const MAX_REQUEST_ID: usize = 128;

/// The id of a request: the caller's own, or a new one, which a claim that it makes takes as well.
#[derive(Clone)]
pub struct RequestId {
    header: HeaderValue,
    made: Option<ClaimId>,
}

impl RequestId {
    fn of(request: &Request) -> Self {
        let given = request.headers().get(&X_REQUEST_ID);
        match given.filter(|id| (1..=MAX_REQUEST_ID).contains(&id.len()) && id.to_str().is_ok()) {
            Some(id) => Self { header: id.clone(), made: None },
            None => Self::make(),
        }
    }

    fn make() -> Self {
        let id = new_uuid();
        let text = Bytes::copy_from_slice(id.hyphenated().encode_lower(&mut [0; 36]).as_bytes());
        let header = HeaderValue::from_maybe_shared(text).unwrap_or(HeaderValue::from_static("none"));
        Self { header, made: Some(ClaimId(id)) }
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        self.header.to_str().unwrap_or_default()
    }

    /// The id of the claim that this request makes, and what the stream has to carry to name the request.
    pub fn for_claim(&self) -> (ClaimId, Bytes) {
        match self.made {
            Some(id) => (id, Bytes::new()),
            None => (ClaimId::generate(), Bytes::copy_from_slice(self.header.as_bytes())),
        }
    }
}

impl<S: Sync> FromRequestParts<S> for RequestId {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        Ok(parts.extensions.get().cloned().unwrap_or_else(Self::make))
    }
}

/// Counts a request in progress for as long as it lives, also when its client goes away.
struct InProgress(SharedApp);

impl InProgress {
    fn begin(app: SharedApp) -> Option<Self> {
        let before = app.in_progress.fetch_add(1, Ordering::Relaxed);
        let limit = app.settings.max_requests_in_progress;
        let counted = Self(app);
        (before < limit).then_some(counted)
    }
}

impl Drop for InProgress {
    fn drop(&mut self) {
        self.0.in_progress.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The layer around all routes.
pub async fn edge(State(app): State<SharedApp>, mut request: Request, next: Next) -> Response {
    let began = Instant::now();
    let id = RequestId::of(&request);
    let (uri, method) = (request.uri().clone(), request.method().clone());
    let route = request.extensions().get::<MatchedPath>().cloned();
    request.extensions_mut().insert(id.clone());
    let response = match InProgress::begin(app) {
        Some(_in_progress) => {
            let span = tracing::debug_span!("request", request_id = id.as_str(), %method, path = uri.path());
            next.run(request).instrument(span).await
        }
        None => Refused(Error::Overloaded).into_response(),
    };
    let mut response = written_out(response, id.as_str(), &uri);
    measure(route.as_ref(), &method, response.status().as_u16(), began);
    response.headers_mut().insert(X_REQUEST_ID.clone(), id.header);
    response
}

fn measure(route: Option<&MatchedPath>, method: &Method, status: u16, began: Instant) {
    let route = route.map_or("none", MatchedPath::as_str);
    // Methods and statuses are few; a made-up method must not become a label.
    let method = if [Method::GET, Method::POST, Method::PATCH].contains(method) { method.as_str() } else { "other" };
    let labels = [("route", route.to_owned()), ("method", method.to_owned()), ("status", status.to_string())];
    metrics::histogram!("dibs_http_request_seconds", &labels).record(began.elapsed());
}

/// The answer to a handler that panicked.
#[expect(clippy::needless_pass_by_value, reason = "the layer hands it over")]
pub fn panicked(panic: Box<dyn std::any::Any + Send>) -> Response {
    let message = panic
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .unwrap_or_else(|| "a panic without a message".into());
    Refused(Error::internal(message)).into_response()
}

/// Answers what no route answers.
pub async fn no_route() -> Refused {
    Refused(Error::RouteNotFound)
}

/// Answers a method that a route does not take.
pub async fn no_method() -> Refused {
    Refused(Error::MethodNotAllowed)
}
