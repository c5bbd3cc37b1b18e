use axum::{
    extract::{FromRequestParts, Path, Query},
    http::request::Parts,
};
use dibs_common::Error;
use serde::de::DeserializeOwned;

use crate::problem::ApiError;

/// The parameters in the path, checked.
pub struct PathOf<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for PathOf<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let path = Path::<T>::from_request_parts(parts, state).await;
        path.map(|Path(values)| Self(values)).map_err(|rejection| ApiError(Error::field("path", rejection.body_text())))
    }
}

/// The query parameters, checked.
pub struct QueryOf<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for QueryOf<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let query = Query::<T>::from_request_parts(parts, state).await;
        query
            .map(|Query(values)| Self(values))
            .map_err(|rejection| ApiError(Error::field("query", rejection.body_text())))
    }
}

/// How many items a page is to have: 1 to 100, 20 when nothing is said.
pub fn page_limit(given: Option<u32>) -> Result<u32, ApiError> {
    match given.unwrap_or(20) {
        limit @ 1..=100 => Ok(limit),
        limit => Err(ApiError(Error::field("limit", format!("expected 1 to 100, got {limit}")))),
    }
}
