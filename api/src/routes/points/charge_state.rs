use dibs_common::{
    domain::charge::{Charge, ChargeStatus},
    identifiers::{ChargeId, UserId},
};

use crate::{access::Caller, routes::prelude::*};

/// A purchase of points.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ChargeState {
    charge_id: ChargeId,
    user_id: UserId,
    /// Won.
    amount: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    payment_method: Option<String>,
    status: ChargeStatus,
    #[serde(serialize_with = "dibs_common::clock::serialize")]
    created_at: DateTime<Utc>,
    /// When it was approved or declined.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "dibs_common::clock::serialize")]
    decided_at: Option<DateTime<Utc>>,
}

impl From<Charge> for ChargeState {
    fn from(charge: Charge) -> Self {
        Self {
            charge_id: charge.wanted.id,
            user_id: charge.wanted.user,
            amount: charge.wanted.amount,
            payment_method: charge.wanted.payment_method,
            status: charge.status,
            created_at: charge.created_at,
            decided_at: charge.decided_at,
        }
    }
}

problems! { ReadProblems: 404 "CHARGE_NOT_FOUND" }

/// Look at a charge
#[utoipa::path(
    get, path = "/points/charges/{chargeId}", operation_id = "getCharge", tag = "points",
    responses((status = 200, description = "the charge now", body = ChargeState), Problems),
)]
pub async fn charge_state(
    app: SharedApp,
    caller: Caller,
    PathParams(charge): PathParams<ChargeId>,
) -> JsonResult<ChargeState> {
    let found = db::found(db::charges::find(&app.database.pool(), charge), Error::ChargeNotFound(charge)).await?;
    caller.require_own(found.wanted.user, Error::ChargeNotFound(charge))?;
    Ok(Json(found.into()))
}
