use dibs_common::{
    domain::order::{Action, Line, Order, line_errors, merge_lines},
    identifiers::{ClaimId, PaymentId, UserId},
};

use crate::{
    orders::{AcceptedCommand, CommandContext, Submitted},
    routes::prelude::*,
};

/// What a user orders.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OrderBody {
    user_id: UserId,
    /// 1 to 100 items; those of one product count as one.
    #[serde(deserialize_with = "dibs_common::json::objects")]
    #[schema(min_items = 1, max_items = 100)]
    items: Vec<Line>,
    /// The coupon to use.
    #[serde(default)]
    user_coupon_id: Option<ClaimId>,
    /// Pay with points in the same step: both happen, or neither.
    #[serde(default)]
    pay: bool,
}

problems! {
    400 "VALIDATION_FAILED, MALFORMED_JSON", 404 "PRODUCT_NOT_FOUND",
    422 "STOCK_INSUFFICIENT, PRODUCT_NOT_SELLING, COUPON_NOT_USABLE, POINTS_INSUFFICIENT, PAYMENT_REQUIRED, UNPAID_ORDERS_LIMIT_EXCEEDED, UNPAID_UNITS_LIMIT_EXCEEDED",
    503 "DEPENDENCY_UNAVAILABLE, OVERLOADED"
}

/// Place an order
///
/// Stock and coupon are taken at once. The order can be paid until `expiresAt`. With `pay: true` it is paid in the same
/// step. A user's unpaid orders are limited. Waits for the outcome, 3 s unless `Prefer: wait=N` says otherwise; slower,
/// or with `Prefer: respond-async`, the answer is 202, and `Location` shows the outcome.
#[utoipa::path(
    post, path = "/orders", operation_id = "placeOrder", tag = "orders", request_body = OrderBody,
    params(("Prefer" = Option<String>, Header, description = "`wait=N` (seconds, at most 10) or `respond-async`")),
    responses(
        (status = 201, description = "placed, and paid if asked", body = Order, headers(("Location"))),
        AcceptedCommand, Problems,
    ),
)]
pub async fn place(app: SharedApp, context: CommandContext, JsonBody(body): JsonBody<OrderBody>) -> ApiResult {
    validate(line_errors(&body.items))?;
    let action = Action::Place {
        items: merge_lines(&body.items),
        coupon: body.user_coupon_id,
        payment: body.pay.then(PaymentId::generate),
    };
    match app.orders.submit(context, body.user_id, action).await? {
        Submitted::Pending(accepted) => Ok(accepted.into_response()),
        Submitted::Done(done) => {
            let location = format!("/orders/{}", done.order.order_id);
            Ok(located(StatusCode::CREATED, location, done.order))
        }
    }
}
