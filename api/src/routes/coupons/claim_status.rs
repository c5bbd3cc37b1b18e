use dibs_common::{
    domain::claim::{ClaimOutcome, ClaimRecord, ClaimRejectReason},
    identifiers::{ClaimId, CouponId, UserId},
};

use crate::routes::prelude::*;

/// Where a claim is in its life.
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

/// A user's claim on a campaign.
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
    #[serde(serialize_with = "dibs_common::clock::serialize")]
    accepted_at: DateTime<Utc>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_coupon_id: Option<ClaimId>,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "dibs_common::clock::serialize")]
    valid_until: Option<DateTime<Utc>>,
    /// Why it was rejected.
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<ClaimRejectReason>,
}

/// Which claim of the user.
#[derive(Clone, Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ClaimQuery {
    /// The latest one, when it is left out.
    claim_id: Option<ClaimId>,
}

problems! { ReadProblems: 404 "COUPON_NOT_FOUND, CLAIM_NOT_FOUND" }

/// Look at a claim
///
/// The user's latest one, or with `claimId` any, also one that was rejected: where a user may have several coupons, each is
/// found by the `claimId` of the response that accepted it.
#[utoipa::path(
    get, path = "/coupons/{couponId}/claims/{userId}", operation_id = "getClaim", tag = "coupons", params(ClaimQuery),
    responses((status = 200, description = "the claim now", body = ClaimState), Problems),
)]
pub async fn claim_status(
    app: SharedApp,
    PathParams((coupon, user)): PathParams<(CouponId, UserId)>,
    QueryParams(query): QueryParams<ClaimQuery>,
) -> JsonResult<ClaimState> {
    let batcher = app.claims.batcher(coupon).await?;
    // Redis before the database: a claim that is issued or rejected between the two reads is found in the second.
    let held = batcher.claims_of_user(&app.redis, user).await;
    if let Some(claim) = query.claim_id {
        let decided = db::within(db::user_claims::find(&app.database.pool(), coupon, user, claim)).await?;
        if let Some(decided) = decided {
            return Ok(Json(state(coupon, user, decided.record, Some(decided.outcome))));
        }
        let record = held?.into_iter().find(|record| record.claim_id == claim);
        let record = record.ok_or(Error::ClaimNotFound { coupon, user })?;
        return Ok(Json(state(coupon, user, record, None)));
    }
    let held = held.map(|records| records.last().copied());
    let decided = db::within(db::issuances::list_of_user(&app.database.pool(), coupon, user)).await?;
    let mut latest_decided = decided.first().copied();
    if latest_decided.is_none() && !matches!(held, Ok(Some(_))) {
        latest_decided = db::within(db::claim_refusals::find_latest(&app.database.pool(), coupon, user)).await?;
    }
    let latest_decided = latest_decided.map(|claim| (claim.record, Some(claim.outcome)));
    let (record, outcome) = match held {
        Ok(Some(record)) => {
            let same = decided.iter().find(|claim| claim.record.claim_id == record.claim_id);
            (record, same.map(|claim| claim.outcome))
        }
        Ok(None) => latest_decided.ok_or(Error::ClaimNotFound { coupon, user })?,
        // Without Redis, a durable outcome is still an answer.
        Err(error) => latest_decided.ok_or(error)?,
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
