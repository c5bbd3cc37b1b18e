//! Logging in with `ADMIN_TOKEN` or an API key, and out.

use askama::Template;
use axum::{
    http::{HeaderMap, StatusCode, header},
    response::Response,
};
use dibs_common::{error::Error, secret::random_text};

use super::{
    calls::Problem,
    forms::{Fields, QueryFields},
    guard::{LOGIN_COOKIE, SESSION_COOKIE, Visit, cookie, set_cookie},
    page::{PageResult, Shell, render_with, see},
    session::SESSION,
};

/// How long the form to log in may stand open.
const FORM_SECONDS: u64 = 3_600;

#[derive(Template)]
#[template(path = "login.html")]
struct LoginPage<'p> {
    s: &'p Shell,
    next: &'p str,
}

pub async fn form(visit: Visit, headers: HeaderMap, QueryFields(query): QueryFields) -> Response {
    form_page(&visit, cookie(&headers, LOGIN_COOKIE), query.text("next"), None)
}

fn form_page(visit: &Visit, token: Option<&str>, next: &str, problem: Option<Problem>) -> Response {
    // That of a form in another tab stays, so that both work.
    let is_ours = |token: &&str| {
        token.len() == 43 && token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    let token = token.filter(is_ours).map(str::to_owned);
    let token = token.or_else(|| random_text().ok()).unwrap_or_default();
    let status = problem.as_ref().map_or(StatusCode::OK, Problem::status);
    let mut shell = visit.shell("").with_problem(problem);
    shell.csrf.clone_from(&token);
    let mut response = render_with(status, &LoginPage { s: &shell, next });
    let cookie = set_cookie(LOGIN_COOKIE, &token, FORM_SECONDS, visit.is_secure);
    response.headers_mut().append(header::SET_COOKIE, cookie);
    response
}

pub async fn log_in(visit: Visit, headers: HeaderMap, fields: Fields) -> Response {
    let next = fields.text("next");
    match visit.console.app.sessions.begin(fields.text("token")).await {
        Ok(id) => {
            // Only to a page of the console: a link must not lead a new session elsewhere.
            let is_page = next == "/console" || (next.starts_with("/console/") && !next.starts_with("/console/login"));
            let mut response = see(if is_page { next } else { "/console" });
            let cookie = set_cookie(SESSION_COOKIE, &id, SESSION.as_secs(), visit.is_secure);
            response.headers_mut().append(header::SET_COOKIE, cookie);
            tracing::info!("console session begun");
            response
        }
        Err(error) => {
            if matches!(error, Error::Unauthenticated(_) | Error::ScopeRequired(_)) {
                tracing::warn!(code = error.code().into_str(), "console log-in refused");
            }
            form_page(&visit, cookie(&headers, LOGIN_COOKIE), next, Some(error.into()))
        }
    }
}

pub async fn log_out(visit: Visit) -> PageResult {
    if let Some(session) = &visit.session
        && let Err(error) = visit.console.app.sessions.end(session).await
    {
        // The cookie goes in any case. The session ends by itself within hours.
        tracing::warn!(cause = error.chain(), "console session not removed");
    }
    let mut response = see("/console/login");
    response.headers_mut().append(header::SET_COOKIE, set_cookie(SESSION_COOKIE, "", 0, visit.is_secure));
    Ok(response)
}
