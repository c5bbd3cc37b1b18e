use std::{convert::Infallible, time::Duration};

use axum::http::{HeaderMap, request::Parts};

/// The header `Prefer` of RFC 7240.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Prefer {
    /// `wait=N`: how long the caller waits for the outcome; more than 10 s counts as 10 s.
    pub wait: Option<Duration>,
    /// `respond-async`: the caller does not wait for the outcome.
    pub respond_async: bool,
}

const MAX_WAIT_SECONDS: u64 = 10;

impl Prefer {
    fn read(headers: &HeaderMap) -> Self {
        let mut prefer = Self::default();
        let values = headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok());
        for preference in values.flat_map(|value| value.split(',')) {
            // What follows a semicolon are parameters of the preference, not preferences.
            let preference = preference.split(';').next().unwrap_or_default();
            let (name, value) = preference.split_once('=').unwrap_or((preference, ""));
            let (name, value) = (name.trim(), value.trim().trim_matches('"'));
            if name.eq_ignore_ascii_case("wait") {
                // Bounded and not refused: RFC 7240 lets a server ignore a preference.
                let wait = value.parse().ok().map(|seconds: u64| Duration::from_secs(seconds.min(MAX_WAIT_SECONDS)));
                // The first one counts, as RFC 7240 says of a preference that is given twice.
                prefer.wait = prefer.wait.or(wait);
            } else if name.eq_ignore_ascii_case("respond-async") {
                prefer.respond_async = true;
            }
        }
        prefer
    }
}

impl<S: Sync> axum::extract::FromRequestParts<S> for Prefer {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::read(&parts.headers))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait(value: &str) -> Option<u64> {
        let headers = HeaderMap::from_iter([("prefer".parse().expect("a name"), value.parse().expect("a value"))]);
        Prefer::read(&headers).wait.map(|wait| wait.as_secs())
    }

    #[test]
    fn two_headers_are_one_list() {
        let name = || "prefer".parse().expect("a name");
        let value = |value: &str| value.parse().expect("a value");
        let headers = HeaderMap::from_iter([(name(), value("respond-async")), (name(), value("wait=4"))]);
        let prefer = Prefer::read(&headers);
        assert_eq!((prefer.wait, prefer.respond_async), (Some(Duration::from_secs(4)), true));
    }

    #[test]
    fn a_wait_is_read_and_bounded_and_nonsense_is_left_out() {
        assert_eq!(wait("wait=3"), Some(3));
        assert_eq!(wait("Wait=3"), Some(3));
        assert_eq!(wait("respond-async, wait=60"), Some(10));
        assert_eq!(wait("wait = 3"), Some(3));
        assert_eq!(wait("wait=\"3\""), Some(3));
        assert_eq!(wait("wait=2, wait=5"), Some(2), "the first one counts");
        assert_eq!(wait("wait=0"), Some(0), "the caller does not wait");
        assert_eq!(wait("foo; wait=9"), None, "a parameter of foo");
        assert_eq!(wait("wait=3; foo=9"), Some(3));
        assert_eq!(wait("wait=-1"), None);
        assert_eq!(wait("return=minimal"), None);
    }
}
