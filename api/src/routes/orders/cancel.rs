use dibs_common::{
    domain::order::{Action, Order},
    identifiers::OrderId,
};

use super::{OrderUser, submit_change};
use crate::{
    orders::{AcceptedCommand, CommandContext},
    routes::prelude::*,
};

problems! {
    400 "VALIDATION_FAILED, MALFORMED_JSON", 404 "ORDER_NOT_FOUND", 409 "ORDER_STATE_CONFLICT",
    422 "POINTS_CAP_EXCEEDED", 503 "DEPENDENCY_UNAVAILABLE, OVERLOADED"
}

/// Cancel an order
///
/// Stock, coupon and money go back; a confirmed purchase stays. Cancelling twice cancels once.
#[utoipa::path(
    post, path = "/orders/{orderId}/cancel", operation_id = "cancelOrder", tag = "orders", request_body = OrderUser,
    params(("Prefer" = Option<String>, Header, description = "`wait=N` (seconds, at most 10) or `respond-async`")),
    responses((status = 200, description = "the order afterwards", body = Order), AcceptedCommand, Problems),
)]
pub async fn cancel(
    app: SharedApp,
    context: CommandContext,
    PathParams(order): PathParams<OrderId>,
    JsonBody(OrderUser { user_id }): JsonBody<OrderUser>,
) -> ApiResult {
    submit_change(&app, context, user_id, Action::Cancel { order }).await
}
