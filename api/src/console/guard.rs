//! Stands in front of every page: who is logged in, whether the scope suffices, and whether a form is ours. A handler
//! receives a [`Visit`] and, of a form, its [`Fields`]; it cannot forget any of this.

use std::sync::Arc;

use axum::{
    body::{Body, to_bytes},
    extract::{FromRequestParts, MatchedPath, Request, State},
    http::{HeaderMap, HeaderValue, Method, header, request::Parts},
    middleware::Next,
    response::{IntoResponse as _, Redirect, Response},
};
use dibs_common::{
    clock,
    domain::access::Scope,
    error::{Error, Result},
    secret::constant_time_eq,
};
use serde::de::DeserializeOwned;

use super::{
    Console,
    calls::{Calls, Problem},
    forms::Fields,
    page::{self, Shell, problem_page, secured},
    session::Session,
    words::Words,
};
use crate::{
    access::policy::{Access, CONSOLE, of_method},
    extract::PathParams,
    problem::ApiError,
};

pub const SESSION_COOKIE: &str = "dibs_session";
/// Of the form to log in, which has no session yet.
pub const LOGIN_COOKIE: &str = "dibs_login";
const MAX_FORM_BYTES: usize = 64 * 1024;

/// A request for a page, or by one, that is allowed.
#[derive(Clone)]
pub struct Visit {
    pub console: Console,
    pub words: Words,
    /// None on the pages that need none.
    pub session: Option<Arc<Session>>,
    /// Whether cookies may be sent over TLS only.
    pub is_secure: bool,
}

impl Visit {
    pub fn calls(&self) -> Result<Calls, Problem> {
        let session = self.session.as_ref().ok_or_else(|| Error::internal("a page without a session"))?;
        Ok(Calls { router: self.console.calls.clone(), credential: Arc::clone(&session.credential) })
    }

    pub fn actor(&self) -> &str {
        self.session.as_ref().map_or("", |session| &session.credential.name)
    }

    /// What every page shows around its own content; `active` is the entry of the menu.
    pub fn shell(&self, active: &'static str) -> Shell {
        let session = self.session.as_ref();
        Shell {
            words: self.words,
            actor: self.actor().to_owned(),
            may_act: session.is_some_and(|session| session.credential.scopes.allow(Scope::Admin)),
            csrf: session.map(|session| session.csrf()).unwrap_or_default(),
            active,
            notice: None,
            problem: None,
        }
    }
}

impl<S: Sync> FromRequestParts<S> for Visit {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Response> {
        let visit = parts.extensions.get().cloned();
        visit.ok_or_else(|| ApiError(Error::internal("a page without its guard")).into_response())
    }
}

/// What the path of a page names.
pub struct At<T>(pub T);

impl<T: DeserializeOwned + Send> FromRequestParts<Console> for At<T> {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, console: &Console) -> Result<Self, Response> {
        let words = Words::of(&parts.headers, console.app.settings.shared.time_zone, clock::now());
        match PathParams::from_request_parts(parts, console).await {
            Ok(PathParams(named)) => Ok(Self(named)),
            Err(ApiError(error)) => Err(problem_page(&Shell::of_visitor(words), &error.into())),
        }
    }
}

/// The middleware.
pub async fn admit(State(console): State<Console>, request: Request, next: Next) -> Response {
    let words = Words::of(request.headers(), console.app.settings.shared.time_zone, clock::now());
    match admitted(&console, words, request).await {
        Ok(request) => secured(next.run(request).await),
        Err(refusal) => secured(*refusal),
    }
}

type Refused = Box<Response>;

async fn admitted(console: &Console, words: Words, request: Request) -> Result<Request, Refused> {
    let refuse = |problem: Problem| Box::new(problem_page(&Shell::of_visitor(words), &problem));
    let Some(required) = required(&request) else { return Err(refuse(Error::RouteNotFound.into())) };
    let is_form = request.method() == Method::POST;
    if is_form && is_from_elsewhere(request.headers()) {
        return Err(refuse(Error::Forbidden("The form was sent by a page of another site.").into()));
    }
    let mut visit = Visit {
        console: console.clone(),
        words,
        session: None,
        is_secure: is_secure(request.headers(), console.app.settings.trusted_proxy_hops),
    };
    if let Access::Console(scope) = required {
        let session = match session(console, request.headers()).await {
            Ok(session) => session,
            Err(Error::Unauthenticated(_)) => return Err(Box::new(log_in_first(&request))),
            Err(error) => return Err(refuse(error.into())),
        };
        visit.session = Some(Arc::new(session));
        if !visit.session.as_ref().is_some_and(|session| session.credential.scopes.allow(scope)) {
            let problem = Error::ScopeRequired(scope).into();
            return Err(Box::new(problem_page(&visit.shell(""), &problem)));
        }
    }
    let expected = visit.session.as_ref().map(|session| session.csrf());
    let expected = expected.or_else(|| cookie(request.headers(), LOGIN_COOKIE).map(str::to_owned));
    let mut request = if is_form { checked_form(request, expected, &visit).await? } else { request };
    request.extensions_mut().insert(visit);
    Ok(request)
}

/// Reads a form, and refuses one without the token of the session.
async fn checked_form(request: Request, expected: Option<String>, visit: &Visit) -> Result<Request, Refused> {
    let refuse = |error: Error| Box::new(problem_page(&visit.shell(""), &error.into()));
    let (mut parts, body) = request.into_parts();
    let body = to_bytes(body, MAX_FORM_BYTES).await.map_err(|_| refuse(Error::PayloadTooLarge(MAX_FORM_BYTES)))?;
    let fields = Fields::read(&body);
    let given = fields.text("csrf");
    if !expected.is_some_and(|expected| constant_time_eq(given.as_bytes(), expected.as_bytes())) {
        return Err(refuse(Error::Forbidden("The form is not of this session. Load the page again.")));
    }
    parts.extensions.insert(fields);
    Ok(Request::from_parts(parts, Body::empty()))
}

/// What a page requires; none of what is not listed.
fn required(request: &Request) -> Option<Access> {
    let path = request.extensions().get::<MatchedPath>()?;
    let policies: Vec<_> = CONSOLE.iter().filter(|policy| policy.path == path.as_str()).collect();
    let access = of_method(&policies, request.method())?.access;
    // Anything else would not be checked here, and is not served.
    matches!(access, Access::Public | Access::Console(_)).then_some(access)
}

async fn session(console: &Console, headers: &HeaderMap) -> Result<Session> {
    let missing = || Error::Unauthenticated(dibs_common::error::CredentialFault::Missing);
    let id = cookie(headers, SESSION_COOKIE).ok_or_else(missing)?;
    console.app.sessions.find(id).await
}

/// To the form, and after it back to the page; what only a script reads gets a plain refusal.
fn log_in_first(request: &Request) -> Response {
    let is_page = request.method() == Method::GET && !request.headers().contains_key("hx-request");
    if is_page {
        let here = request.uri().path_and_query().map_or("/console", |here| here.as_str());
        return Redirect::to(&format!("/console/login?next={}", page::encoded(here))).into_response();
    }
    let mut response = Redirect::to("/console/login").into_response();
    response.headers_mut().insert("hx-redirect", HeaderValue::from_static("/console/login"));
    response
}

/// What browsers say of the origin of a request. Those that do not say it send no cookie that is `SameSite=Strict`.
fn is_from_elsewhere(headers: &HeaderMap) -> bool {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    if text("sec-fetch-site").is_some_and(|site| !matches!(site, "same-origin" | "none")) {
        return true;
    }
    let host = text(header::HOST.as_str()).unwrap_or_default();
    text(header::ORIGIN.as_str()).is_some_and(|origin| origin.split_once("://").is_none_or(|(_, of)| of != host))
}

/// Whether the browser speaks TLS: a proxy that is trusted says so.
fn is_secure(headers: &HeaderMap, trusted_proxy_hops: u32) -> bool {
    let scheme = headers.get_all("x-forwarded-proto").iter().next_back().and_then(|value| value.to_str().ok());
    let scheme = scheme.and_then(|schemes| schemes.rsplit(',').next()).map(str::trim);
    trusted_proxy_hops > 0 && scheme == Some("https")
}

/// The value of a cookie. Of two with the name, the first: paths make it the more specific one.
pub fn cookie<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let lists = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = lists.flat_map(|list| list.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(given, _)| *given == name).map(|(_, value)| value)
}

/// A cookie of the console.
pub fn set_cookie(name: &str, value: &str, seconds: u64, is_secure: bool) -> HeaderValue {
    let secure = if is_secure { "; Secure" } else { "" };
    let text = format!("{name}={value}; Path=/console; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}");
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, value.parse().expect("a value"));
        }
        headers
    }

    #[test]
    fn a_form_of_another_site_is_known_by_what_the_browser_says() {
        let host = ("host", "dibs.test:8080");
        for (fields, expected) in [
            (vec![host], false),
            (vec![host, ("sec-fetch-site", "same-origin"), ("origin", "http://dibs.test:8080")], false),
            (vec![host, ("origin", "https://dibs.test:8080")], false),
            (vec![host, ("sec-fetch-site", "cross-site")], true),
            (vec![host, ("sec-fetch-site", "same-site")], true),
            (vec![host, ("origin", "http://evil.test")], true),
            (vec![host, ("origin", "null")], true),
        ] {
            assert_eq!(is_from_elsewhere(&headers(&fields)), expected, "{fields:?}");
        }
    }

    #[test]
    fn only_a_trusted_proxy_says_that_there_is_tls() {
        let https = headers(&[("x-forwarded-proto", "http, https")]);
        assert!(is_secure(&https, 1) && !is_secure(&https, 0) && !is_secure(&headers(&[]), 1));
        assert!(!is_secure(&headers(&[("x-forwarded-proto", "https, http")]), 1));
    }

    #[test]
    fn cookies_are_read_by_name() {
        let headers = headers(&[("cookie", "a=1; dibs_session=x=y"), ("cookie", "b=2")]);
        assert_eq!(cookie(&headers, SESSION_COOKIE), Some("x=y"));
        assert_eq!(cookie(&headers, "b"), Some("2"));
        assert_eq!(cookie(&headers, "c"), None);
    }
}
