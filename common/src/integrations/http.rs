//! Shared by the clients of HTTP servers that are not part of Dibs.

use reqwest::Url;

/// Parses the URL of a server: http or https, with a host and without a fragment.
pub(crate) fn http_url(url: &str) -> Result<Url, String> {
    const EXPECTED: &str = "expected http:// or https:// and a host";
    let parsed: Url = url.trim().parse().map_err(|error| format!("{EXPECTED}: {error}"))?;
    if !["http", "https"].contains(&parsed.scheme()) || !parsed.has_host() {
        return Err(EXPECTED.into());
    }
    if parsed.fragment().is_some() {
        return Err(format!("{EXPECTED}, without a fragment"));
    }
    Ok(parsed)
}

/// The error and its causes, without the URL, which may hold a password.
pub(crate) fn describe(error: &reqwest::Error) -> String {
    let mut description = if error.is_timeout() { "no answer in time".into() } else { String::from("no answer") };
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        description = format!("{description}: {inner}");
        cause = inner.source();
    }
    description
}
