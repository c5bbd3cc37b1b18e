//! What all pages have: the frame around them, their headers, and the page of a problem.

use std::fmt::Write as _;

use askama::Template;
use axum::{
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{Html, IntoResponse, Redirect, Response},
};
use dibs_common::{error::Error, identifiers::new_uuid};

use super::{assets, calls::Problem, words::Words};

/// Nothing from elsewhere, no inline script or style, no frame around a page.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// The frame around a page.
#[derive(Clone)]
pub struct Shell {
    pub words: Words,
    /// Who is logged in; empty without a session.
    pub actor: String,
    /// Whether the credential may change something.
    pub may_act: bool,
    pub csrf: String,
    /// The entry of the menu.
    pub active: &'static str,
    /// The key of a text: what was just done.
    pub notice: Option<&'static str>,
    pub problem: Option<Problem>,
}

impl std::ops::Deref for Shell {
    type Target = Words;

    fn deref(&self) -> &Words {
        &self.words
    }
}

/// What a page may say of what was done before it.
const NOTICES: [&str; 12] = [
    "paused",
    "resumed",
    "closed",
    "changed",
    "unchanged",
    "created",
    "rebuilding",
    "redriven",
    "dropped",
    "tested",
    "revoked",
    "redriving",
];

impl Shell {
    pub const fn of_visitor(words: Words) -> Self {
        Self {
            words,
            actor: String::new(),
            may_act: false,
            csrf: String::new(),
            active: "",
            notice: None,
            problem: None,
        }
    }

    /// With what the query `done` says. Only what is listed: a link must not put words into the page.
    #[must_use]
    pub fn with_notice(mut self, done: &str) -> Self {
        self.notice = NOTICES.iter().find(|notice| **notice == done).copied();
        self
    }

    #[must_use]
    pub fn with_problem(mut self, problem: Option<Problem>) -> Self {
        self.problem = problem;
        self
    }

    /// The hidden fields of every form.
    pub fn hidden(&self) -> String {
        let (csrf, operation) = (&self.csrf, new_uuid());
        format!(
            r#"<input type="hidden" name="csrf" value="{csrf}"><input type="hidden" name="operation" value="{operation}">"#
        )
    }

    pub fn asset(&self, name: &str) -> &'static str {
        assets::url(name)
    }

    /// The attribute of the menu's entry of this page.
    pub fn current(&self, entry: &str) -> &'static str {
        if self.active == entry { r#" aria-current="page""# } else { "" }
    }
}

/// A page as a response.
pub fn render(page: &impl Template) -> Response {
    render_with(StatusCode::OK, page)
}

pub fn render_with(status: StatusCode, page: &impl Template) -> Response {
    match page.render() {
        Ok(html) => (status, Html(html)).into_response(),
        Err(error) => crate::problem::ApiError(Error::internal(error)).into_response(),
    }
}

#[derive(Template)]
#[template(path = "problem.html")]
struct ProblemPage<'p> {
    s: &'p Shell,
    problem: &'p Problem,
}

pub fn problem_page(shell: &Shell, problem: &Problem) -> Response {
    render_with(problem.status(), &ProblemPage { s: shell, problem })
}

#[derive(Template)]
#[template(path = "problem_part.html")]
struct ProblemPart<'p> {
    s: &'p Words,
    problem: &'p Problem,
}

/// In place of a part of a page. With 200, as htmx puts nothing else into the page.
pub fn problem_part(words: &Words, problem: &Problem) -> Response {
    render(&ProblemPart { s: words, problem })
}

/// What a handler answers when it cannot show its page.
pub struct Failure(pub Shell, pub Problem);

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        problem_page(&self.0, &self.1)
    }
}

pub type PageResult = Result<Response, Failure>;

/// Back to a page, after a form.
pub fn see(path: &str) -> Response {
    Redirect::to(path).into_response()
}

/// Part of the query of a link.
pub fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            let _never_fails = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

/// The headers of every response of the console.
pub fn secured(mut response: Response) -> Response {
    let headers: &mut HeaderMap = response.headers_mut();
    for (name, value) in [
        ("content-security-policy", POLICY),
        ("x-frame-options", "DENY"),
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "same-origin"),
        ("cross-origin-opener-policy", "same-origin"),
        ("cross-origin-resource-policy", "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}
