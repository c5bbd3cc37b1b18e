use std::convert::Infallible;

use axum::{extract::FromRequestParts, http::request::Parts};
use dibs_common::identifiers;
use uuid::Uuid;

/// The id of what a request creates: that of its `Idempotency-Key`, the same at every attempt, or a new one.
#[derive(Clone, Copy, Debug)]
pub struct OperationId(pub Uuid);

impl<S: Sync> FromRequestParts<S> for OperationId {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.get().copied().unwrap_or_else(|| Self(identifiers::new_uuid())))
    }
}
