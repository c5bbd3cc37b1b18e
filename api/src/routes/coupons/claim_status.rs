use axum::{Json, extract::State};
use chrono::{DateTime, Utc};
use dibs_common::{
    db,
    domain::claim::{ClaimOutcome, ClaimRecord, ClaimRejectReason},
    error::{Error, Result},
    identifiers::{ClaimId, CouponId, UserId},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    app::SharedApp,
    extract::PathOf,
    problem::{ApiError, Problem},
};

/// What became of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum ClaimStatus {
    /// Accepted, not yet issued.
    Pending,
    /// The user has the coupon.
    Issued,
    /// The user does not get it; `code` says why.
    Rejected,
}

/// A user's latest claim on a campaign.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClaimState {
    claim_id: ClaimId,
    coupon_id: CouponId,
    user_id: UserId,
    /// Its place in the order of acceptance, from 1; 0 when it came by Kafka and was refused at once.
    sequence: u32,
    status: ClaimStatus,
    /// When it was accepted; refused, when that was at once.
    accepted_at: DateTime<Utc>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_coupon_id: Option<ClaimId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    valid_until: Option<DateTime<Utc>>,
    /// Why it was rejected.
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<ClaimRejectReason>,
}

/// What became of a claim
#[utoipa::path(
    get, path = "/coupons/{couponId}/claims/{userId}", tag = "coupons",
    params(("couponId" = u64, Path), ("userId" = u64, Path)),
    responses(
        (status = 200, description = "the user's latest claim", body = ClaimState),
        (status = 404, description = "COUPON_NOT_FOUND, CLAIM_NOT_FOUND", body = Problem),
        (status = 503, description = "DEPENDENCY_UNAVAILABLE", body = Problem),
    ),
)]
pub async fn claim_status(
    State(app): State<SharedApp>,
    PathOf((coupon, user)): PathOf<(CouponId, UserId)>,
) -> Result<Json<ClaimState>, ApiError> {
    let lane = app.claims.lane(coupon).await?;
    // Redis first: a claim that is issued or rejected between the two looks is then found in the database.
    let held = lane.latest_claim(&app.redis, user).await;
    let answered = db::within(db::issuances::list_of_user(app.database.pool(), coupon, user)).await?;
    let of_held = |record: ClaimRecord| {
        let outcome = answered.iter().find(|claim| claim.record.claim_id == record.claim_id);
        (record, outcome.map(|claim| claim.outcome))
    };
    let mut latest_answered = answered.first().copied();
    if latest_answered.is_none() && !matches!(held, Ok(Some(_))) {
        latest_answered = db::within(db::rejected_requests::find_latest(app.database.pool(), coupon, user)).await?;
    }
    let latest_answered = latest_answered.map(|claim| (claim.record, Some(claim.outcome)));
    let (record, outcome) = match held {
        Ok(Some(record)) => of_held(record),
        Ok(None) => latest_answered.ok_or(Error::ClaimNotFound { coupon, user })?,
        // Without Redis, what is durable can still be told.
        Err(error) => latest_answered.ok_or(error)?,
    };
    Ok(Json(state(coupon, user, record, outcome)))
}

fn state(coupon_id: CouponId, user_id: UserId, record: ClaimRecord, outcome: Option<ClaimOutcome>) -> ClaimState {
    let (status, valid_until, code) = match outcome {
        None => (ClaimStatus::Pending, None, None),
        Some(ClaimOutcome::Issued { valid_until }) => (ClaimStatus::Issued, Some(valid_until), None),
        Some(ClaimOutcome::Rejected(rejection)) => (ClaimStatus::Rejected, None, Some(rejection)),
    };
    let ClaimRecord { claim_id, sequence, accepted_at } = record;
    let user_coupon_id = valid_until.map(|_| claim_id);
    ClaimState { claim_id, coupon_id, user_id, sequence, status, accepted_at, user_coupon_id, valid_until, code }
}

/// The durable outcome of one claim, when it has one.
pub async fn find_outcome(
    app: &SharedApp,
    coupon: CouponId,
    user: UserId,
    claim: ClaimId,
) -> Result<Option<ClaimOutcome>> {
    let answered = db::within(db::issuances::list_of_user(app.database.pool(), coupon, user)).await?;
    Ok(answered.iter().find(|found| found.record.claim_id == claim).map(|found| found.outcome))
}
