use dibs_common::{
    domain::order::{Action, CommandResult, PaymentStatus, RejectCode},
    identifiers::{OrderId, PaymentId, UserId},
};

use crate::{
    orders::{AcceptedCommand, CommandContext, Submitted},
    routes::prelude::*,
};

/// The order to pay.
#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PaymentBody {
    user_id: UserId,
    order_id: OrderId,
}

/// A payment that is done.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PaymentAnswer {
    payment_id: PaymentId,
    order_id: OrderId,
    status: PaymentStatus,
    /// In won.
    amount: i64,
    /// The points left, in won.
    balance: i64,
}

impl PaymentAnswer {
    fn of(done: &CommandResult) -> Result<Self> {
        // A defect, not a refusal: the worker never executes a payment without giving its order the id.
        let unpaid = || Error::internal(format!("order {} was paid, and has no payment", done.order.order_id));
        Ok(Self {
            payment_id: done.order.payment_id.ok_or_else(unpaid)?,
            order_id: done.order.order_id,
            status: PaymentStatus::Done,
            amount: done.order.pay_amount,
            balance: done.balance.unwrap_or_default(),
        })
    }
}

/// The failure of a payment, with the id under which it stays readable.
fn failed(error: Error, payment: PaymentId) -> Error {
    match error {
        Error::OrderRejected(refusal) if refusal.code == RejectCode::PointsInsufficient => {
            Error::PaymentFailed { payment, refusal }
        }
        other => other,
    }
}

problems! {
    400 "VALIDATION_FAILED, MALFORMED_JSON", 404 "ORDER_NOT_FOUND", 409 "ORDER_STATE_CONFLICT",
    422 "POINTS_INSUFFICIENT", 503 "DEPENDENCY_UNAVAILABLE, OVERLOADED"
}

/// Pay an order with points
///
/// Paying twice pays once, and answers the first payment. One that fails for lack of points stays readable as FAIL:
/// the problem's `paymentId` is its id.
#[utoipa::path(
    post, path = "/payments/confirm", operation_id = "confirmPayment", tag = "payments", request_body = PaymentBody,
    params(("Prefer" = Option<String>, Header, description = "`wait=N` (seconds, at most 10) or `respond-async`")),
    responses((status = 200, description = "paid", body = PaymentAnswer), AcceptedCommand, Problems),
)]
pub async fn confirm(
    app: SharedApp,
    context: CommandContext,
    JsonBody(PaymentBody { user_id, order_id }): JsonBody<PaymentBody>,
) -> ApiResult {
    let payment = PaymentId(context.id.0);
    let submitted = app.orders.submit(context, user_id, Action::Pay { order: order_id }).await;
    match submitted.map_err(|error| failed(error, payment))? {
        Submitted::Pending(accepted) => Ok(accepted.into_response()),
        Submitted::Done(done) => Ok(Json(PaymentAnswer::of(&done)?).into_response()),
    }
}
