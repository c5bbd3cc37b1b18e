use std::convert::Infallible;

use axum::{extract::FromRequestParts, http::request::Parts};
use dibs_common::identifiers::CommandId;

use super::{OperationId, Prefer};
use crate::edge::RequestId;

/// What a request says of the command that it makes, beside the body.
pub struct Submission {
    /// The command's id: the same at every attempt with the same idempotency key.
    pub id: CommandId,
    /// The request, for the log.
    pub request: RequestId,
    /// How long the caller waits for the outcome.
    pub prefer: Prefer,
}

impl<S: Sync> FromRequestParts<S> for Submission {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Infallible> {
        let OperationId(operation) = OperationId::from_request_parts(parts, state).await?;
        Ok(Self {
            id: CommandId(operation),
            request: RequestId::from_request_parts(parts, state).await?,
            prefer: Prefer::from_request_parts(parts, state).await?,
        })
    }
}
