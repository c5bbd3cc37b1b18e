use dibs_common::{
    db::orders::PaymentView,
    domain::{
        facts::Facts,
        order::{CommandKind, OrderRejectReason, PaymentStatus, RejectCode},
    },
    identifiers::{CommandId, OrderId, PaymentId, UserId},
};

use crate::{access::Caller, routes::prelude::*};

/// A payment of an order.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PaymentState {
    payment_id: PaymentId,
    order_id: OrderId,
    /// READY before it is executed.
    status: PaymentStatus,
    /// Left out before it is executed, and of one that failed because the order could not be paid.
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<UserId>,
    /// In won; left out likewise.
    #[serde(skip_serializing_if = "Option::is_none")]
    amount: Option<i64>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<RejectCode>,
    /// The same as fields; which ones, the page of the code says.
    #[serde(skip_serializing_if = "Option::is_none")]
    facts: Option<Box<Facts>>,
    /// When it was executed, or failed; left out like the amount.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "dibs_common::clock::serialize")]
    created_at: Option<DateTime<Utc>>,
    /// When it was refunded.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "dibs_common::clock::serialize")]
    cancelled_at: Option<DateTime<Utc>>,
}

impl PaymentState {
    /// One that has no row of its own.
    fn not_made(payment_id: PaymentId, order_id: OrderId, status: PaymentStatus) -> Self {
        Self {
            payment_id,
            order_id,
            status,
            user_id: None,
            amount: None,
            code: None,
            facts: None,
            created_at: None,
            cancelled_at: None,
        }
    }

    fn refused(self, refusal: OrderRejectReason) -> Self {
        let facts = Some(refusal.facts).filter(|facts| !facts.is_empty());
        Self { code: Some(refusal.code), facts, ..self }
    }
}

impl From<PaymentView> for PaymentState {
    fn from(made: PaymentView) -> Self {
        Self {
            user_id: Some(made.user_id),
            amount: Some(made.amount),
            code: made.code,
            facts: made.facts,
            created_at: Some(made.created_at),
            cancelled_at: made.cancelled_at,
            ..Self::not_made(made.payment_id, made.order_id, made.status)
        }
    }
}

problems! { ReadProblems: 404 "PAYMENT_NOT_FOUND" }

/// Look at a payment
///
/// One that was accepted and is not executed yet is READY. The id of a payment that found its order paid answers the
/// first payment.
#[utoipa::path(
    get, path = "/payments/{paymentId}", operation_id = "getPayment", tag = "payments",
    responses((status = 200, description = "the payment now", body = PaymentState), Problems),
)]
pub async fn show(app: SharedApp, caller: Caller, PathParams(id): PathParams<PaymentId>) -> JsonResult<PaymentState> {
    let command = CommandId(id.0);
    // Redis before the database: a payment that is created between the two reads is found in the second.
    let pending = app.orders.pending(command).await;
    let pool = &app.database.pool();
    if let Some(payment) = db::within(db::orders::find_payment(pool, id)).await? {
        caller.require_own(payment.user_id, Error::PaymentNotFound(id))?;
        return Ok(Json(payment.into()));
    }
    let outcome = db::within(db::orders::find_command_outcome(pool, command))
        .await?
        .filter(|outcome| outcome.kind == CommandKind::Pay && caller.acts_for(outcome.user));
    match (outcome, pending) {
        (Some(db::orders::CommandOutcome { order, refusal: Some(refusal), .. }), _) => {
            Ok(Json(PaymentState::not_made(id, order, PaymentStatus::Fail).refused(refusal)))
        }
        (Some(outcome), _) => {
            let order = db::within(db::orders::find(pool, outcome.order)).await?;
            let first = order.and_then(|order| order.payment_id).ok_or(Error::PaymentNotFound(id))?;
            let payment = db::within(db::orders::find_payment(pool, first)).await?.ok_or(Error::PaymentNotFound(id))?;
            Ok(Json(payment.into()))
        }
        (None, pending) => match pending? {
            Some(found) if found.kind == CommandKind::Pay && caller.acts_for_noted(found.user) => {
                Ok(Json(PaymentState::not_made(id, found.order, PaymentStatus::Ready)))
            }
            _ => Err(ApiError(Error::PaymentNotFound(id))),
        },
    }
}
