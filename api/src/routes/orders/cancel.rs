use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use dibs_common::{
    domain::order::{Action, Order},
    identifiers::OrderId,
};

use super::OrderUser;
use crate::{
    app::SharedApp,
    extract::{JsonBody, PathParameters},
    orders::{AcceptedCommand, CommandContext, Submitted},
    problem::{ApiError, Problem},
};

/// Cancel an order
///
/// Stock, coupon and money go back; a confirmed purchase stays. Cancelling twice cancels once.
#[utoipa::path(
    post, path = "/orders/{orderId}/cancel", tag = "orders", request_body = OrderUser,
    params(("orderId" = OrderId, Path)),
    responses(
        (status = 200, description = "the order afterwards", body = Order),
        (status = 202, description = "accepted; the outcome follows", body = AcceptedCommand),
        (status = 400, description = "VALIDATION_FAILED, MALFORMED_JSON", body = Problem),
        (status = 404, description = "ORDER_NOT_FOUND", body = Problem),
        (status = 409, description = "ORDER_STATE_CONFLICT", body = Problem),
        (status = 422, description = "POINTS_CAP_EXCEEDED", body = Problem),
        (status = 503, description = "DEPENDENCY_UNAVAILABLE, OVERLOADED", body = Problem),
    ),
)]
pub async fn cancel(
    State(app): State<SharedApp>,
    context: CommandContext,
    PathParameters(order): PathParameters<OrderId>,
    JsonBody(OrderUser { user_id }): JsonBody<OrderUser>,
) -> Result<Response, ApiError> {
    match app.orders.submit(context, user_id, Action::Cancel { order }).await? {
        Submitted::Pending(accepted) => Ok(accepted.into_response()),
        Submitted::Done(done) => Ok(Json(done.order).into_response()),
    }
}
