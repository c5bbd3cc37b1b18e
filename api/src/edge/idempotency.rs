//! `Idempotency-Key`: a repeat of a request that changes something gets the response of the first, and has no effect of
//! its own.
//!
//! A key begins as a row of `idempotency_keys`, with the id of an operation. The request runs with this id, so that
//! whatever it creates is created once, and its response is stored in the row. See `db::idempotency::begin` for what a
//! repeat meets.

use std::{convert::Infallible, panic::AssertUnwindSafe, time::Duration};

use axum::{
    body::{self, Body},
    extract::{MatchedPath, Request},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header, request, response},
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use dibs_common::{
    clock,
    db::{
        self,
        idempotency::{Attempt, KeyState, KeyedRequest, RENEWAL_INTERVAL, StoredResponse},
    },
    error::{Error, Result},
    identifiers::new_uuid,
    retry::{Backoff, RetryPolicy},
};
use futures::FutureExt as _;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tower::Service;
use tracing::Instrument as _;

use super::{InProgress, fingerprint, panicked};
use crate::{
    access::Caller,
    app::SharedApp,
    extract::{OperationId, max_body_bytes, read_body},
    problem::{ApiError, PROBLEM_JSON, needs_new_operation, render},
    request_id::RequestId,
};

static IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// As problems and the OpenAPI document spell it.
pub const IDEMPOTENCY_KEY_NAME: &str = "Idempotency-Key";
static IDEMPOTENT_REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");
/// In characters.
pub const MAX_KEY_LENGTH: usize = 255;
/// For about as long as the request counts as in progress for a repeat.
const FINISHING: RetryPolicy =
    RetryPolicy::exponential(Duration::from_millis(200), Duration::from_secs(2)).within(Duration::from_secs(10));
/// What the column of stored bodies holds.
const MAX_STORED_BYTES: usize = (1 << 24) - 1;

/// Whether the key of the request counts. A path without a route has no effect to repeat.
pub(super) fn has_key(request: &Request) -> bool {
    // Every method that changes something, also those that RFC 9110 calls idempotent: a repeat may come after the
    // change of another, and would undo it.
    !request.method().is_safe()
        && request.headers().contains_key(&IDEMPOTENCY_KEY)
        && request.extensions().get::<MatchedPath>().is_some_and(|route| !is_upload(request.method(), route.as_str()))
}

/// Whether a call sends a list of any length. Its path names the request, and its body is never in memory as a whole.
pub fn is_upload(method: &Method, route: &str) -> bool {
    method == Method::PUT && route == "/admin/coupons/{couponId}/assignments/{key}"
}

/// Responds to a request that has a key.
pub(super) async fn answer<S>(
    app: SharedApp,
    inner: S,
    request: Request,
    id: RequestId,
    progress: Option<InProgress>,
) -> Result<Response, ApiError>
where
    S: Service<Request, Response = Response, Error = Infallible> + Send + 'static,
    S::Future: Send,
{
    let (parts, body) = request.into_parts();
    let key = Key::of(&parts.headers)?;
    let body = read_body(body, max_body_bytes(&parts.extensions)).await?;
    let query = parts.uri.query();
    let keyed = KeyedRequest {
        key_hash: key_hash(&parts, key.name.as_bytes()),
        quoted_key_hash: key.quoted.map(|quoted| key_hash(&parts, quoted.as_bytes())),
        body_hash: fingerprint(query, &body),
        value_hash: fingerprint::of_json(&body).map(|value| fingerprint(query, &value)),
    };
    let request = Request::from_parts(parts, Body::from(body));
    // In a task of its own: the response is stored though the client goes away.
    let running = run(app.clone(), inner, request, keyed, id);
    let running = async move {
        // The request counts as in progress until its task ends, not until its client goes away.
        let _progress = progress;
        running.await
    };
    let running = app.tasks.spawn(running.in_current_span());
    running.await.map_err(Error::internal)?
}

/// The key of a request: bare, or a string of structured fields (RFC 9651), which the draft asks for. Both are the same.
struct Key {
    name: String,
    /// As it came, when it was quoted.
    quoted: Option<HeaderValue>,
}

impl Key {
    fn of(headers: &HeaderMap) -> Result<Self> {
        let mut keys = headers.get_all(&IDEMPOTENCY_KEY).iter();
        // Of two keys it is not known which one the caller repeats.
        let (Some(key), None) = (keys.next(), keys.next()) else {
            return Err(Error::field(IDEMPOTENCY_KEY_NAME, "expected one key"));
        };
        let is_quoted = key.as_bytes().starts_with(b"\"");
        let bare = || key.to_str().ok().map(ToOwned::to_owned);
        let name = if is_quoted { unquoted(key.as_bytes()) } else { bare() };
        let name = name.filter(|name| {
            (1..=MAX_KEY_LENGTH).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_graphic())
        });
        let expected =
            || format!("expected 1 to {MAX_KEY_LENGTH} visible ASCII characters, bare or as a quoted string");
        let name = name.ok_or_else(|| Error::field(IDEMPOTENCY_KEY_NAME, expected()))?;
        Ok(Self { name, quoted: is_quoted.then(|| key.clone()) })
    }
}

/// The text of a string of structured fields: in quotes, where a backslash stands before a quote or a backslash.
fn unquoted(field: &[u8]) -> Option<String> {
    let inside = field.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    let mut text = String::with_capacity(inside.len());
    let mut bytes = inside.iter();
    while let Some(byte) = bytes.next() {
        let byte = match byte {
            b'"' => return None,
            b'\\' => *bytes.next().filter(|escaped| matches!(escaped, b'"' | b'\\'))?,
            other => *other,
        };
        text.push(char::from(byte));
    }
    Some(text)
}

/// A hash: the primary key stays short whatever the lengths of path and key. The line feeds keep two different splits
/// apart, as no part contains one.
fn key_hash(parts: &request::Parts, key: &[u8]) -> [u8; 32] {
    let named = [parts.method.as_str().as_bytes(), b"\n", parts.uri.path().as_bytes(), b"\n", key];
    match parts.extensions.get().and_then(Caller::user) {
        // Keys of a user are the user's own: another one must not read the stored response, or learn that there is one.
        Some(user) => hash(&[&named.concat(), b"\nuser ", user.to_string().as_bytes()]),
        None => hash(&named),
    }
}

/// What makes a request with a key the same as an earlier one. The query counts: with `dryRun` it decides whether there
/// is an effect.
fn fingerprint(query: Option<&str>, body: &[u8]) -> [u8; 32] {
    match query {
        Some(query) => hash(&[body, b"\n?", query.as_bytes()]),
        None => hash(&[body]),
    }
}

fn hash(parts: &[&[u8]]) -> [u8; 32] {
    parts.iter().fold(Sha256::new(), Sha256::chain_update).finalize().into()
}

async fn run<S>(
    app: SharedApp,
    inner: S,
    request: Request,
    keyed: KeyedRequest,
    id: RequestId,
) -> Result<Response, ApiError>
where
    S: Service<Request, Response = Response, Error = Infallible>,
{
    match db::within(db::idempotency::begin(&app.database.pool(), &keyed, new_uuid(), clock::now())).await? {
        KeyState::Acquired(attempt) => Ok(attempted(&app, inner, request, attempt, &id).await),
        KeyState::Completed(stored) => Ok(replayed(stored, id.as_str())),
        KeyState::InProgress => Err(ApiError(Error::IdempotencyInProgress)),
        KeyState::FingerprintMismatch => Err(ApiError(Error::IdempotencyKeyReused)),
    }
}

async fn attempted<S>(
    app: &SharedApp,
    mut inner: S,
    mut request: Request,
    mut attempt: Attempt,
    id: &RequestId,
) -> Response
where
    S: Service<Request, Response = Response, Error = Infallible>,
{
    let uri = request.uri().clone();
    request.extensions_mut().insert(OperationId(attempt.operation));
    request.extensions_mut().insert(id.with_operation(attempt.operation));
    // A panic is caught here too, so that the key is released.
    let answering = AssertUnwindSafe(inner.call(request)).catch_unwind();
    let answered = tokio::select! {
        answered = answering => answered,
        never = renew(app, &mut attempt) => match never {},
    };
    let answered = answered.unwrap_or_else(|panic| Ok(panicked(&*panic))).unwrap_or_else(|never| match never {});
    let needs_new_operation = needs_new_operation(&answered);
    let (head, body) = render(answered, id.as_str(), &uri).into_parts();
    // Read whole before it is sent, as the row must hold what the caller receives.
    let body = match body::to_bytes(body, MAX_STORED_BYTES).await {
        Ok(body) => body,
        Err(error) => return ApiError(Error::internal(error)).into_response(),
    };
    // The effect is durable, so the caller gets its response. A repeat runs the operation again under the same id.
    let ended = EndedAttempt { attempt, head, body, needs_new_operation };
    if let Err(error) = finish(app, &ended).await {
        let (request_id, cause) = (id.as_str(), error.chain());
        tracing::warn!(request_id, cause, "idempotent response not stored; retrying");
        app.tasks.spawn(finish_later(app.clone(), ended.clone()));
    }
    Response::from_parts(ended.head, Body::from(ended.body))
}

/// An attempt, and its response.
#[derive(Clone)]
struct EndedAttempt {
    attempt: Attempt,
    head: response::Parts,
    body: Bytes,
    needs_new_operation: bool,
}

/// Stores a response that the caller has, and that a repeat would otherwise get from another attempt.
async fn finish_later(app: SharedApp, ended: EndedAttempt) {
    let mut backoff = Backoff::new(FINISHING);
    while backoff.pause().await {
        if finish(&app, &ended).await.is_ok() {
            return;
        }
    }
}

/// Renews an attempt until it is dropped.
async fn renew(app: &SharedApp, attempt: &mut Attempt) -> Infallible {
    loop {
        tokio::time::sleep(RENEWAL_INTERVAL).await;
        // A repeat that meets an abandoned key runs the same operation, so this may fail.
        if let Err(error) = db::within(db::idempotency::renew(&app.database.pool(), attempt, clock::now())).await {
            tracing::debug!(cause = error.chain(), "idempotency key not renewed");
        }
    }
}

/// Stores a final response, else lets a repeat run again.
async fn finish(app: &SharedApp, ended: &EndedAttempt) -> Result<()> {
    let EndedAttempt { attempt, head, body, needs_new_operation } = ended;
    let pool = &app.database.pool();
    if is_final(head) {
        let text = |name| head.headers.get(name).and_then(|value| value.to_str().ok()).map(ToOwned::to_owned);
        let (content_type, location) = (text(header::CONTENT_TYPE), text(header::LOCATION));
        let answer = StoredResponse { status: head.status.as_u16(), content_type, location, body: body.to_vec() };
        db::within(db::idempotency::store_response(pool, attempt, &answer)).await
    // Only of a first attempt: an earlier one may have had an effect before it died. With the same operation a command
    // that is decided would be refused again, though its cause has passed.
    } else if *needs_new_operation || (attempt.is_first && head.status.is_client_error()) {
        // The request had no effect, so the caller may correct the body and keep the key.
        db::within(db::idempotency::discard(pool, attempt)).await
    } else {
        db::within(db::idempotency::release(pool, attempt, clock::now())).await
    }
}

/// Whether a repeat gets the same response. Not with `Retry-After`: a repeat may succeed then. Not with a secret, which
/// is stored nowhere.
fn is_final(head: &response::Parts) -> bool {
    let decided = head.status.is_success() || [404, 409, 422].contains(&head.status.as_u16());
    let is_secret = head.headers.get(header::CACHE_CONTROL).is_some_and(|value| value == "no-store");
    decided && !is_secret && !head.headers.contains_key(header::RETRY_AFTER)
}

fn replayed(stored: StoredResponse, request_id: &str) -> Response {
    // The request id is that of this request, or a person would look for the wrong lines of the log.
    let is_problem = stored.content_type.as_deref() == Some(PROBLEM_JSON);
    let body = if is_problem { with_request_id(stored.body, request_id) } else { stored.body };
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = StatusCode::from_u16(stored.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = [(header::CONTENT_TYPE, stored.content_type), (header::LOCATION, stored.location)];
    for (name, text) in headers {
        if let Some(value) = text.and_then(|text| HeaderValue::try_from(text).ok()) {
            response.headers_mut().insert(name, value);
        }
    }
    response.headers_mut().insert(IDEMPOTENT_REPLAYED.clone(), HeaderValue::from_static("true"));
    response
}

fn with_request_id(problem: Vec<u8>, request_id: &str) -> Vec<u8> {
    let Ok(Value::Object(mut members)) = serde_json::from_slice(&problem) else { return problem };
    members.insert("requestId".into(), request_id.into());
    Value::Object(members).to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(value: &[u8]) -> Option<String> {
        let headers = [(IDEMPOTENCY_KEY.clone(), HeaderValue::from_bytes(value).expect("a header"))];
        Key::of(&headers.into_iter().collect()).ok().map(|key| key.name)
    }

    #[test]
    fn a_quoted_key_is_the_bare_one() {
        assert_eq!(key(b"a-1").as_deref(), Some("a-1"));
        assert_eq!(key(b"\"a-1\"").as_deref(), Some("a-1"));
        assert_eq!(key(br#""a\"b\\c""#).as_deref(), Some(r#"a"b\c"#));
        assert_eq!(key(br#"a"b"#).as_deref(), Some(r#"a"b"#));
        for other in
            [&b"\""[..], b"\"\"", b"\"a", b"\"a\"b\"", b"\"a\\", br#""a\""#, br#""a\b""#, b"\"a b\"", b"\"a\";p=1", b""]
        {
            assert_eq!(key(other), None, "{}", other.escape_ascii());
        }
    }
}
