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
    503 "DEPENDENCY_UNAVAILABLE, OVERLOADED"
}

/// Confirm a purchase
///
/// A paid order can no longer be cancelled afterwards. Confirming twice confirms once.
#[utoipa::path(
    post, path = "/orders/{orderId}/confirm", operation_id = "confirmOrder", tag = "orders", request_body = OrderUser,
    params(("Prefer" = Option<String>, Header, description = "`wait=N` (seconds, at most 10) or `respond-async`")),
    responses((status = 200, description = "the order afterwards", body = Order), AcceptedCommand, Problems),
)]
pub async fn confirm(
    app: SharedApp,
    context: CommandContext,
    PathParams(order): PathParams<OrderId>,
    JsonBody(OrderUser { user_id }): JsonBody<OrderUser>,
) -> ApiResult {
    submit_change(&app, context, user_id, Action::Confirm { order }).await
}
