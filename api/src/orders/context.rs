use std::convert::Infallible;

use axum::{extract::FromRequestParts, http::request::Parts};
use dibs_common::identifiers::CommandId;

use crate::{
    extract::{OperationId, Prefer},
    request_id::RequestId,
};

/// What a request says of its command beside the body.
pub struct CommandContext {
    /// The same at every attempt with the same idempotency key.
    pub id: CommandId,
    pub request_id: RequestId,
    pub prefer: Prefer,
}

impl<S: Sync> FromRequestParts<S> for CommandContext {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Infallible> {
        let OperationId(operation) = OperationId::from_request_parts(parts, state).await?;
        Ok(Self {
            // The operation's id, so that a repeat with the same key is the same command, and is executed once.
            id: CommandId(operation),
            request_id: RequestId::from_request_parts(parts, state).await?,
            prefer: Prefer::from_request_parts(parts, state).await?,
        })
    }
}
