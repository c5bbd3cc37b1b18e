use dibs_common::{
    domain::order::{CommandKind, Order},
    identifiers::{CommandId, OrderId},
};

use crate::{access::Caller, orders::AcceptedCommand, routes::prelude::*};

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
    get, path = "/orders/{orderId}", operation_id = "getOrder", tag = "orders",
    responses((status = 200, description = "the order now", body = OrderNow), Problems),
)]
pub async fn show(app: SharedApp, caller: Caller, PathParams(id): PathParams<OrderId>) -> ApiResult {
    // Redis before the database: an order that is placed between the two reads is found in the second.
    let pending = app.orders.pending(CommandId(id.0)).await;
    if let Some(order) = db::within(db::orders::find(&app.database.pool(), id)).await? {
        caller.require_own(order.user_id, Error::OrderNotFound(id))?;
        return Ok(Json(order).into_response());
    }
    match pending? {
        Some(found) if found.kind == CommandKind::Place && caller.acts_for_noted(found.user) => {
            Ok(Json(AcceptedCommand::placing(id)).into_response())
        }
        _ => Err(ApiError(Error::OrderNotFound(id))),
    }
}
