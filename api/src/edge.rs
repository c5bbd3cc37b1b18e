//! The layer around every route: request id, limit of requests in progress, the gate, metrics, problems for errors and
//! panics, and `Idempotency-Key`. It is one layer, because each layer costs every request an allocation.

mod client_address;
mod fingerprint;
mod idempotency;
mod limits;
mod meter;

use std::{
    any::Any,
    convert::Infallible,
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll},
    time::Instant,
};

use axum::{
    extract::{MatchedPath, Request},
    http::{HeaderMap, HeaderValue, Method, StatusCode, Version, header},
    response::{IntoResponse as _, Response},
};
use dibs_common::{
    Error,
    error::CredentialFault,
    traces::{self, RequestSpan},
};
use futures::{
    FutureExt as _,
    future::{BoxFuture, Either},
};
pub use idempotency::{IDEMPOTENCY_KEY_NAME, MAX_KEY_LENGTH, is_upload};
pub use limits::is_limited;
use meter::Meter;
use tower::{Layer, Service};
use tracing::Instrument as _;

use crate::{
    access::{
        Authorization, Gate,
        policy::{Listener, Policy},
    },
    app::SharedApp,
    problem::{ApiError, render},
    request_id::RequestId,
};

#[derive(Clone)]
pub struct Edge {
    app: SharedApp,
    gate: Gate,
}

impl Edge {
    /// In front of routes that are served on `listener` as `policies` say.
    pub fn new(app: SharedApp, listener: Listener, policies: &'static [Policy]) -> Self {
        let gate = Gate::new(Arc::clone(&app.credentials), listener, policies);
        Self { app, gate }
    }
}

impl<S> Layer<S> for Edge {
    type Service = EdgeService<S>;

    fn layer(&self, inner: S) -> EdgeService<S> {
        EdgeService { app: self.app.clone(), gate: self.gate.of_route(), meter: Arc::default(), inner }
    }
}

#[derive(Clone)]
pub struct EdgeService<S> {
    app: SharedApp,
    gate: Gate,
    meter: Arc<Meter>,
    inner: S,
}

impl<S> Service<Request> for EdgeService<S>
where
    S: Service<Request, Response = Response, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let began = Instant::now();
        let mut span = span_of(&request);
        let id = RequestId::of(&request).traced(span.as_ref().map(RequestSpan::context));
        if let Some(span) = &mut span {
            span.set_request_id(id.as_str());
        }
        // Kept before the handler consumes the request: the problem and the metrics need them.
        let (uri, method) = (request.uri().clone(), request.method().clone());
        let route = request.extensions().get::<MatchedPath>().cloned();
        let meter = Arc::clone(&self.meter);
        let mut progress = InProgress::begin(&self.app, uri.path());
        let refusal = invalid_host(&request).or_else(|| progress.is_none().then_some(Error::Overloaded));
        let answering = refusal.map_or(Ok(()), |refusal| Err(refuse(refusal))).and_then(|()| {
            let span = tracing::debug_span!("request", request_id = id.as_str(), %method, path = uri.path());
            let answering = self.begin(request, id.clone(), &mut progress)?;
            // Unwind safe: nothing that a panic left half done is used again.
            Ok(AssertUnwindSafe(answering.instrument(span)).catch_unwind())
        });
        Box::pin(async move {
            let (mut response, allowed) = match answering {
                Ok(answering) => {
                    let answered = answering.await.unwrap_or_else(|panic| Ok(panicked(&*panic)));
                    (answered.unwrap_or_else(|never| match never {}), None)
                }
                Err(refused) => *refused,
            };
            let limits = response.extensions_mut().remove::<LimitFields>();
            let mut response = render(response, id.as_str(), &uri);
            if let Some(LimitFields(fields)) = limits {
                response.headers_mut().extend(fields);
            }
            if let Some(allowed) = allowed {
                response.headers_mut().insert(header::ALLOW, allowed);
            }
            // After rendering, so that the status is the one that the caller sees.
            let status = response.status().as_u16();
            meter.record(route.as_ref(), &method, status, began.elapsed());
            if let Some(span) = span {
                span.end(status);
            }
            id.write_into(response.headers_mut());
            drop(progress);
            Ok(response)
        })
    }
}

type Answering<F> = Either<BoxFuture<'static, Result<Response, Infallible>>, F>;

impl<S> EdgeService<S>
where
    S: Service<Request, Response = Response, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
{
    /// Begins to answer a request that the gate admits. What runs in a task of its own takes `progress` along: it is in
    /// progress until that ends, not until the client goes away.
    fn begin(
        &mut self,
        mut request: Request,
        id: RequestId,
        progress: &mut Option<InProgress>,
    ) -> Result<Answering<S::Future>, Refused> {
        match self.gate.admit(&mut request) {
            Authorization::Granted
                if limits::limiter_of(&self.app, &request).is_some() || idempotency::has_key(&request) =>
            {
                let answered = answer(self.app.clone(), self.ready(), request, id, progress.take());
                Ok(Either::Left(answered.map(Ok).boxed()))
            }
            Authorization::Granted => {
                request.extensions_mut().insert(id);
                Ok(Either::Right(self.inner.call(request)))
            }
            Authorization::AfterRefresh(refresh) => {
                let mut again = Self { inner: self.ready(), ..self.clone() };
                let mut progress = progress.take();
                let later = async move {
                    if let Err(error) = refresh.await {
                        return Ok(refuse(error).0);
                    }
                    match again.begin_again(request, id, &mut progress) {
                        Ok(answering) => answering.await,
                        Err(refused) => Ok(refused.0),
                    }
                };
                Ok(Either::Left(later.boxed()))
            }
            Authorization::Refused(error) => Err(refuse(error)),
            Authorization::OtherMethod(allowed) => Err(other_method(request.method(), allowed)),
        }
    }

    /// The same once the keys were fetched. A key that is still unknown is none.
    fn begin_again(
        &mut self,
        mut request: Request,
        id: RequestId,
        progress: &mut Option<InProgress>,
    ) -> Result<Answering<S::Future>, Refused> {
        match self.gate.admit(&mut request) {
            Authorization::AfterRefresh(_) => Err(refuse(Error::Unauthenticated(CredentialFault::Unknown))),
            _ => self.begin(request, id, progress),
        }
    }

    /// The service that was polled ready; its copy stays for the next request.
    fn ready(&mut self) -> S {
        let next = self.inner.clone();
        std::mem::replace(&mut self.inner, next)
    }
}

/// Responds to a request that is counted against a limit, or has an idempotency key.
async fn answer<S>(
    app: SharedApp,
    mut inner: S,
    request: Request,
    id: RequestId,
    progress: Option<InProgress>,
) -> Response
where
    S: Service<Request, Response = Response, Error = Infallible> + Send + 'static,
    S::Future: Send,
{
    let (mut request, admission) = match limits::count(&app, request).await {
        Ok(admitted) => admitted,
        Err(error) => return error.into_response(),
    };
    let (refusal, fields) = admission.map_or((None, None), |admission| (admission.refusal, Some(admission.fields)));
    let mut response = if let Some(refusal) = refusal {
        ApiError(refusal).into_response()
    } else if idempotency::has_key(&request) {
        // It runs in a task of its own, so it is in progress until that ends, not until the client goes away.
        idempotency::answer(app, inner, request, id, progress).await.into_response()
    } else {
        request.extensions_mut().insert(id);
        let answered = inner.call(request).await.unwrap_or_else(|never| match never {});
        drop(progress);
        answered
    };
    if let Some(fields) = fields {
        response.extensions_mut().insert(LimitFields(fields));
    }
    response
}

/// The fields of a limit, until the response is rendered.
#[derive(Clone)]
struct LimitFields(HeaderMap);

/// What RFC 9112 demands of a request of HTTP/1.1: with none or two, a proxy and this process may take it for different
/// hosts.
fn invalid_host(request: &Request) -> Option<Error> {
    let hosts = request.headers().get_all(header::HOST).iter().count();
    let is_invalid = hosts > 1 || (hosts == 0 && request.version() == Version::HTTP_11);
    is_invalid.then(|| Error::field("Host", format!("expected one header, got {hosts}")))
}

fn is_operational(path: &str) -> bool {
    path.starts_with("/health/") || path == "/metrics"
}

/// The span of a request that is sampled.
fn span_of(request: &Request) -> Option<RequestSpan> {
    if !traces::is_on() || is_operational(request.uri().path()) {
        return None;
    }
    // Of several it is not known which one is the caller's.
    let mut values = request.headers().get_all("traceparent").iter();
    let traceparent = values.next().filter(|_| values.next().is_none()).and_then(|value| value.to_str().ok());
    let route = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    RequestSpan::begin(traceparent, meter::known(request.method()), route)
}

/// Counts a request in progress until it is dropped: also when the client goes away.
struct InProgress(SharedApp);

impl InProgress {
    /// None at the limit. Health and metrics are always answered: a busy process must not look like a dead one.
    fn begin(app: &SharedApp, path: &str) -> Option<Self> {
        // Added first and compared after: with a comparison first, two requests could both take the last place.
        // Relaxed, as the number guards no other data.
        let before = app.in_progress.fetch_add(1, Ordering::Relaxed);
        let counted = Self(app.clone());
        (before < app.settings.max_requests_in_progress || is_operational(path)).then_some(counted)
    }
}

impl Drop for InProgress {
    fn drop(&mut self) {
        self.0.in_progress.fetch_sub(1, Ordering::Relaxed);
    }
}

fn panicked(panic: &(dyn Any + Send)) -> Response {
    let text = panic.downcast_ref::<&str>().copied();
    let message = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message");
    ApiError(Error::internal(format!("a handler panicked: {message}"))).into_response()
}

/// A response of the edge itself, and its `Allow`.
type Refused = Box<(Response, Option<HeaderValue>)>;

fn refuse(error: Error) -> Refused {
    Box::new((ApiError(error).into_response(), None))
}

/// The response to a method that the route does not take, and to OPTIONS.
fn other_method(method: &Method, allowed: HeaderValue) -> Refused {
    let response = match *method {
        Method::OPTIONS => StatusCode::NO_CONTENT.into_response(),
        _ => ApiError(Error::MethodNotAllowed).into_response(),
    };
    Box::new((response, Some(allowed)))
}

/// The response to a path without a route.
pub async fn no_route() -> ApiError {
    ApiError(Error::RouteNotFound)
}
