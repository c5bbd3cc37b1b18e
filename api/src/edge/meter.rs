use std::{
    sync::{PoisonError, RwLock},
    time::Duration,
};

use axum::{extract::MatchedPath, http::Method};
use metrics::{Histogram, histogram};

/// The histograms of one route, by method and status. The recorder is asked for each once, not for each request.
#[derive(Default)]
pub(super) struct Meter {
    histograms: RwLock<Vec<((&'static str, u16), Histogram)>>,
}

impl Meter {
    /// Records that a request to `route` was answered with `status` after `time`.
    pub(super) fn record(&self, route: Option<&MatchedPath>, method: &Method, status: u16, time: Duration) {
        let key = (known(method), status);
        let found = {
            let histograms = self.histograms.read().unwrap_or_else(PoisonError::into_inner);
            // A list: a route has few methods and statuses, and comparing them is faster than hashing.
            histograms.iter().find(|(known, _)| *known == key).map(|(_, histogram)| histogram.record(time))
        };
        if found.is_none() {
            let route = route.map_or("none", MatchedPath::as_str).to_owned();
            let labels = [("route", route), ("method", key.0.to_owned()), ("status", status.to_string())];
            let histogram = histogram!("dibs_http_request_duration_seconds", &labels);
            histogram.record(time);
            // Two requests may both add it. The recorder hands out the same histogram, so nothing is lost.
            self.histograms.write().unwrap_or_else(PoisonError::into_inner).push((key, histogram));
        }
    }
}

/// An invented method must not become a label value, nor the name of a span: both must be few.
pub(super) fn known(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PATCH => "PATCH",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::policy::POLICIES;

    #[test]
    fn the_method_of_every_route_is_named() {
        for policy in POLICIES {
            let method = Method::from_bytes(policy.method.as_bytes()).expect("a method");
            assert_eq!(known(&method), policy.method, "{}", policy.path);
        }
        assert_eq!(known(&Method::from_bytes(b"INVENTED").expect("a method")), "other");
    }
}
