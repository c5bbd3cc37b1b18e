use dibs_common::{
    db::orders::PaymentView,
    domain::{
        facts::Facts,
        order::{CommandKind, OrderRejectReason, PaymentStatus, RejectCode},
    },
    identifiers::{CommandId, OrderId, PaymentId},
};

use crate::{access::Caller, routes::prelude::*};

/// A payment that was requested and has no row of its own.
// Closed: in the document, a payment that was made is not one of these.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct PaymentNotMade {
    payment_id: PaymentId,
    order_id: OrderId,
    /// READY before it is executed; FAIL when the order could not be paid.
    status: PaymentStatus,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<RejectCode>,
    /// The same as fields; which ones, the page of the code says.
    #[serde(skip_serializing_if = "Option::is_none")]
    facts: Option<Box<Facts>>,
}

/// A payment, made or not.
#[derive(ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "only its schema is used")]
enum PaymentNow {
    Made(PaymentView),
    NotMade(PaymentNotMade),
}

problems! { ReadProblems: 404 "PAYMENT_NOT_FOUND" }

/// Look at a payment
///
/// One that was accepted and is not executed yet is READY. The id of a payment that found its order paid answers the
/// first payment.
#[utoipa::path(
    get, path = "/payments/{paymentId}", operation_id = "show_payment", tag = "payments",
    responses((status = 200, description = "the payment now", body = PaymentNow), Problems),
)]
pub async fn show(app: SharedApp, caller: Caller, PathParams(id): PathParams<PaymentId>) -> ApiResult {
    let command = CommandId(id.0);
    // Redis before the database: a payment that is created between the two reads is found in the second.
    let pending = app.orders.pending(command).await;
    let pool = &app.database.pool();
    if let Some(payment) = db::within(db::orders::find_payment(pool, id)).await? {
        caller.require_own(payment.user_id, Error::PaymentNotFound(id))?;
        return Ok(Json(payment).into_response());
    }
    let outcome = db::within(db::orders::find_command_outcome(pool, command))
        .await?
        .filter(|outcome| outcome.kind == CommandKind::Pay && caller.acts_for(outcome.user));
    let not_made = |order_id, status, refusal: Option<OrderRejectReason>| {
        let code = refusal.as_ref().map(|refusal| refusal.code);
        let facts = refusal.map(|refusal| refusal.facts).filter(|facts| !facts.is_empty());
        Json(PaymentNotMade { payment_id: id, order_id, status, code, facts })
    };
    match (outcome, pending) {
        (Some(db::orders::CommandOutcome { order, refusal: Some(refusal), .. }), _) => {
            Ok(not_made(order, PaymentStatus::Fail, Some(refusal)).into_response())
        }
        (Some(outcome), _) => {
            let order = db::within(db::orders::find(pool, outcome.order)).await?;
            let first = order.and_then(|order| order.payment_id).ok_or(Error::PaymentNotFound(id))?;
            let payment = db::within(db::orders::find_payment(pool, first)).await?.ok_or(Error::PaymentNotFound(id))?;
            Ok(Json(payment).into_response())
        }
        (None, pending) => match pending? {
            Some(found) if found.kind == CommandKind::Pay && caller.acts_for_noted(found.user) => {
                Ok(not_made(found.order, PaymentStatus::Ready, None).into_response())
            }
            _ => Err(ApiError(Error::PaymentNotFound(id))),
        },
    }
}
