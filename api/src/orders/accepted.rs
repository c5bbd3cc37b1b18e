use std::{collections::BTreeMap, time::Duration};

use axum::{
    Json,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use dibs_common::{
    domain::order::{Action, Command},
    identifiers::{CommandId, OrderId, PaymentId},
    redis::{Redis, pending_commands},
    retry::{Backoff, RetryPolicy},
};
use serde::Serialize;
use utoipa::{
    IntoResponses, ToSchema,
    openapi::{ContentBuilder, Header, Ref, RefOr, ResponseBuilder, response::Response as Described},
};

use crate::routes::Pending;

/// For as long as an outage of Redis usually lasts.
const REMEMBERING: RetryPolicy =
    RetryPolicy::exponential(Duration::from_millis(50), Duration::from_millis(500)).within(Duration::from_mins(1));

/// A command that was accepted and has no outcome yet.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AcceptedCommand {
    pub command_id: CommandId,
    /// The order that it places or changes.
    pub order_id: OrderId,
    /// The payment that it creates.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payment_id: Option<PaymentId>,
    #[schema(inline)]
    pub status: Pending,
    #[serde(skip)]
    location: String,
}

impl AcceptedCommand {
    /// Remembers in Redis that the command is pending, so that a request for its outcome finds it. Only a caller that
    /// did not get the outcome asks for it, so this costs nothing while callers wait.
    pub(super) async fn remember(redis: &Redis, command: &Command) -> Self {
        let (order_id, id) = (command.order(), command.id);
        if let Err(error) = pending_commands::remember(redis, command).await {
            // The command is on the stream. Until it is remembered, or has its outcome, requests for it are answered
            // 404.
            tracing::debug!(cause = error.chain(), "pending command not remembered; retrying");
            tokio::spawn(remember_later(redis.clone(), command.clone()));
        }
        let (payment_id, location) = match command.action {
            // The payment of a placing has an id only once it is created: a repeat may have been first.
            Action::Place { .. } => (None, format!("/orders/{order_id}")),
            Action::Pay { .. } => (Some(PaymentId(id.0)), format!("/payments/{id}")),
            _ => (None, format!("/orders/{order_id}/commands/{id}")),
        };
        Self { command_id: id, order_id, payment_id, status: Pending::Pending, location }
    }

    /// An order that was requested and is not placed yet.
    pub fn placing(order: OrderId) -> Self {
        // An order takes the id of the command that places it.
        let command_id = CommandId(order.0);
        Self { command_id, order_id: order, payment_id: None, status: Pending::Pending, location: String::new() }
    }
}

async fn remember_later(redis: Redis, command: Command) {
    let mut backoff = Backoff::new(REMEMBERING);
    while backoff.pause().await {
        if pending_commands::remember(&redis, &command).await.is_ok() {
            return;
        }
    }
}

impl IntoResponse for AcceptedCommand {
    fn into_response(self) -> Response {
        (StatusCode::ACCEPTED, [(header::LOCATION, self.location.clone())], Json(self)).into_response()
    }
}

impl IntoResponses for AcceptedCommand {
    fn responses() -> BTreeMap<String, RefOr<Described>> {
        let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("AcceptedCommand"))).build();
        let response = ResponseBuilder::new().description("accepted; the outcome follows");
        let response = response.content("application/json", content).header("Location", Header::default());
        [("202".to_owned(), RefOr::T(response.build()))].into()
    }
}
