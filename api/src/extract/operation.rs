use std::convert::Infallible;

use axum::{extract::FromRequestParts, http::request::Parts};
use dibs_common::identifiers;
use uuid::Uuid;

/// The id of what a request creates: that of its `Idempotency-Key`, the same at every attempt, or a new one.
#[derive(Clone, Copy, Debug)]
pub struct OperationId(pub Uuid);

impl OperationId {
    pub(super) fn of(parts: &Parts) -> Self {
        parts.extensions.get().copied().unwrap_or_else(|| Self(identifiers::new_uuid()))
    }
}

impl<S: Sync> FromRequestParts<S> for OperationId {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::of(parts))
    }
}
