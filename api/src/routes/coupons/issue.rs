use axum::http::{HeaderName, HeaderValue};
use dibs_common::{
    domain::claim::{ClaimOutcome, ClaimRecord, ClaimRejectReason},
    identifiers::{ClaimId, CouponId, UserId},
    redis::scripts::ClaimRequest,
};
use tokio::time::Instant;

use crate::{
    claims::{self, AwaitedClaim},
    extract::Prefer,
    request_id::RequestId,
    routes::{prelude::*, responses::Pending},
};

/// A user's claim on a coupon.
#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClaimBody {
    user_id: UserId,
    coupon_id: CouponId,
}

/// An accepted claim that is not issued yet.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AcceptedClaim {
    claim_id: ClaimId,
    coupon_id: CouponId,
    user_id: UserId,
    /// Its place in the order of acceptance, from 1.
    sequence: u32,
    /// The remaining quantity right after it.
    remaining: u32,
    #[schema(inline)]
    status: Pending,
    #[serde(serialize_with = "dibs_common::clock::serialize")]
    accepted_at: DateTime<Utc>,
}

/// A claim that is issued: the user has the coupon.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct IssuedClaim {
    claim_id: ClaimId,
    coupon_id: CouponId,
    user_id: UserId,
    /// Its place in the order of acceptance, from 1.
    sequence: u32,
    /// The remaining quantity right after it.
    remaining: u32,
    #[schema(inline)]
    status: Issued,
    #[serde(serialize_with = "dibs_common::clock::serialize")]
    accepted_at: DateTime<Utc>,
    user_coupon_id: ClaimId,
    #[serde(serialize_with = "dibs_common::clock::serialize")]
    valid_until: DateTime<Utc>,
}

/// The status of an issued claim.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "UPPERCASE")]
enum Issued {
    Issued,
}

problems! {
    400 "VALIDATION_FAILED, MALFORMED_JSON", 404 "COUPON_NOT_FOUND",
    409 "COUPON_ALREADY_ISSUED, CAMPAIGN_NOT_OPEN, CAMPAIGN_PAUSED", 422 "COUPON_EXHAUSTED, CAMPAIGN_CLOSED", 429 "RATE_LIMITED",
    500 "CLAIM_FAILED, with `Prefer: wait`", 503 "DEPENDENCY_UNAVAILABLE, CAMPAIGN_UNAVAILABLE, OVERLOADED"
}

/// Claim a coupon
///
/// Accepted claims are issued by the worker, usually within a few milliseconds; `Location` shows its outcome.
/// With `Prefer: wait=N` the answer waits for up to N seconds (at most 10) and is 200 once the coupon is issued.
#[utoipa::path(
    post, path = "/coupons/issue", operation_id = "claimCoupon", tag = "coupons", request_body = ClaimBody,
    params(("Prefer" = Option<String>, Header, description = "`wait=N`: wait up to N seconds for the issuance")),
    responses(
        (status = 202, description = "accepted; issuance follows", body = AcceptedClaim,
            headers(("Location"), ("Preference-Applied"))),
        (status = 200, description = "issued, with `Prefer: wait`", body = IssuedClaim,
            headers(("Location"), ("Preference-Applied"))),
        Problems,
    ),
)]
pub async fn issue(
    app: SharedApp,
    request_id: RequestId,
    prefer: Prefer,
    JsonBody(body): JsonBody<ClaimBody>,
) -> ApiResult {
    let batcher = app.claims.batcher(body.coupon_id).await?;
    let (id, request) = request_id.for_claim();
    let awaited = AwaitedClaim { id, coupon: body.coupon_id, user: body.user_id };
    // Where too many callers wait, this one is answered as if it did not prefer to.
    let waiting = prefer.wait.and_then(|wait| Some((app.claims.wait_for(awaited)?, wait)));
    let request = ClaimRequest { user: body.user_id, claim: id, request, trace: request_id.trace() };
    let decided = match batcher.claim(request, waiting.is_some()).await {
        Err(Error::CampaignUnavailable(_)) => Err(missing(&app, body).await),
        decided => decided,
    };
    // What was rejected after its acceptance has a row of its own.
    let accepted = decided.inspect_err(|error| app.claim_attempts.record(body.user_id, body.coupon_id, error))?;
    let Some((waiter, wait)) = waiting else { return Ok(answer(body, accepted, None)) };
    let mut answered = match waiter.outcome(Instant::now() + wait).await {
        Some(ClaimOutcome::Rejected(reason)) => return Err(ApiError(rejection(&app, reason, body, accepted).await)),
        Some(ClaimOutcome::Issued { valid_until }) => answer(body, accepted, Some(valid_until)),
        None => answer(body, accepted, None),
    };
    let applied = HeaderValue::from_str(&format!("wait={}", wait.as_secs())).map_err(Error::internal)?;
    answered.headers_mut().insert(HeaderName::from_static("preference-applied"), applied);
    Ok(answered)
}

fn answer(body: ClaimBody, accepted: claims::AcceptedClaim, valid_until: Option<DateTime<Utc>>) -> Response {
    let ClaimBody { user_id, coupon_id } = body;
    let claims::AcceptedClaim { record: ClaimRecord { claim_id, sequence, accepted_at }, remaining } = accepted;
    let location = format!("/coupons/{coupon_id}/claims/{user_id}");
    let Some(valid_until) = valid_until else {
        let status = Pending::Pending;
        let accepted = AcceptedClaim { claim_id, coupon_id, user_id, sequence, remaining, status, accepted_at };
        return located(StatusCode::ACCEPTED, location, accepted);
    };
    let issued = IssuedClaim {
        claim_id,
        coupon_id,
        user_id,
        sequence,
        remaining,
        status: Issued::Issued,
        accepted_at,
        user_coupon_id: claim_id,
        valid_until,
    };
    located(StatusCode::OK, location, issued)
}

/// A claim that was rejected after its acceptance, as the error of the call that waited for it.
async fn rejection(
    app: &SharedApp,
    reason: ClaimRejectReason,
    body: ClaimBody,
    accepted: claims::AcceptedClaim,
) -> Error {
    match reason {
        ClaimRejectReason::CouponNotFound => Error::CouponNotFound(body.coupon_id),
        ClaimRejectReason::CouponExhausted => Error::CouponExhausted,
        ClaimRejectReason::CampaignPaused => Error::CampaignPaused,
        ClaimRejectReason::CampaignClosed => Error::CampaignClosed,
        ClaimRejectReason::CampaignNotOpen => {
            match db::within(db::campaigns::find(&app.database.pool(), body.coupon_id)).await {
                Ok(Some(campaign)) => {
                    Error::CampaignNotOpen { opens_at: campaign.terms.opens_at, now: accepted.record.accepted_at }
                }
                Ok(None) => Error::CouponNotFound(body.coupon_id),
                Err(error) => error,
            }
        }
        ClaimRejectReason::ClaimFailed => Error::ClaimFailed(accepted.record.claim_id),
        ClaimRejectReason::CouponAlreadyIssued => {
            let first = first_issued(app, body).await.ok().flatten();
            Error::CouponAlreadyIssued(first.unwrap_or(accepted.record))
        }
    }
}

/// The refusal of a claim on a campaign that Redis does not hold. When the campaign is over, MySQL knows its coupons.
async fn missing(app: &SharedApp, body: ClaimBody) -> Error {
    match app.claims.is_over(body.coupon_id).await {
        Ok(true) => match first_issued(app, body).await {
            Ok(first) => first.map_or(Error::CampaignClosed, Error::CouponAlreadyIssued),
            Err(error) => error,
        },
        Ok(false) => Error::CampaignUnavailable(body.coupon_id),
        Err(error) => error,
    }
}

/// The claim for which the user got the first coupon of the campaign.
async fn first_issued(app: &SharedApp, body: ClaimBody) -> Result<Option<ClaimRecord>> {
    let pool = &app.database.pool();
    let claims = db::within(db::issuances::list_of_user(pool, body.coupon_id, body.user_id)).await?;
    let first = claims.iter().rfind(|claim| matches!(claim.outcome, ClaimOutcome::Issued { .. }));
    Ok(first.map(|claim| claim.record))
}
