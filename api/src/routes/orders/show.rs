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
use utoipa::ToSchema;

use crate::{
    access::Caller, app::SharedApp, extract::PathParams, orders::AcceptedCommand, problem::ApiError,
    routes::responses::problems,
};

/// An order, or one that is PENDING.
#[derive(ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "only its schema is used")]
enum OrderNow {
    Placed(Box<Order>),
    Pending(AcceptedCommand),
}

problems! { ReadProblems: 404 "ORDER_NOT_FOUND" }

/// Look at an order
///
/// One that was accepted and is not placed yet is PENDING; one that was refused is REJECTED, with its `code`.
#[utoipa::path(
    get, path = "/orders/{orderId}", operation_id = "show_order", tag = "orders", params(("orderId" = OrderId, Path)),
    responses((status = 200, description = "the order now", body = OrderNow), Problems),
)]
pub async fn show(
    State(app): State<SharedApp>,
    caller: Caller,
    PathParams(id): PathParams<OrderId>,
) -> Result<Response, ApiError> {
    // Redis before the database: an order that is placed between the two reads is found in the second.
    let pending = app.orders.pending(CommandId(id.0)).await;
    if let Some(order) = db::within(db::orders::find(&app.database.pool(), id)).await? {
        let is_own = caller.acts_for(order.user_id);
        return if is_own { Ok(Json(order).into_response()) } else { Err(ApiError(Error::OrderNotFound(id))) };
    }
    match pending? {
        Some(found) if found.kind == CommandKind::Place && caller.acts_for_noted(found.user) => {
            Ok(Json(AcceptedCommand::placing(id)).into_response())
        }
        _ => Err(ApiError(Error::OrderNotFound(id))),
    }
}
