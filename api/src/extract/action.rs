use axum::{extract::FromRequestParts, http::request::Parts};
use dibs_common::{
    Error, clock,
    domain::admin_action::{ActionContext, MAX_REASON_LENGTH},
};
use serde::{Deserialize, de::DeserializeOwned};
use utoipa::IntoParams;

use super::{Administrator, OperationId, QueryParams};
use crate::{problem::ApiError, request_id::RequestId};

/// A call of an administrator that changes something: who calls, and why.
pub struct Action(pub ActionContext);

/// An [`Action`] of which the caller may want to see only what it would change.
pub struct Change {
    pub context: ActionContext,
    pub is_dry_run: bool,
}

/// What every call that changes something takes in its query.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ActionQuery {
    /// Why, for the list of actions: up to 500 characters.
    #[param(max_length = 500)]
    reason: Option<String>,
}

/// What a call that changes a campaign takes in its query.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ChangeQuery {
    /// Why, for the list of actions: up to 500 characters.
    #[param(max_length = 500)]
    reason: Option<String>,
    /// Nothing is changed: the answer shows what would be.
    #[serde(default)]
    dry_run: bool,
}

impl<S: Send + Sync> FromRequestParts<S> for Action {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let (administrator, ActionQuery { reason }) = administrator_and_query(parts, state).await?;
        context(&administrator, reason, parts).map(Self)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Change {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let (administrator, ChangeQuery { reason, dry_run }) = administrator_and_query(parts, state).await?;
        Ok(Self { context: context(&administrator, reason, parts)?, is_dry_run: dry_run })
    }
}

pub(super) async fn administrator_and_query<S, Q>(parts: &mut Parts, state: &S) -> Result<(Administrator, Q), ApiError>
where
    S: Send + Sync,
    Q: DeserializeOwned,
{
    let administrator = Administrator::from_request_parts(parts, state).await?;
    let QueryParams(query) = QueryParams::from_request_parts(parts, state).await?;
    Ok((administrator, query))
}

pub(super) fn context(
    administrator: &Administrator,
    reason: Option<String>,
    parts: &Parts,
) -> Result<ActionContext, ApiError> {
    if reason.as_ref().is_some_and(|reason| reason.chars().count() > MAX_REASON_LENGTH) {
        return Err(ApiError(Error::field("reason", format!("expected up to {MAX_REASON_LENGTH} characters"))));
    }
    // The edge has put it there for every request.
    let request_id = parts.extensions.get::<RequestId>().map(|id| id.as_str().to_owned()).unwrap_or_default();
    // A repeat with the same key has the same operation id, so the list has the action once.
    let OperationId(operation) = OperationId::of(parts);
    Ok(ActionContext { actor: administrator.actor().to_owned(), request_id, reason, operation, at: clock::now() })
}
