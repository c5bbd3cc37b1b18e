use axum::{
    extract::{FromRequestParts, Query, RawPathParams},
    http::request::Parts,
};
use dibs_common::Error;
use serde::de::DeserializeOwned;

use super::{
    expected::{Expected, refusal},
    text::{decode_path, decode_query},
};
use crate::problem::ApiError;

pub struct PathParams<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for PathParams<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        // Not axum's `Path`: it takes several spellings of an integer, and its errors are plain text.
        let raw = RawPathParams::from_request_parts(parts, state).await;
        let raw = raw.map_err(|rejection| ApiError(Error::field("path", rejection.body_text())))?;
        let values: Vec<&str> = raw.iter().map(|(_, value)| value).collect();
        decode_path(&values).map(Self).map_err(|_| {
            // A wrong query is named at once as well. Its own extractor will not be reached.
            ApiError(invalid(parts, Some(&raw.iter().collect::<Vec<_>>()), &borrowed(&query_pairs(parts))))
        })
    }
}

/// The query parameters, checked. Those of lists are [`super::ListParams`].
pub struct QueryParams<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for QueryParams<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let pairs = query_pairs(parts);
        let pairs = borrowed(&pairs);
        let decoded = decode_query(&pairs).map_err(|_| ApiError(invalid(parts, None, &pairs)))?;
        check_bounds(parts, &pairs)?;
        Ok(Self(decoded))
    }
}

/// Refuses values that can be decoded, and that the document excludes: text that is too long, a number out of its bounds.
pub(super) fn check_bounds(parts: &Parts, query: &[(&str, &str)]) -> Result<(), ApiError> {
    if query.is_empty() {
        return Ok(());
    }
    let errors = Expected::of(&parts.extensions, &parts.method).parameter_errors(None, query);
    if errors.is_empty() { Ok(()) } else { Err(ApiError(refusal(errors))) }
}

/// Names and values of the query, decoded.
pub(super) fn query_pairs(parts: &Parts) -> Vec<(String, String)> {
    // Any text is a list of pairs, so there is no error to answer.
    Query::try_from_uri(&parts.uri).map(|Query(pairs)| pairs).unwrap_or_default()
}

pub(super) fn borrowed(pairs: &[(String, String)]) -> Vec<(&str, &str)> {
    pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
}

/// The error of parameters that cannot be decoded. Without `path`, those of the path are right.
pub(super) fn invalid(parts: &Parts, path: Option<&[(&str, &str)]>, query: &[(&str, &str)]) -> Error {
    refusal(Expected::of(&parts.extensions, &parts.method).parameter_errors(path, query))
}
