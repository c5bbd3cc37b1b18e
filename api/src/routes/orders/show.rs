use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use dibs_common::{
    db,
    domain::order::{CommandKind, Order},
    error::Error,
    identifiers::{CommandId, OrderId},
};

use crate::{
    app::SharedApp,
    extract::PathParameters,
    orders::AcceptedCommand,
    problem::{ApiError, Problem},
    routes::responses::ReadProblems,
};

/// Look at an order
///
/// One that was accepted and is not placed yet is PENDING; one that was refused is REJECTED, with its `code`.
#[utoipa::path(
    get, path = "/orders/{orderId}", tag = "orders", params(("orderId" = OrderId, Path)),
    responses(
        (status = 200, description = "the order now", body = Order),
        (status = 404, description = "ORDER_NOT_FOUND", body = Problem),
        ReadProblems,
    ),
)]
pub async fn show(
    State(app): State<SharedApp>,
    PathParameters(id): PathParameters<OrderId>,
) -> Result<Response, ApiError> {
    // Redis before the database: an order that is placed between the two reads is found in the second.
    let pending = app.orders.pending(CommandId(id.0)).await;
    if let Some(order) = db::within(db::orders::find(&app.database.pool(), id)).await? {
        return Ok(Json(order).into_response());
    }
    match pending? {
        Some(found) if found.kind == CommandKind::Place => Ok(Json(AcceptedCommand::placing(id)).into_response()),
        _ => Err(ApiError(Error::OrderNotFound(id))),
    }
}
