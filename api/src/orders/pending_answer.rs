use axum::{
    Json,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use dibs_common::{
    domain::order::{Action, Command},
    identifiers::{CommandId, OrderId, PaymentId},
    redis::{Redis, pending_commands},
};
use serde::Serialize;
use utoipa::ToSchema;

/// A command that was taken and will be carried out.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Pending {
    /// The command.
    pub command_id: CommandId,
    /// The order that it places or changes.
    pub order_id: OrderId,
    /// The payment that it makes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payment_id: Option<PaymentId>,
    /// Always PENDING.
    #[schema(example = "PENDING")]
    pub status: &'static str,
    #[serde(skip)]
    location: String,
}

impl Pending {
    /// That a command is pending, from now on found by its id. Only who is told to come back needs that, so it is
    /// written when the wait is over and not before.
    pub(super) async fn mark(redis: &Redis, command: &Command) -> Self {
        let (order_id, id) = (command.order(), command.id);
        if let Err(error) = pending_commands::remember(redis, command).await {
            // The command is on the stream: it only cannot be asked after before it is carried out.
            tracing::debug!(cause = error.chain(), "a pending command is not remembered");
        }
        let (payment_id, location) = match command.action {
            // The payment of a placing has an id only once it is made: a repeat may have been first.
            Action::Place { .. } => (None, format!("/orders/{order_id}")),
            Action::Pay { .. } => (Some(PaymentId(id.0)), format!("/payments/{id}")),
            _ => (None, format!("/orders/{order_id}/commands/{id}")),
        };
        Self { command_id: id, order_id, payment_id, status: "PENDING", location }
    }

    /// The same of a command that was asked after.
    pub fn of(id: CommandId, order: OrderId) -> Self {
        Self { command_id: id, order_id: order, payment_id: None, status: "PENDING", location: String::new() }
    }
}

impl IntoResponse for Pending {
    fn into_response(self) -> Response {
        (StatusCode::ACCEPTED, [(header::LOCATION, self.location.clone())], Json(self)).into_response()
    }
}
