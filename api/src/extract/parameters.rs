use axum::{
    extract::{FromRequestParts, Path, Query},
    http::request::Parts,
};
use dibs_common::Error;
use serde::de::DeserializeOwned;

use crate::problem::ApiError;

/// The parameters in the path, checked.
pub struct PathParameters<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for PathParameters<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let path = Path::<T>::from_request_parts(parts, state).await;
        // axum's own rejection is plain text. Callers of Dibs get a problem document for every error.
        path.map(|Path(values)| Self(values)).map_err(|rejection| ApiError(Error::field("path", rejection.body_text())))
    }
}

/// The query parameters, checked. Those of lists are [`super::ListParameters`].
pub struct QueryParameters<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for QueryParameters<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let query = Query::<T>::from_request_parts(parts, state).await;
        query
            .map(|Query(values)| Self(values))
            .map_err(|rejection| ApiError(Error::field("query", rejection.body_text())))
    }
}
