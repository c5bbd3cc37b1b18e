use dibs_common::{
    db::orders::CommandOutcome,
    domain::{
        facts::Facts,
        order::{CommandKind, RejectCode},
    },
    identifiers::{CommandId, OrderId},
};

use crate::{access::Caller, routes::prelude::*};

/// Where a command is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "UPPERCASE")]
enum CommandStatus {
    Pending,
    Done,
    /// It changed nothing; `code` says why.
    Refused,
}

/// A command to pay, confirm or cancel.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CommandState {
    command_id: CommandId,
    order_id: OrderId,
    status: CommandStatus,
    /// Why it was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<RejectCode>,
    /// The same in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
    /// The same as fields; which ones, the page of the code says.
    #[serde(skip_serializing_if = "Option::is_none")]
    facts: Option<Box<Facts>>,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "dibs_common::clock::serialize")]
    decided_at: Option<DateTime<Utc>>,
}

problems! { ReadProblems: 404 "COMMAND_NOT_FOUND" }

/// Look at a command
///
/// For commands to confirm or cancel that were answered 202.
#[utoipa::path(
    get, path = "/orders/{orderId}/commands/{commandId}", operation_id = "getCommand", tag = "orders",
    responses((status = 200, description = "the command now", body = CommandState), Problems),
)]
pub async fn command(
    app: SharedApp,
    caller: Caller,
    PathParams((order, id)): PathParams<(OrderId, CommandId)>,
) -> JsonResult<CommandState> {
    // Redis before the database: a command that is executed between the two reads is found in the second.
    let pending = app.orders.pending(id).await;
    let outcome = db::within(db::orders::find_command_outcome(&app.database.pool(), id)).await?;
    if let Some(outcome) = outcome.filter(|outcome| outcome.order == order && caller.acts_for(outcome.user)) {
        return Ok(Json(CommandState::decided(id, outcome)));
    }
    match pending? {
        Some(found)
            if found.order == order && found.kind != CommandKind::Place && caller.acts_for_noted(found.user) =>
        {
            Ok(Json(CommandState::pending(id, order)))
        }
        _ => Err(ApiError(Error::CommandNotFound(id))),
    }
}

impl CommandState {
    const fn pending(command_id: CommandId, order_id: OrderId) -> Self {
        let status = CommandStatus::Pending;
        Self { command_id, order_id, status, code: None, detail: None, facts: None, decided_at: None }
    }

    fn decided(id: CommandId, outcome: CommandOutcome) -> Self {
        let status = if outcome.refusal.is_some() { CommandStatus::Refused } else { CommandStatus::Done };
        Self {
            command_id: id,
            order_id: outcome.order,
            status,
            code: outcome.refusal.as_ref().map(|refusal| refusal.code),
            detail: outcome.refusal.as_ref().map(|refusal| refusal.detail.clone()),
            facts: outcome.refusal.map(|refusal| refusal.facts).filter(|facts| !facts.is_empty()),
            decided_at: Some(outcome.decided_at),
        }
    }
}
