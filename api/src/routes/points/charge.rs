use dibs_common::{
    clock,
    db::charges::ChargeWithBalance,
    domain::{
        FieldError,
        campaign::MAX_AMOUNT,
        charge::{ChargeStatus, NewCharge},
        points::PointRules,
    },
    identifiers::{ChargeId, UserId},
    integrations::payment_gateway::PaymentGateway,
};

use crate::{extract::OperationId, routes::prelude::*};

/// Points that a user buys.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ChargeBody {
    user_id: UserId,
    /// Won, which is points; at least `POINTS_CHARGE_MINIMUM`.
    #[schema(minimum = 1, maximum = 9_007_199_254_740_991_i64)]
    amount: i64,
    /// How it is paid, for the payment gateway; 1 to 40 characters.
    #[schema(min_length = 1, max_length = 40)]
    payment_method: Option<String>,
}

impl ChargeBody {
    /// Refuses invalid amounts before the gateway or the database is asked.
    fn check(&self, rules: PointRules) -> Result<()> {
        let mut errors = Vec::new();
        if self.amount > MAX_AMOUNT {
            errors.push(FieldError::new("amount", format!("expected at most {MAX_AMOUNT} won")));
        }
        // The gateway's own word, in any script: unlike a name, it is not shown to anyone.
        let characters = self.payment_method.as_ref().map(|method| method.chars().count());
        if characters.is_some_and(|characters| !(1..=40).contains(&characters)) {
            errors.push(FieldError::new("paymentMethod", "expected 1 to 40 characters"));
        }
        if !errors.is_empty() {
            return Err(Error::ValidationFailed(errors));
        }
        Ok(rules.check(self.amount)?)
    }
}

/// A charge, and what its user can spend.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ChargeAnswer {
    user_id: UserId,
    /// Won: with the charge when it is approved, without it while it is pending.
    balance: i64,
    charge_id: ChargeId,
    status: ChargeStatus,
}

problems! {
    400 "AMOUNT_BELOW_MINIMUM, VALIDATION_FAILED, MALFORMED_JSON", 422 "POINTS_CAP_EXCEEDED, PAYMENT_DECLINED",
    503 "DEPENDENCY_UNAVAILABLE, OVERLOADED"
}

/// Buy points
///
/// When the payment gateway does not say whether the money is taken, the charge stays pending, and the worker asks
/// again; `Location` shows the outcome. Until then its amount counts against the holding cap.
#[utoipa::path(
    post, path = "/points", operation_id = "chargePoints", tag = "points", request_body = ChargeBody,
    responses(
        (status = 200, description = "paid and credited", body = ChargeAnswer, headers(("Location"))),
        (status = 202, description = "pending: the payment gateway has not decided yet", body = ChargeAnswer,
            headers(("Location"))),
        Problems,
    ),
)]
pub async fn charge(app: SharedApp, OperationId(id): OperationId, JsonBody(body): JsonBody<ChargeBody>) -> ApiResult {
    body.check(app.settings.shared.point_rules())?;
    let ChargeBody { user_id: user, amount, payment_method } = body;
    let wanted = NewCharge { id: ChargeId(id), user, amount, payment_method };
    // To the end, so that a client that goes away does not leave money taken and nothing credited until the worker
    // reconciles the charge.
    let charged = app.run_to_end(execute(app.clone(), wanted)).await?;
    answer(&charged)
}

async fn execute(app: SharedApp, wanted: NewCharge) -> Result<ChargeWithBalance> {
    let (rules, now) = (app.settings.shared.point_rules(), clock::now());
    let Some(gateway) = &app.payment_gateway else {
        return db::charges::begin_approved(&app.database, &wanted, rules, now).await;
    };
    let begun = db::charges::begin(&app.database, &wanted, rules, now).await?;
    // A repeat of a charge that has ended gets the outcome of the first.
    if begun.charge.status == ChargeStatus::Pending { settle(&app, gateway, begun).await } else { Ok(begun) }
}

/// Asks the gateway and stores its decision.
async fn settle(app: &SharedApp, gateway: &PaymentGateway, begun: ChargeWithBalance) -> Result<ChargeWithBalance> {
    let NewCharge { id, user, .. } = begun.charge.wanted;
    let Some(decision) = gateway.charge(&begun.charge.wanted).await else { return Ok(begun) };
    match db::charges::settle(&app.database, id, user, decision, clock::now()).await {
        // The gateway has decided, but the decision is not stored. The charge stays pending, and the worker asks again.
        Err(error) if error.is_transient() => {
            tracing::warn!(charge = %id, cause = error.chain(), "charge decision not stored; the worker will reconcile it");
            Ok(begun)
        }
        settled => settled,
    }
}

fn answer(ChargeWithBalance { charge, balance }: &ChargeWithBalance) -> ApiResult {
    let (charge_id, user_id, status) = (charge.wanted.id, charge.wanted.user, charge.status);
    let code = match status {
        ChargeStatus::Approved => StatusCode::OK,
        ChargeStatus::Pending => StatusCode::ACCEPTED,
        ChargeStatus::Declined => return Err(ApiError(Error::PaymentDeclined(charge_id))),
    };
    let location = format!("/points/charges/{charge_id}");
    let answer = ChargeAnswer { user_id, balance: *balance, charge_id, status };
    Ok(located(code, location, answer))
}
