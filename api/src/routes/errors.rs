//! The pages of error codes: `docs/errors/`, embedded. The `type` of a problem is the path of its code's page.

use axum::{
    http::{HeaderMap, header},
    response::{Html, IntoResponse as _},
};
use dibs_common::{Error, error::ErrorCode};
use rust_embed::Embed;

use crate::{extract::PathParams, problem::Problem, routes::responses::ApiResult};

#[derive(Embed)]
#[folder = "../docs/errors/"]
struct Pages;

/// List the error codes
///
/// `text/html` where the header `Accept` prefers it, else Markdown.
#[utoipa::path(
    get, path = "/errors", operation_id = "listErrorCodes", tag = "errors",
    responses(
        (status = 200, description = "all codes", body = String, content_type = "text/markdown", headers(("Vary"))),
    ),
)]
pub async fn error_codes(headers: HeaderMap) -> ApiResult {
    page("README", &headers)
}

/// Read what an error code means
///
/// When it comes, its fields, what the caller does. `text/html` where the header `Accept` prefers it, else Markdown.
#[utoipa::path(
    get, path = "/errors/{code}", operation_id = "getErrorCode",
    tag = "errors", params(("code" = String, Path, example = "COUPON_EXHAUSTED")),
    responses(
        (status = 200, description = "the code's page", body = String, content_type = "text/markdown", headers(("Vary"))),
        (status = 404, description = "ROUTE_NOT_FOUND", body = Problem),
    ),
)]
pub async fn error_page(PathParams(code): PathParams<String>, headers: HeaderMap) -> ApiResult {
    let code: ErrorCode = code.parse().map_err(|_| Error::RouteNotFound)?;
    page(code.into_str(), &headers)
}

fn page(name: &str, headers: &HeaderMap) -> ApiResult {
    let file = Pages::get(&format!("{name}.md")).ok_or(Error::RouteNotFound)?;
    let text = with_served_links(&String::from_utf8_lossy(&file.data));
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or("*/*");
    let mut response = if quality(accept, "text/html") > quality(accept, "text/markdown") {
        Html(html(&text)).into_response()
    } else {
        ([(header::CONTENT_TYPE, "text/markdown; charset=utf-8")], text).into_response()
    };
    response.headers_mut().insert(header::VARY, header::HeaderValue::from_static("accept"));
    Ok(response)
}

/// The text, with links to other pages as this API serves them. Links out of the folder keep their text alone.
fn with_served_links(text: &str) -> String {
    let mut served = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, label, target, after)) = next_link(rest) {
        served += before;
        match target.strip_suffix(".md") {
            Some("README") => served += &["[", label, "](/errors)"].concat(),
            Some(code) if code.parse::<ErrorCode>().is_ok() => {
                served += &["[", label, "](/errors/", code, ")"].concat();
            }
            _ => served += label,
        }
        rest = after;
    }
    served + rest
}

/// The first `[label](target)`: what is before it, its parts, what is after it.
fn next_link(text: &str) -> Option<(&str, &str, &str, &str)> {
    let (head, tail) = text.split_once("](")?;
    let (before, label) = head.rsplit_once('[')?;
    let (target, after) = tail.split_once(')')?;
    Some((before, label, target, after))
}

/// How much the caller prefers a media type, 0 to 1: the quality of the most specific range that has it.
fn quality(accept: &str, media_type: &str) -> f32 {
    let specificity = |range: &str| match range {
        range if range.eq_ignore_ascii_case(media_type) => Some(2),
        "text/*" => Some(1),
        "*/*" => Some(0),
        _ => None,
    };
    let ranges = accept.split(',').filter_map(|range| {
        let mut parameters = range.split(';').map(str::trim);
        let specificity = specificity(parameters.next().unwrap_or_default())?;
        let quality = parameters.find_map(|parameter| parameter.strip_prefix("q=")?.parse().ok()).unwrap_or(1.0);
        Some((specificity, quality))
    });
    ranges.max_by_key(|(specificity, _)| *specificity).map_or(0.0, |(_, quality)| quality)
}

/// A page of headings, paragraphs and table rows as HTML. Everything else of Markdown stays unchanged.
fn html(markdown: &str) -> String {
    let title = markdown.lines().next().unwrap_or_default().trim_start_matches("# ");
    let mut body = String::new();
    for block in markdown.split("\n\n").map(str::trim).filter(|block| !block.is_empty()) {
        let (tag, text) = match (block.strip_prefix("# "), block.strip_prefix("## ")) {
            (Some(heading), _) => ("h1", heading),
            (_, Some(heading)) => ("h2", heading),
            _ if block.starts_with(['|', '-']) => ("pre", block),
            _ => ("p", block),
        };
        body += &["<", tag, ">", &inline(text), "</", tag, ">\n"].concat();
    }
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>{}</title>\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n\
         <style>body {{ font: 1rem/1.5 sans-serif; max-width: 45rem; margin: 2rem auto; padding: 0 1rem }}</style>\n{body}",
        escape(title)
    )
}

/// The text of a block, escaped, with links and code spans.
fn inline(text: &str) -> String {
    let mut written = String::new();
    let mut rest = text;
    while let Some((before, label, target, after)) = next_link(rest) {
        written += &code_spans(before);
        written += &["<a href=\"", &escape(target), "\">", &code_spans(label), "</a>"].concat();
        rest = after;
    }
    written + &code_spans(rest)
}

fn code_spans(text: &str) -> String {
    let parts: Vec<String> = text.split('`').map(escape).collect();
    // An odd number of parts means that every back quote has its partner.
    if parts.len().is_multiple_of(2) {
        return parts.join("`");
    }
    let spans = parts.iter().enumerate();
    spans.map(|(place, part)| if place % 2 == 1 { format!("<code>{part}</code>") } else { part.clone() }).collect()
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_a_page_and_every_page_a_code() {
        let mut pages: Vec<String> = Pages::iter().map(|name| name.trim_end_matches(".md").to_owned()).collect();
        pages.retain(|name| name != "README");
        pages.sort_unstable();
        let mut codes: Vec<&str> = ErrorCode::ALL.iter().map(ErrorCode::into_str).collect();
        codes.sort_unstable();
        assert_eq!(pages, codes);
    }

    #[test]
    fn a_browser_prefers_html_and_a_program_gets_markdown() {
        let prefers_html = |accept| quality(accept, "text/html") > quality(accept, "text/markdown");
        assert!(prefers_html("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"));
        assert!(prefers_html("text/markdown;q=0.5, text/*"));
        for accept in
            ["*/*", "text/markdown", "application/json", "text/html;q=0.1, */*", "text/html;q=x, text/markdown"]
        {
            assert!(!prefers_html(accept), "{accept}");
        }
    }

    #[test]
    fn links_lead_to_served_pages() {
        let text = "See [A](COUPON_EXHAUSTED.md), [common](README.md) and [operations](../operations.md#x).";
        assert_eq!(with_served_links(text), "See [A](/errors/COUPON_EXHAUSTED), [common](/errors) and operations.");
    }

    #[test]
    fn html_is_escaped() {
        let page = html("# A & B\n\nIf `a < b`:\n[x\"](/errors/\"X) `<odd\n");
        assert!(page.contains("<title>A &amp; B</title>") && page.contains("<h1>A &amp; B</h1>"), "{page}");
        assert!(page.contains("If <code>a &lt; b</code>:\n<a href=\"/errors/&quot;X\">x&quot;</a> `&lt;odd"), "{page}");
    }
}
