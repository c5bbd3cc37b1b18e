use axum::{Json, extract::State};
use chrono::{DateTime, Utc};
use dibs_common::{
    db,
    domain::charge::{Charge, ChargeStatus},
    error::Error,
    identifiers::{ChargeId, UserId},
};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{access::Caller, app::SharedApp, extract::PathParams, problem::ApiError, routes::responses::problems};

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
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(serialize_with = "dibs_common::clock::serialize")]
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
    get, path = "/points/charges/{chargeId}", tag = "points", params(("chargeId" = ChargeId, Path)),
    responses((status = 200, description = "the charge now", body = ChargeState), Problems),
)]
pub async fn charge_state(
    State(app): State<SharedApp>,
    caller: Caller,
    PathParams(charge): PathParams<ChargeId>,
) -> Result<Json<ChargeState>, ApiError> {
    let found = db::found(db::charges::find(&app.database.pool(), charge), Error::ChargeNotFound(charge)).await?;
    if caller.acts_for(found.wanted.user) {
        Ok(Json(found.into()))
    } else {
        Err(ApiError(Error::ChargeNotFound(charge)))
    }
}
